"""One prediction: a file is uploaded as a form, JSON is sent unchanged, the answer is printed as it arrives."""

import json
import mimetypes
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
    """The body: JSON from a text, standard input (-) or a .json file; any other file is a form's field `file`."""
    if text == "-":
        text = sys.stdin.read()
    path = Path(text)
    if text.lstrip()[:1] not in ("{", "[", '"') and path.is_file():
        if path.suffix == ".json":
            try:
                return {"json": json.loads(path.read_text())}
            except ValueError as problem:
                raise ValueError(f"{path}: expected JSON ({problem})") from None
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        return {"files": {"file": (path.name, path.read_bytes(), kind)}}
    try:
        return {"json": json.loads(text)}
    except json.JSONDecodeError as problem:
        raise ValueError(f"expected a file that exists or JSON, got {text!r} ({problem})") from None
