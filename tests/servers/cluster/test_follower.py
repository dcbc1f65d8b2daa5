"""A gateway finds the replicas that Ray names, and believes themselves alone about whether they serve."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from configs.settings import LitportSettings, LitServeModel
from servers.cluster import follower
from servers.cluster.deployment import PORTS
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


@pytest.mark.long
def test_replicas_are_found_however_late_and_stay_while_they_serve_whatever_ray_says(tmp_path: Path) -> None:
    async def run() -> None:
        ports = [free_port()]
        ports.append(_free_port_above(ports[0]))
        engine = TinyEngine("one", frozenset(), kind="litserve")
        with ExitStack() as stack:
            ray = stack.enter_context(fake_dashboard())
            stack.enter_context(open_replica(tmp_path / "b", engine, "replica-b", ports[1]))
            async with _following(tmp_path, ray, ports[0]) as (model,):
                await wait_until_async(lambda: "it is not deployed on Ray" in model.choose().detail)
                ray.run("one", status="DEPLOYING", message="it  waits\nfor room")
                await wait_until_async(lambda: "says DEPLOYING: it waits for room" in model.choose().detail)
                with open_replica(tmp_path / "a", engine, "replica-a", ports[0]):
                    ray.run("one", "replica-a", "replica-b", "nobody-has-this-id")
                    expected = [(f"http://127.0.0.1:{port}", State.READY) for port in ports]
                    await wait_until_async(lambda: _instances(model) == expected)
                    ray.applications = {}
                    await _until_asked(ray)
                    ray.status = 500
                    await _until_asked(ray)
                    assert _instances(model) == expected
                ray.status = 200
                ray.run("one", "replica-b")
                await wait_until_async(lambda: _instances(model) == expected[1:])

    asyncio.run(run())


def test_a_port_whose_owner_does_not_know_the_secret_is_no_replica(tmp_path: Path) -> None:
    async def run() -> None:
        port = free_port()
        with (
            fake_dashboard() as ray,
            open_replica(tmp_path / "a", TinyEngine("one", frozenset(), kind="litserve"), "replica-a", port),
        ):
            ray.run("one", "replica-a")
            async with _following(tmp_path, ray, port, SECRET[::-1]) as (model,):
                await wait_until_async(lambda: "Ray" in model.choose().detail)
                assert model.choose().address == awaited.ADDRESS

    asyncio.run(run())


def test_two_models_may_lose_their_replicas_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = free_port()
    replicas = {port: f"replica-{port}" for port in (first, _free_port_above(first))}
    monkeypatch.setattr(Follower, "_identify", lambda _, __, port: replicas.get(port, ""))

    async def run() -> None:
        with fake_dashboard() as ray:
            async with _following(tmp_path, ray, first, names=("one", "two")) as models:
                for _ in range(2):
                    for model, replica in zip(models, replicas.values(), strict=True):
                        ray.run(model.name, replica)
                    await wait_until_async(lambda: all(model.choose().address != awaited.ADDRESS for model in models))
                    ray.applications = {}
                    await wait_until_async(lambda: all("not deployed" in model.choose().detail for model in models))

    asyncio.run(run())


def test_a_node_that_does_not_answer_is_tried_at_one_port_and_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, silent, tried = free_port(), "10.0.0.9", []

    def identify(_: Follower, host: str, port: int) -> str:
        if host == silent:
            tried.append(port)
            raise TimeoutError
        return "replica-b" if port == first else ""

    monkeypatch.setattr(Follower, "_identify", identify)

    async def run() -> None:
        with fake_dashboard() as ray:
            async with _following(tmp_path, ray, first, names=("one", "two")) as (one, two):
                ray.run("one", "replica-a", host=silent)
                ray.run("two", "replica-b")
                await wait_until_async(lambda: two.choose().address != awaited.ADDRESS)
                await _until_asked(ray)
                assert one.choose().address == awaited.ADDRESS

    asyncio.run(run())
    assert tried == [first]


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dashboard is read every 50 ms."""
    monkeypatch.setattr(follower, "_INTERVAL_S", 0.05)


def _instances(model: Model) -> list[tuple[str | None, State]]:
    return sorted((instance.address, instance.state) for instance in model.instances)


async def _until_asked(ray: FakeDashboard) -> None:
    """Wait until the follower has read the dashboard anew, and done what follows from that."""
    count = ray.reads
    await wait_until_async(lambda: ray.reads >= count + 2)


def _free_port_above(port: int) -> int:
    for candidate in range(port + 1, port + PORTS):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", candidate)):
            return candidate
    raise AssertionError(f"no port is free above {port}")


@contextlib.asynccontextmanager
async def _following(
    folder: Path, ray: FakeDashboard, port: int, secret: str = SECRET, names: Sequence[str] = ("one",)
) -> AsyncIterator[list[Model]]:
    settings = LitServeModel(engine="litserve", api="echo", start_timeout_s=0.5).model_copy(
        update={"instances": [awaited.ADDRESS]}
    )
    models = []
    for name in names:
        engine = registry.replica_engine(name, settings, awaited.ADDRESS, secret)
        instance = Instance(folder / f"{name}.sock", folder / "log", awaited.ADDRESS, engine)
        models.append(Model(name, settings, engine, [instance]))
    cluster = {"secret_file": str(write_secret(folder, secret)), "replica_port": port}
    with Reaper(folder / "run") as reaper, ray.client() as dashboard:
        supervisor = Supervisor({model.name: model for model in models}, folder, reaper, lambda _: None)
        supervisor.start()
        following = Follower(supervisor, LitportSettings.from_layers([{"cluster": cluster}]), dashboard)
        task = asyncio.create_task(following.run())
        try:
            yield models
        finally:
            failure = task.exception() if task.done() else None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await supervisor.stop()
            assert failure is None
