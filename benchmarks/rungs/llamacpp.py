"""llama.cpp as the harness sees it: its own server without Litport, and the model through Litport.

Its series tell no queue and no time to the first token, so what happens behind the client, or behind the front door, is
one row.
"""

from pathlib import Path

from benchmarks.load.request import COMPLETIONS, EMBEDDINGS
from benchmarks.rungs.base import Rung
from benchmarks.rungs.context import RungContext
from benchmarks.rungs.harness import EngineHarness
from benchmarks.rungs.process import free_port
from configs.settings import LlamaCppModel
from servers.engines.llamacpp.engine import LlamaCppEngine


def _make(context: RungContext, rung: str) -> Rung:
    """The server with the options and the environment that Litport gives it, on a port in place of its socket."""
    model: LlamaCppModel = context.model
    engine = LlamaCppEngine(context.name, model, frozenset())
    command = engine.command(context.model_dir, Path("127.0.0.1"))
    port = free_port()
    endpoint = EMBEDDINGS if engine.embeds else COMPLETIONS
    return context.server(rung, [*command.argv, "--port", str(port)], port, endpoint, command.environ)


HARNESS = EngineHarness(
    rungs=LlamaCppModel.rungs,
    make=_make,
    workload=lambda _: "tokens",
    endpoint=lambda model, name: EMBEDDINGS if LlamaCppEngine(name, model, frozenset()).embeds else COMPLETIONS,
)
