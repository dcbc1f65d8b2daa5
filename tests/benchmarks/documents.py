"""The result of a run, read from its folder and checked against the schema of `result.json`."""

import json
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped] # vLLM brings it; it ships no types
import msgspec

from benchmarks import result


def read_document(folder: Path) -> dict[str, Any]:
    """The document as JSON; the types of the harness must hold all of it."""
    document: dict[str, Any] = json.loads((folder / "result.json").read_text())
    jsonschema.validate(document, result.schema())
    assert json.loads(msgspec.json.encode(result.read(folder))) == document
    return document
