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
