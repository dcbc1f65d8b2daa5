"""The result of a long run: one JSON document on standard output, in a file where one is asked for, and a verdict."""

import json
from pathlib import Path
from typing import Any


def tell(document: dict[str, Any], out: Path | None) -> int:
    """Print and write the document; the exit status is 1 where its `verdict` says that a promise was broken."""
    text = json.dumps(document, indent=2)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n")
    print(text)
    return 0 if all(document["verdict"].values()) else 1
