"""How long until the first token: the demo through Litport (B) against vLLM alone with the same arguments (A).

    python -m benchmarks.experiments.start

Everything is installed, pulled and cached. The time is from the start of the command to the first streamed token of a
chat. The starts are interleaved A B B A.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

import aiohttp

from configs.loading import load
from servers.engines.vllm.engine import VllmEngine
from servers.gateway.address import address_of, bind
from servers.store import Store

RECIPE = Path("configs/recipes/demo.yaml")
_POLL_S = 0.05


async def first_token_s(argv: list[str], environ: dict[str, str], session: aiohttp.ClientSession, model: str) -> float:
    """Start the command, ask until a first token comes, and end it; the time between, in seconds.

    Raises RuntimeError when the command ends by itself.
    """
    begin = time.perf_counter()
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*argv, env=os.environ | environ, stdout=quiet, stderr=quiet)
    try:
        while not await _has_token(session, model):
            if process.returncode is not None:
                raise RuntimeError(f"{argv} ended with status {process.returncode}")
            await asyncio.sleep(_POLL_S)
        return time.perf_counter() - begin
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await process.wait()


async def _has_token(session: aiohttp.ClientSession, model: str) -> bool:
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8, "stream": True}
    try:
        async with session.post("/v1/chat/completions", json=body) as response:
            return response.status == 200 and bool(await response.content.readline())
    except aiohttp.ClientError:
        return False


async def measure(rounds: int) -> dict[str, list[float]]:
    """Times in seconds of each side, in their order."""
    settings = load([RECIPE]).settings
    name, model = next((name, model) for name, model in settings.models.items() if model.engine == "vllm")
    folder = Store(settings.server.cache_dir).pull(name)
    listener = bind("127.0.0.1", 0)
    url = address_of(listener)
    listener.close()
    times: dict[str, list[float]] = {"A": [], "B": []}
    with tempfile.TemporaryDirectory() as run_dir:
        socket = Path(run_dir, "vllm.sock")
        alone = VllmEngine(name, model).command(folder, socket)
        litport = [sys.executable, "-m", "litport", "serve", str(RECIPE), "--server.port", url.rpartition(":")[2]]
        async with (
            aiohttp.ClientSession("http://localhost", connector=aiohttp.UnixConnector(str(socket))) as direct,
            aiohttp.ClientSession(url) as through,
        ):
            for side in "ABBA" * rounds:
                argv, environ = (alone.argv, dict(alone.environ)) if side == "A" else (litport, {})
                session = direct if side == "A" else through
                socket.unlink(missing_ok=True)  # noqa: ASYNC240 # the last start's; nothing waits meanwhile
                times[side].append(await first_token_s(argv, environ, session, name))
    return times


def main() -> int:
    """Print each side's times, and as the last line one JSON document."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1, help="repetitions of A B B A")
    times = asyncio.run(measure(parser.parse_args().rounds))
    for side, label in (("A", "vLLM alone"), ("B", "the demo through Litport")):
        times_s = times[side]
        print(f"{label}: median {statistics.median(times_s):.1f} s ({min(times_s):.1f} to {max(times_s):.1f})")
    print(f"added: {statistics.median(times['B']) - statistics.median(times['A']):+.1f} s")
    print(json.dumps(times))
    return 0


if __name__ == "__main__":
    sys.exit(main())
