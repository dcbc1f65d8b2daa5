"""An engine of a package outside Litport: models that reverse text, each a small HTTP server on a Unix socket.

`KIND` is an entry point of the group `litport.engines`, `ROUTES` of `litport.routes`, and `HARNESS` is what the
benchmarks know of it.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from aiohttp import web
from pydantic import Field

from benchmarks.load.request import Endpoint
from benchmarks.rungs.base import Rung
from benchmarks.rungs.context import RungContext
from benchmarks.rungs.harness import EngineHarness
from benchmarks.rungs.process import free_port
from configs.settings import ModelSettings
from servers.engines.base import CanaryError, Card, Command, Needs, get, post
from servers.engines.connection import Connection
from servers.engines.http_connection import HttpConnection
from servers.engines.kind import EngineKind, Site
from servers.gateway.body.content import BodyKind
from servers.gateway.exchange import Exchange
from servers.gateway.routes.route import Route
from servers.processes.group import Member

PATH = "/v1/reverse"


class ReverseModel(ModelSettings):
    """A model that reverses text."""

    rungs: ClassVar[tuple[str, ...]] = ("bare-reverse", "litport")
    engine: Literal["reverse"] = Field(description="What runs the model.")
    suffix: str = Field("", description="Text behind every answer.")
    example: Any = Field({"text": "abc"}, description="A JSON request to measure the model with.")


class ReverseEngine:
    """The engine of one model."""

    kind = "reverse"

    def __init__(self, name: str, settings: ReverseModel) -> None:
        self.name = name
        self._settings = settings

    def command(self, model_dir: Path | None, socket: Path) -> Command:
        return Command(_argv(self._settings, "--socket", str(socket)), {})

    def connect(self, socket: Path) -> Connection:
        return HttpConnection(socket)

    async def warm(self, connection: Connection) -> Card:
        listing = {"id": self.name, "object": "model", "created": 1, "owned_by": "outside"}
        openapi = json.loads(await get(connection, "/openapi.json"))
        card = Card(frozenset({PATH}), PATH, (listing,), openapi, max_running=4, example=self._settings.example)
        await self.canary(connection, card)
        return card

    async def canary(self, connection: Connection, card: Card) -> None:
        answer = json.loads(await post(connection, PATH, {"text": "ab"}))
        if answer["text"] != "ba" + self._settings.suffix:
            raise CanaryError(f"asked for ab reversed, got {answer}")

    def answers_in_parts(self) -> bool:
        return True

    def is_vital(self, member: Member, main_pid: int) -> bool:
        return member.pid == main_pid

    def needs(self, model_dir: Path | None) -> Needs:
        return Needs(1, 0)


def _make(name: str, settings: ReverseModel, site: Site) -> ReverseEngine:
    return ReverseEngine(name, settings)


def _check_model(settings: ReverseModel) -> Iterable[tuple[str, str]]:
    if settings.suffix.isspace():
        yield "suffix", "expected a text that can be seen"


KIND = EngineKind(ReverseModel, _make, _check_model, harness="reverse_engine:HARNESS")


async def _reverse(exchange: Exchange) -> None:
    model = exchange.gateway.directory.serving(PATH, exchange.content.model)
    await exchange.gateway.dispatch(exchange, model, PATH)


async def _count(exchange: Exchange) -> None:
    await exchange.response.send_json({"models": len(exchange.gateway.directory.models)})


ROUTES = (
    Route(PATH, ("POST",), "reverse", _reverse, body=BodyKind.OBJECT, operation_id="reverse", example={"text": "abc"}),
    Route("/count", ("GET",), "reverse", _count, operation_id="count_models", summary="How many models", answer=dict),
)


def _bare_rung(context: RungContext, rung: str) -> Rung:
    port = free_port()
    argv = _argv(context.model, "--port", str(port))
    return context.server(rung, argv, port, Endpoint("json", PATH))


HARNESS = EngineHarness(ReverseModel.rungs, _bare_rung)


def _argv(settings: ReverseModel, *address: str) -> list[str]:
    return [sys.executable, "-P", "-m", "reverse_engine", settings.suffix, *address]


def _app(suffix: str) -> web.Application:
    async def answer(request: web.Request) -> web.Response:
        document: Mapping[str, Any] = await request.json()
        return web.json_response({"text": document["text"][::-1] + suffix})

    async def health(_: web.Request) -> web.Response:
        return web.json_response({})

    async def openapi(_: web.Request) -> web.Response:
        schema = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}}
        content = {"application/json": {"schema": schema}}
        operation = {"requestBody": {"content": content}, "responses": {"200": {"content": content}}}
        return web.json_response({"paths": {PATH: {"post": operation}}, "components": {"schemas": {}}})

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(text="# HELP reverse_up Whether it runs\n# TYPE reverse_up gauge\nreverse_up 1\n")

    app = web.Application()
    app.router.add_post(PATH, answer)
    app.router.add_get("/health", health)
    app.router.add_get("/openapi.json", openapi)
    app.router.add_get("/metrics", metrics)
    return app


if __name__ == "__main__":
    suffix, kind, value = sys.argv[1:]
    where: dict[str, Any] = {"path": value} if kind == "--socket" else {"host": "127.0.0.1", "port": int(value)}
    web.run_app(_app(suffix), **where, print=None, access_log=None)
