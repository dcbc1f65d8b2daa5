"""What the settings of a model elsewhere allow, and what its server's document tells of it."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from configs.settings import LitportSettings, RemoteModel
from servers.engines import base, registry
from servers.engines.base import Engine
from servers.engines.connection import NotTakenError
from servers.engines.kind import Site
from servers.engines.remote import description

CHAT, EMBED = "/v1/chat/completions", "/v1/embeddings"
REFERENCE = {"$ref": "#/components/schemas/Body"}


def _operation(schema: Any, **extra: Any) -> dict[str, Any]:
    content = {"application/json": {"schema": schema, **extra}}
    return {"requestBody": {"content": content}, "parameters": [{"name": "n"}], "responses": {"200": {}, "400": {}}}


def _document(title: str, **operations: Any) -> dict[str, Any]:
    names = {"chat": CHAT, "embed": EMBED, "predict": "/predict/a"}
    schemas = {"Body": {"properties": {"model": {"examples": ["a", "its-alias"]}}}}
    return {
        "info": {"title": title},
        "paths": {names[name]: {"post": operation} for name, operation in operations.items()},
        "components": {"schemas": schemas},
    }


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://box:8000", "http://box:8000"),
        ("http://box:8000/", "http://box:8000"),
        ("https://api.example.com/v1/", "https://api.example.com"),
        ("https://example.com/api/v1", "https://example.com/api"),
    ],
)
def test_an_address_may_end_in_v1(url: str, base: str) -> None:
    assert RemoteModel.model_validate({"engine": "remote", "url": url}).url == base


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"source": "org/name"}, "source"),
        ({"env": {"A": "b"}}, "env"),
        ({"url": "http://me:password@box"}, "url"),
        ({"replicas": 2}, "replicas"),
    ],
)
def test_what_has_no_meaning_elsewhere_is_refused(settings: dict[str, Any], field: str) -> None:
    model = RemoteModel.model_validate({"engine": "remote", "url": "http://box", **settings})
    kind = registry.kind_of(model)
    [(name, problem)] = kind.check_model(model)
    assert name == field
    assert "password@" not in problem


def test_a_key_that_goes_unencrypted_over_a_network_is_noted() -> None:
    def note(url: str) -> str:
        model = RemoteModel.model_validate({"engine": "remote", "url": url, "api_key": "secret"})
        return registry.kind_of(model).describe_model(model)

    assert "unencrypted" in note("http://box:8000")
    assert note("https://box:8000") == note("http://127.0.0.1:8000") == ""


def test_a_litport_names_the_models_of_each_route() -> None:
    chat, embed = _operation({"anyOf": [REFERENCE]}), _operation({"properties": {"model": {"examples": ["b"]}}})
    document = _document("Litport", chat=chat, embed=embed, predict=_operation({}, example={"input": 1}))
    offer = description.read(document, "a")
    assert (set(offer.paths), offer.predict_path, offer.example) == ({CHAT, "/predict/a"}, "/predict/a", {"input": 1})
    assert set(description.read(document, "its-alias").paths) == {CHAT}
    assert description.read(document, "b").paths == (EMBED,)
    operations = offer.document([CHAT])["paths"]
    assert operations[CHAT]["post"] == {"requestBody": chat["requestBody"], "responses": {"200": {}}}


def test_of_another_server_each_route_counts_and_what_cannot_be_merged_is_not_documented() -> None:
    chat, embed = _operation(REFERENCE), _operation({"$ref": "#/elsewhere"})
    offer = description.read(_document("FastAPI", chat=chat, embed=embed), "any")
    assert (set(offer.paths), offer.predict_path) == ({CHAT, EMBED}, None)
    assert set(offer.document(offer.paths)["paths"]) == {CHAT}


@pytest.mark.parametrize("document", [None, {}, {"paths": []}, {"paths": {CHAT: {"post": 1}}}, {"swagger": "2.0"}])
def test_a_document_of_another_form_offers_nothing(document: Any) -> None:
    assert description.read(document, "a") == description.Offer()


def _engine(model: RemoteModel) -> Engine:
    site = Site(LitportSettings(models={"a": model}), Path("/run/0.sock"), frozenset(), model.url)
    return registry.kind_of(model).make("a", model, site)


def test_it_has_an_address_and_no_command() -> None:
    model = RemoteModel.model_validate({"engine": "remote", "url": "http://box"})
    assert _engine(model).command(None, Path("/run/0.sock")) is None
    assert list(registry.kind_of(model).addresses(model)) == ["http://box"]


def test_a_server_that_takes_connections_and_says_nothing_counts_as_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_DESCRIPTION_S", 0.1)

    async def ask(url: str) -> None:
        engine = _engine(RemoteModel.model_validate({"engine": "remote", "url": url}))
        connection = engine.connect(Path("/run/0.sock"))
        try:
            await engine.warm(connection)
        finally:
            await connection.close()

    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(NotTakenError, match=r"within 0.1 s"):
        asyncio.run(ask(f"http://127.0.0.1:{silent.getsockname()[1]}"))
