"""A gateway finds the replicas that Ray names, and believes themselves alone about whether they serve."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from configs.settings import LitportSettings, LitServeModel
from servers.cluster.follower import Follower
from servers.engines import registry
from servers.engines.replica import awaited
from servers.models.instance import Instance, State
from servers.models.model import Model
from servers.models.supervisor import Supervisor
from servers.processes.reaper import Reaper
from tests.services.polling import wait_until_async
from tests.services.ports import free_port
from tests.services.ray_dashboard import FakeDashboard, fake_dashboard
from tests.services.replicas import SECRET, open_replica, write_secret
from tests.services.tiny_engine import TinyEngine


def test_a_replica_is_found_and_stays_while_it_serves_whatever_ray_says(tmp_path: Path) -> None:
    async def run() -> None:
        port = free_port()
        engine = TinyEngine("one", frozenset(), kind="litserve")
        with fake_dashboard() as ray, open_replica(tmp_path / "a", engine, "replica-a", port):
            async with _following(tmp_path, ray, port) as model:
                await wait_until_async(lambda: "it is not deployed on Ray" in model.choose().detail)
                ray.run("one", status="DEPLOYING", message="it  waits\nfor room")
                await wait_until_async(lambda: "says DEPLOYING: it waits for room" in model.choose().detail)
                ray.run("one", "replica-a", "nobody-has-this-id")
                await wait_until_async(lambda: model.state is State.READY)
                assert [instance.address for instance in model.instances] == [f"http://127.0.0.1:{port}"]
                ray.applications = {}
                await asyncio.sleep(0.8)
                assert model.state is State.READY
                ray.status = 500
                await asyncio.sleep(0.6)
                assert model.state is State.READY

    asyncio.run(run())


def test_a_replica_that_ends_makes_room_for_the_next(tmp_path: Path) -> None:
    async def run() -> None:
        port = free_port()
        with fake_dashboard() as ray:
            async with _following(tmp_path, ray, port) as model:
                with open_replica(tmp_path / "a", TinyEngine("one", frozenset(), kind="litserve"), "replica-a", port):
                    ray.run("one", "replica-a")
                    await wait_until_async(lambda: model.state is State.READY)
                ray.run("one")
                await wait_until_async(lambda: [item.address for item in model.instances] == [awaited.ADDRESS])
                with open_replica(tmp_path / "b", TinyEngine("one", frozenset(), kind="litserve"), "replica-b", port):
                    ray.run("one", "replica-b")
                    await wait_until_async(lambda: model.state is State.READY)

    asyncio.run(run())


def test_a_port_whose_owner_does_not_know_the_secret_is_no_replica(tmp_path: Path) -> None:
    async def run() -> None:
        port = free_port()
        with (
            fake_dashboard() as ray,
            open_replica(tmp_path / "a", TinyEngine("one", frozenset(), kind="litserve"), "replica-a", port),
        ):
            ray.run("one", "replica-a")
            async with _following(tmp_path, ray, port, SECRET[::-1]) as model:
                await wait_until_async(lambda: "Ray" in model.choose().detail)
                assert model.choose().address == awaited.ADDRESS

    asyncio.run(run())


@contextlib.asynccontextmanager
async def _following(folder: Path, ray: FakeDashboard, port: int, secret: str = SECRET) -> AsyncIterator[Model]:
    settings = LitServeModel(engine="litserve", api="echo").model_copy(update={"instances": [awaited.ADDRESS]})
    engine = registry.replica_engine("one", settings, awaited.ADDRESS, secret)
    model = Model("one", settings, engine, [Instance(folder / "0.sock", folder / "log", awaited.ADDRESS, engine)])
    cluster = {"secret_file": str(write_secret(folder, secret)), "replica_port": port}
    with Reaper(folder / "run") as reaper, ray.client() as dashboard:
        supervisor = Supervisor({"one": model}, folder, reaper, lambda _: None)
        supervisor.start()
        follower = Follower(supervisor, LitportSettings.from_layers([{"cluster": cluster}]), dashboard)
        task = asyncio.create_task(follower.run())
        try:
            yield model
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await supervisor.stop()
