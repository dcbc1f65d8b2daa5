"""The follower: a gateway learns from Ray where the replicas of its models are, while it serves.

Ray's list only tells of replicas; whether one serves is what the replica itself says. So a list that is empty or does
not come, since the head of the cluster is away, takes nothing from a gateway.
"""

import asyncio
import contextlib
import http.client
import itertools
import logging
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from configs.cluster import read_secret
from configs.errors import UserError
from configs.settings import LitportSettings
from servers.cluster.application import application_name
from servers.cluster.dashboard import Dashboard
from servers.cluster.deployment import DEPLOYMENT, PORTS
from servers.engines import registry
from servers.engines.replica import awaited, wire
from servers.engines.replica.awaited import AwaitedReplica
from servers.gateway.address import url_of
from servers.models.instance import Instance, State
from servers.models.model import Model
from servers.models.supervisor import Supervisor
from servers.processes.background import keep_up

_log = logging.getLogger("litport.cluster")

_INTERVAL_S = 0.5
_PROBE_TIMEOUT_S = 1.0
_LEAVE_POLL_S = 0.1
# A replica that nobody finds is looked for again after this time.
_LOST_S = 4.0
_NOT_UP = frozenset({"STARTING", "STOPPING"})


@dataclass(frozen=True)
class _Place:
    """A replica that Ray says is running."""

    replica: str
    host: str


