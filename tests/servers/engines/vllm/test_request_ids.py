"""That vLLM's API server names the request in its lines: its real logging, and a middleware as vLLM loads it."""

import subprocess
import sys
from pathlib import Path

import pytest

from configs.settings import VllmModel
from servers.engines.vllm import engine as vllm

PROGRAM = """
import asyncio, importlib, logging
import vllm.logger

log = vllm.logger.init_logger("vllm.entrypoints.test")
module, _, name = "{middleware}".rpartition(".")

async def app(scope, receive, send):
    await asyncio.sleep(0.01 if scope["path"] == "/slow" else 0)
    log.warning("asked for %s\\nin two lines", scope["path"])
    logging.getLogger("other").warning("bare %s", scope["path"])
    try:
        raise ValueError("no")
    except ValueError:
        log.exception("it failed")

async def main():
    entered = getattr(importlib.import_module(module), name)(app)
    ids = {{"/slow": [(b"x-request-id", b"r-1")], "/quick": [(b"x-request-id", b"r-2")], "/none": []}}
    scopes = [{{"type": "http", "path": path, "headers": headers}} for path, headers in ids.items()]
    await asyncio.gather(*(entered(scope, None, None) for scope in scopes))
    log.warning("asked by nobody")

asyncio.run(main())
"""


@pytest.mark.long
def test_lines_of_a_request_end_in_its_id_and_others_do_not() -> None:
    program = PROGRAM.format(middleware=vllm.MIDDLEWARE_WORDS[1])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    lines = (done.stdout + done.stderr).splitlines()
    for path, words in (("/slow", " request_id=r-1"), ("/quick", " request_id=r-2"), ("/none", "")):
        for said in (f"asked for {path}", f"bare {path}"):
            (line,) = (line for line in lines if said in line)
            assert line.endswith(f"{said}{words}")
    for said in ("in two lines", "it failed", "Traceback (most recent call last):", "ValueError: no"):
        ends = sorted(line.partition(said)[2] for line in lines if said in line)
        assert ends == ["", " request_id=r-1", " request_id=r-2"]
    (nobody,) = (line for line in lines if "asked by nobody" in line)
    assert nobody.endswith("asked by nobody")


def test_a_middleware_of_the_users_own_stands_beside_it() -> None:
    model = VllmModel.model_validate({"engine": "vllm", "source": "org/name", "args": {"middleware": "mine.Own"}})
    argv = vllm.VllmEngine("chat", model).command(Path("/models/x"), Path("/run/0.sock")).argv
    at = argv.index("--middleware")
    assert tuple(argv[at : at + 4]) == vllm.MIDDLEWARE_WORDS
    assert "--middleware=mine.Own" in argv
