"""`python -m servers.store SOURCE --cache-dir DIR`: one pull as a child process.

The supervisor watches and ends a pull this way. Standard output holds one JSON object a line: the events of the pull,
then `{"path": ...}`, or `{"error": ...}` with exit status 1.
"""

import argparse
import contextlib
import dataclasses
import json
import sys
import traceback
from functools import partial
from pathlib import Path
from typing import TextIO

from configs.errors import UserError
from servers.store.progress import Progress
from servers.store.store import Store


def main() -> int:
    """Pull, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m servers.store", description="Pull one model.")
    parser.add_argument("source")
    parser.add_argument("--cache-dir", type=Path, required=True)
    arguments = parser.parse_args()
    lines = sys.stdout
    try:
        with contextlib.redirect_stdout(sys.stderr):  # libraries print to standard output, too
            path = Store(arguments.cache_dir).pull(arguments.source, partial(_print_progress, lines))
    except UserError as error:
        _print(lines, {"error": str(error)})
        return 1
    except Exception as error:  # a bug of ours; the reader still gets a last line
        traceback.print_exc()
        _print(lines, {"error": f"{type(error).__name__}: {error}"})
        return 1
    _print(lines, {"path": str(path)})
    return 0


def _print_progress(lines: TextIO, event: Progress) -> None:
    _print(lines, dataclasses.asdict(event))


def _print(lines: TextIO, line: dict[str, object]) -> None:
    lines.write(json.dumps(line) + "\n")
    lines.flush()


if __name__ == "__main__":
    sys.exit(main())
