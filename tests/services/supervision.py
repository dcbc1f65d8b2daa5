"""A real supervisor over tiny servers, for tests: `async with supervising(tmp_path, TinyEngine("one"))`."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from configs.settings import LitServeModel
from servers.engines.base import Engine
from servers.models.instance import Instance, State
from servers.models.model import Model
from servers.models.supervisor import Supervisor
from servers.processes.reaper import Reaper
from tests.services.polling import wait_until_async


@contextlib.asynccontextmanager
async def supervising(run_dir: Path, *engines: Engine, **settings: Any) -> AsyncIterator[Supervisor]:
    """Start one model for each engine and stop them in the end; `settings` go to every model."""
    sockets = run_dir / "run"
    sockets.mkdir()
    models = {
        engine.name: model_of(engine, Instance(sockets / f"{number}.sock", run_dir / f"{number}.log"), **settings)
        for number, engine in enumerate(engines)
    }
    steps: list[str] = []
    with Reaper(sockets) as reaper:
        supervisor = Supervisor(models, run_dir, reaper, lambda model: steps.append(model.state))
        supervisor.start()
        try:
            yield supervisor
        finally:
            await supervisor.stop()


def model_of(engine: Engine, *instances: Instance, **settings: Any) -> Model:
    """A model over this engine, with one instance that is nowhere unless others are given."""
    nowhere = Instance(Path("/nowhere"), Path("/nowhere"))
    return Model(engine.name, LitServeModel(engine="litserve", api="echo", **settings), engine, instances or [nowhere])


def group_of(model: Model) -> int:
    """The process group of a model that runs."""
    group_id = model.choose().group_id
    assert group_id is not None
    return group_id


async def wait_until_state(model: Model, state: State, timeout_s: float = 20) -> None:
    """Wait until the model is in this state."""
    await wait_until_async(lambda: model.state is state, timeout_s)
