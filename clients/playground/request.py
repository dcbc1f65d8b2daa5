"""A request of the page: the body to send, and the same request as curl and as Python, to copy into a terminal.

A JSON body in the code is the one that is sent, to the byte. A key never appears in the code.
"""

import json
import mimetypes
import pprint
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_SDK = {"/v1/chat/completions": "chat.completions", "/v1/completions": "completions", "/v1/embeddings": "embeddings"}


@dataclass(frozen=True)
class Request:
    """A POST to `path`: the JSON value `body`, or with `files` a form of them and of `fields`."""

    path: str
    body: Any = None
    fields: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The body that is sent, if it is JSON. A lone surrogate becomes a question mark."""
        text = json.dumps(self.body, ensure_ascii=False, indent=2)
        return text.encode("utf-8", "replace").decode()

    def content(self) -> dict[str, Any]:
        """The body, as httpx takes it."""
        if self.files:
            files = {name: (file.name, file.read_bytes(), _media_type(file)) for name, file in self.files.items()}
            return {"data": dict(self.fields), "files": files}
        return {"content": self.text.encode(), "headers": {"content-type": "application/json"}}

    def curl(self, url: str, with_key: bool) -> str:
        """The request as a command line; `with_key` takes the key from the environment's OPENAI_API_KEY."""
        stream = " -N" if self._streams else ""
        arguments = [f"curl{stream} {shlex.quote(url + self.path)}"]
        if with_key:
            arguments.append('-H "Authorization: Bearer $OPENAI_API_KEY"')
        if self.files:
            arguments += [f"--form-string {shlex.quote(f'{name}={value}')}" for name, value in self.fields.items()]
            arguments += [f"-F {shlex.quote(_part(name, file))}" for name, file in self.files.items()]
        else:
            arguments += ["-H 'Content-Type: application/json'", f"-d {shlex.quote(self.text)}"]
        return " \\\n  ".join(arguments)

    def python(self, url: str, with_key: bool) -> str:
        """The request as a program: with the OpenAI SDK if that has the route, with httpx otherwise."""
        return self._sdk(url, with_key) if self.path in _SDK else self._httpx(url, with_key)

    @property
    def _streams(self) -> bool:
        return isinstance(self.body, dict) and bool(self.body.get("stream"))

    def _sdk(self, url: str, with_key: bool) -> str:
        key = "" if with_key else ', api_key="none"'
        arguments = "".join(
            f"    {name}={_literal(value, 5 + len(name))},\n" for name, value in json.loads(self.text).items()
        )
        call = f"client.{_SDK[self.path]}.create(\n{arguments})"
        head = f"from openai import OpenAI\n\nclient = OpenAI(base_url={_literal(f'{url}/v1')}{key})\n"
        if not self._streams:
            return f"{head}answer = {call}\nprint(answer)\n"
        piece = "choices[0].delta.content" if self.path == "/v1/chat/completions" else "choices[0].text"
        loop = f'for chunk in stream:\n    if chunk.choices:\n        print(chunk.{piece} or "", end="", flush=True)\n'
        return f"{head}stream = {call}\n{loop}"

    def _httpx(self, url: str, with_key: bool) -> str:
        lines = [f"    {_literal(url + self.path)},"]
        if with_key:
            lines.append('    headers={"Authorization": f"Bearer {os.environ[\'OPENAI_API_KEY\']}"},')
        if self.files:
            lines += [f"    data={_literal(dict(self.fields))},"] if self.fields else []
            files = "".join(
                f'        {_literal(name)}: ({_literal(file.name)}, open({_literal(file.name)}, "rb"), '
                f"{_literal(_media_type(file))}),\n"
                for name, file in self.files.items()
            )
            lines.append(f"    files={{\n{files}    }},")
        else:
            lines.append(f"    json={_literal(json.loads(self.text), 9)},")
        imports = "import os\n\nimport httpx\n" if with_key else "import httpx\n"
        call = "\n".join([*lines, "    timeout=None,"])
        return f"{imports}\nanswer = httpx.post(\n{call}\n)\nprint(answer.text)\n"


def _literal(value: Any, indent: int = 8) -> str:
    """A value as a Python literal, its further lines indented by `indent` spaces."""
    return pprint.pformat(value, width=90, sort_dicts=False).replace("\n", "\n" + " " * indent)


def _part(name: str, file: Path) -> str:
    file_name = file.name.replace("\\", "\\\\").replace('"', '\\"')
    return f'{name}=@"{file_name}";type={_media_type(file)}'


def _media_type(file: Path) -> str:
    return mimetypes.guess_type(file.name)[0] or "application/octet-stream"
