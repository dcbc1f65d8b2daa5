"""Routes from outside: registered before the platform is built, they are served, counted and documented."""

import importlib.metadata
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from prometheus_client import generate_latest

from configs.errors import UserError
from servers.errors import ApiError
from servers.gateway import error_shapes
from servers.gateway.body.content import BodyKind
from servers.gateway.exchange import Exchange
from servers.gateway.routes import registry
from servers.gateway.routes.route import Route
from tests.services.front_door import open_door
from tests.services.tiny_engine import TinyEngine


class Greeting(msgspec.Struct):
    """How a guest is greeted."""

    text: str


async def _greet(exchange: Exchange) -> None:
    if not exchange.body:
        raise ApiError(400, "nobody to greet", code="no_guest")
    guest = msgspec.json.decode(exchange.body)["guest"]
    await exchange.response.send_json(Greeting(text=f"{exchange.parameters['word']} {guest}"))


def _error(error: ApiError, request_id: str) -> bytes:
    return msgspec.json.encode({"error": error.message, "of": request_id})


GREET = Route(
    "/greet/{word}",
    ("POST",),
    "greetings",
    _greet,
    body=BodyKind.OBJECT,
    errors=error_shapes.plain(_error),
    operation_id="greet",
    summary="Greet a guest",
    example={"guest": "Ann"},
    answer=Greeting,
)


@pytest.fixture(autouse=True)
def _restore_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Routes of one test are not those of the next."""
    monkeypatch.setattr(registry, "_ROUTES", list(registry.routes()))


def test_a_registered_route_is_served_counted_and_documented_with_errors_of_its_own_shape(tmp_path: Path) -> None:
    registry.register(GREET)
    with open_door(tmp_path, TinyEngine("one"), auth={"api_keys": ["a-key-of-16-or-more"]}) as door:
        assert door.client.post("/greet/hello", json={"guest": "Ann"}).status_code == 401
        door.client.headers["x-api-key"] = "a-key-of-16-or-more"
        assert door.client.post("/greet/hello", json={"guest": "Ann"}).json() == {"text": "hello Ann"}
        wrong = door.client.get("/greet/hello")
        assert wrong.json() == {"error": "/greet/hello takes POST, not GET", "of": wrong.headers["x-request-id"]}
        assert door.client.post("/greet/hello", content=b"[]").status_code == 400
        document = door.client.get("/openapi.json").json()
        page = generate_latest(door.app.metrics).decode()
    operation = document["paths"]["/greet/{word}"]["post"]
    assert (operation["operationId"], operation["tags"]) == ("greet", ["greetings"])
    assert operation["requestBody"]["content"]["application/json"]["example"] == {"guest": "Ann"}
    assert operation["parameters"][0]["name"] == "word"
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    assert document["components"]["schemas"][schema]["description"] == "How a guest is greeted."
    assert 'litport_requests_total{key="key-1",model="",route="/greet/{word}",status="200"} 1.0' in page


def test_a_route_that_is_on_the_port_already_is_not_replaced() -> None:
    registry.register(GREET)
    registry.register(GREET)
    assert registry.routes().count(GREET) == 1
    for pattern, method in (("/health", "GET"), ("/greet/{word}", "POST")):
        with pytest.raises(UserError, match="of its own"):
            registry.register(Route(pattern, (method,), "test", _error))  # type: ignore[arg-type] # not called


def test_routes_of_an_installed_package_are_registered_and_what_is_none_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def install(value: object) -> None:
        point = SimpleNamespace(name="greetings", value="greetings:ROUTES", load=lambda: value)
        monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == "litport.routes" else [])

    install([GREET])
    registry.register_installed()
    assert GREET in registry.routes()
    for value in (5, [GREET, 5]):
        install(value)
        with pytest.raises(UserError, match="expected a sequence of Route at greetings:ROUTES"):
            registry.register_installed()
    assert isinstance(importlib.metadata.entry_points(group="litport.routes"), importlib.metadata.EntryPoints)