class Follower:
    """Adds replicas to the models of a supervisor, and takes those away that are gone, from Ray and by themselves."""

    def __init__(self, supervisor: Supervisor, settings: LitportSettings, dashboard: Dashboard) -> None:
        self._supervisor = supervisor
        self._dashboard = dashboard
        self._secret = read_secret(settings.cluster)
        self._ports = range(settings.cluster.replica_port, settings.cluster.replica_port + PORTS)
        self._urls: dict[str, str] = {}
        self._lost_at_s: dict[str, float] = {}
        self._placeholders: dict[Model, Instance] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._problem = ""
        self._numbers = itertools.count()

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                applications = await asyncio.to_thread(self._read)
            except UserError as problem:
                self._note(str(problem))
            else:
                self._note("")
                for model in self._supervisor.all_models:
                    if awaited.ADDRESS in model.settings.instances:
                        self._update(model, applications.get(application_name(model.name)))
            await asyncio.sleep(_INTERVAL_S)

    def _note(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            _log.warning("%s", problem or f"Ray's dashboard at {self._dashboard.address} answers again")
        for placeholder in self._placeholders.values():
            if problem and isinstance(placeholder.engine, AwaitedReplica):
                placeholder.engine.news.text = problem

    def _read(self) -> dict[str, Any]:
        """The applications by name; the addresses of their replicas are known then. Raises UserError."""
        applications: dict[str, Any] = self._dashboard.instance().get("applications") or {}
        places = [place for application in applications.values() for place in _places(application)]
        now_s = time.monotonic()
        missing: dict[str, set[str]] = {}
        for place in places:
            lost_at_s = self._lost_at_s.get(place.replica)
            if place.replica not in self._urls and (lost_at_s is None or now_s - lost_at_s > _LOST_S):
                missing.setdefault(place.host, set()).add(place.replica)
        for host, replicas in missing.items():
            self._urls |= self._locate(host, replicas)
            self._lost_at_s |= dict.fromkeys(replicas - self._urls.keys(), now_s)
        ids = {place.replica for place in places}
        self._urls = {replica: url for replica, url in self._urls.items() if replica in ids}
        self._lost_at_s = {replica: at_s for replica, at_s in self._lost_at_s.items() if replica in ids}
        return applications

    def _locate(self, host: str, replicas: Iterable[str]) -> dict[str, str]:
        """The addresses of these replicas of a node, as far as they answer, each by its id."""
        missing = set(replicas)
        urls: dict[str, str] = {}
        urls_in_use = set(self._urls.values())
        with contextlib.suppress(TimeoutError):
            for port in self._ports:
                url = url_of(host, port)
                if missing and url not in urls_in_use and (replica := self._identify(host, port)) in missing:
                    urls[replica] = url
                    missing.remove(replica)
        return urls

    def _identify(self, host: str, port: int) -> str:
        """Which replica listens there; "" for none that knows the secret.

        Raises TimeoutError where the node itself does not answer, so that its other ports will not.
        """
        nonce = secrets.token_hex(16)
        connection = http.client.HTTPConnection(host, port, timeout=_PROBE_TIMEOUT_S)
        try:
            connection.connect()
        except TimeoutError:
            raise
        except OSError:
            return ""
        try:
            connection.request("GET", f"{wire.IDENTITY_PATH}?{nonce}")
            body = connection.getresponse().read(4096)
            identity = msgspec.json.decode(body, type=wire.Identity)
        except (OSError, http.client.HTTPException, msgspec.MsgspecError):
            return ""
        finally:
            connection.close()
        proof = wire.prove(self._secret, nonce, identity.replica)
        return identity.replica if secrets.compare_digest(proof, identity.proof) else ""

    def _update(self, model: Model, application: Mapping[str, Any] | None) -> None:
        """Let the model have the replicas that Ray has, and those that are ready though Ray does not name them."""
        model.target_replicas = _deployment(application or {}).get("target_num_replicas")
        urls = {self._urls[place.replica] for place in _places(application or {}) if place.replica in self._urls}
        stays = [
            instance
            for instance in model.instances
            if instance.address in urls or (instance.address != awaited.ADDRESS and instance.state is State.READY)
        ]
        additions = [self._instance(model, url) for url in sorted(urls - {instance.address for instance in stays})]
        instances = (*stays, *additions) or (self._placeholder(model, application),)
        leavers = [instance for instance in model.instances if instance not in instances]
        if leavers or additions:
            model.instances = instances
            self._supervisor.begin(model)
        for instance in leavers:
            self._placeholders.pop(model, None)
            end = partial(self._take_away, model, instance)
            task = asyncio.create_task(keep_up(f"{model.name}: the end of a replica", end))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    def _instance(self, model: Model, url: str) -> Instance:
        first = model.instances[0]
        engine = registry.replica_engine(model.name, model.settings, url, self._secret)
        # Nothing is made there, but the path tells instances apart.
        socket = first.socket.with_name(f"ray-{next(self._numbers)}.sock")
        return Instance(socket, first.log_file, url, engine)

    def _placeholder(self, model: Model, application: Mapping[str, Any] | None) -> Instance:
        """The instance of a model that has no replica, which says why."""
        instances = (instance for instance in model.instances if instance.address == awaited.ADDRESS)
        placeholder = next(instances, None) or self._instance(model, awaited.ADDRESS)
        self._placeholders[model] = placeholder
        assert isinstance(placeholder.engine, AwaitedReplica)
        placeholder.engine.news.text = _news(application)
        return placeholder

    async def _take_away(self, model: Model, instance: Instance) -> None:
        """End an instance that takes no new requests, once those that it has are answered."""
        while instance.in_flight:  # noqa: ASYNC110 # they tell nobody
            await asyncio.sleep(_LEAVE_POLL_S)
        await self._supervisor.end(model, State.STOPPED, [instance])


def _places(application: Mapping[str, Any]) -> list[_Place]:
    """The replicas of an application that are up."""
    replicas = _deployment(application).get("replicas") or ()
    return [
        _Place(replica["replica_id"], replica["node_ip"])
        for replica in replicas
        if replica["state"] not in _NOT_UP and replica.get("node_ip")
    ]


def _deployment(application: Mapping[str, Any]) -> Mapping[str, Any]:
    deployment: Mapping[str, Any] = (application.get("deployments") or {}).get(DEPLOYMENT) or {}
    return deployment


def _news(application: Mapping[str, Any] | None) -> str:
    if application is None:
        return "it is not deployed on Ray (litport deploy)"
    message = " ".join(str(_deployment(application).get("message") or application.get("message") or "").split())
    return f"no replica of it runs on Ray, which says {application.get('status')}: {message}".rstrip(": ")
