"""A model's process: what it says of its start is heard."""

import asyncio
import sys
from pathlib import Path

from servers.apis.exports import STEP
from servers.engines.base import Command
from servers.models.process import ModelProcess
from servers.processes.reaper import Reaper


def test_a_step_that_a_child_names_is_heard(tmp_path: Path) -> None:
    async def hear() -> str:
        with Reaper(tmp_path / "run") as reaper:
            child = ModelProcess("m", reaper, tmp_path / "m.log")
            step: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            child.on_step = step.set_result
            words = f"print('loading'); print({STEP + 'exporting to ONNX, once'!r})"
            await child.start(Command([sys.executable, "-c", words], {}))
            try:
                return await asyncio.wait_for(step, 30)
            finally:
                await child.end(1)

    assert asyncio.run(hear()) == "exporting to ONNX, once"


def test_of_a_chain_of_exceptions_the_last_is_the_cause_and_of_others_the_first(tmp_path: Path) -> None:
    chained = "try: {}['TOKEN']\nexcept KeyError as error: raise RuntimeError('set TOKEN') from error"
    several = "print('ValueError: the first'); print('OSError: that follows from it')"
    vllm = (
        "print('(Worker) ERROR ValueError: no memory\\n(Worker) ERROR The above exception was the direct cause of the '"
        "'following exception:\\n(Worker) ERROR RuntimeError: Engine core initialization failed.\\nKeyError: later')"
    )
    llama = "print('error: invalid argument: --ctx-sizes'); print('to show complete usage, run with -h')"
    cut = "print('srv    load_model: failed to load model, cut.gguf')"
    causes = [_cause(tmp_path, code) for code in (chained, several, vllm, llama, cut)]
    assert "error: invalid argument: --ctx-sizes" in causes[3]
    assert "failed to load model, cut.gguf" in causes[4]
    assert ["RuntimeError: set TOKEN" in causes[0], "KeyError" in causes[0]] == [True, False]
    assert "ValueError: the first" in causes[1]
    assert "ValueError: no memory" in causes[2]


def _cause(folder: Path, code: str) -> str:
    """What is told of a child that runs this code and ends."""

    async def run() -> str:
        with Reaper(folder) as reaper:
            process = ModelProcess("one", reaper, folder / "one.log")
            await process.start(Command([sys.executable, "-c", code], {}))
            await process.broken.wait()
            await asyncio.sleep(0.1)
            cause = process.cause()
            await process.end(0)
            return cause

    return asyncio.run(run())
