"""A worker host for each of several APIs: `python forked.py SPEC.json...`.

Each is the program of a LitAPI, but started as a fork of this process, and so are its workers: none of them need import
LitServe anew.
"""

import multiprocessing
import os
import sys
from pathlib import Path

from servers.engines.litserve import main
from servers.engines.litserve.host import main as host


def start(spec_file: Path) -> None:
    if os.fork() == 0:
        log = os.open(spec_file.with_suffix(".log"), os.O_WRONLY | os.O_CREAT)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os._exit(main.main(str(spec_file)))


if __name__ == "__main__":
    host._spawn = multiprocessing.get_context("fork")  # type: ignore[assignment]
    files = [Path(file) for file in sys.argv[1:]]
    if any("model_dir" in file.read_text() for file in files):
        import transformers  # noqa: F401 # once, and not in each worker
    for file in files:
        start(file)
    os.wait()  # none ends by itself
    sys.exit("\n".join(file.with_suffix(".log").read_text() for file in files))
