"""The route of a request: found by its path as sent, with its method, and once."""

import pytest

from servers.gateway.exchange import Exchange
from servers.gateway.routes import registry
from servers.gateway.routes.route import Route
from servers.gateway.routes.table import RouteTable


async def _handle(exchange: Exchange) -> None:
    raise NotImplementedError


def route(pattern: str, *methods: str) -> Route:
    return Route(pattern, methods or ("GET",), "test", _handle)


def table(*routes: Route, offered: str = "") -> RouteTable:
    return RouteTable(routes, lambda path: path == offered)


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("/health", "/health"),
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/predict/org/name", "/predict"),
        ("/predict/", "/predict"),
        ("/v1/models/org%2Fname", "/v1/models/{model}"),
        ("/v1/responses/resp_1", "/v1/responses/{id}"),
        ("/v1/responses/resp_1/cancel", "/v1/responses/{id}"),
        ("/v1/responses/a/b", "other"),
        ("/docs/page.js", "/docs"),
        ("/docs/", "other"),
        ("/health/", "other"),
        ("/sleep", "other"),
        ("/v1/offered", "/v1/offered"),
    ],
)
def test_every_path_has_a_label_of_a_bounded_list(path: str, label: str) -> None:
    matching = table(*registry.routes(), offered="/v1/offered").match("POST", path).route
    assert (matching.label or matching.template) == label


def test_a_pattern_gives_its_parameters_and_takes_no_other_path() -> None:
    routes = table(route("/files/{id}/content"), route("/models/{name:path}"))
    assert routes.match("GET", "/files/a-1/content").parameters == {"id": "a-1"}
    assert routes.match("GET", "/models/a/b").parameters == {"name": "a/b"}
    for path in ("/files//content", "/files/a/b/content", "/files/a.b/content", "/files/a/content/", "/models"):
        assert routes.match("GET", path).route.label == "other"


def test_a_path_may_have_a_route_for_each_method() -> None:
    read, write = route("/files", "GET", "HEAD"), route("/files", "POST")
    routes = table(read, write)
    assert routes.match("GET", "/files").route is routes.match("HEAD", "/files").route is read
    assert routes.match("POST", "/files").route is write
    assert routes.match("PUT", "/files").allow == "GET, POST"
    assert routes.match("GET", "/files").allow is None


def test_a_route_of_its_own_goes_before_what_a_model_offers() -> None:
    own = route("/v1/depths")
    assert table(own, offered="/v1/depths").match("GET", "/v1/depths").route is own
    assert table(offered="/v1/depths").match("GET", "/v1/depths").allow == "POST"
