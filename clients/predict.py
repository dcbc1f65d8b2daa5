"""One prediction: a file is uploaded as a form, JSON is sent unchanged, the answer is printed as it arrives."""

import json
import mimetypes
import os
import sys
from pathlib import Path
from typing import Any

import httpx

from clients import rejection, unreachable


def run(url: str, key: str | None, model: str, text: str) -> int:
    """Send a file's path or a JSON text to the model and print the answer; the exit status is 1 after an error."""
    try:
        request = _request(text)
    except ValueError as problem:
        print(problem, file=sys.stderr)
        return 2
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    has_begun = False
    try:
        timeout = httpx.Timeout(10, read=None)
        with httpx.stream("POST", f"{url}/predict/{model}", headers=headers, timeout=timeout, **request) as response:
            has_begun = True
            if response.status_code != 200:
                response.read()
                return rejection.report(response.status_code, response.text)
            for piece in response.iter_text():
                print(piece, end="", flush=True)
            print()
    except httpx.TransportError as problem:
        if not has_begun:
            return unreachable.report(url)
        print(f"\nthe answer broke off: {problem}", file=sys.stderr)
        return 1
    return 0


def _request(text: str) -> dict[str, Any]:
    """The body: JSON from a text, standard input (-) or a .json file; any other file is a form's field `file`.

    Raises ValueError for what is neither, or cannot be read.
    """
    if text == "-":
        text = sys.stdin.read()
    is_json = text.lstrip()[:1] in ("{", "[", '"')
    if not is_json and os.path.isfile(text):  # noqa: PTH113 # a Path raises for a text too long for a name
        return _of_file(Path(text))
    try:
        return {"json": json.loads(text)}
    except json.JSONDecodeError as problem:
        raise ValueError(f"expected a file that exists or JSON, got {text!r} ({problem})") from None


def _of_file(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise ValueError(f"expected a file that can be read, got {path} ({problem.strerror})") from None
    if path.suffix != ".json":
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        return {"files": {"file": (path.name, content, kind)}}
    try:
        return {"json": json.loads(content)}
    except ValueError as problem:
        raise ValueError(f"{path}: expected JSON ({problem})") from None
