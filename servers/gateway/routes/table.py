"""The route table: finds the route of a request, once for each request.

What is neither a route nor on the card of a model is not found, so no other route of an engine (sleep, profiling, LoRA
loading, /invocations) can be reached.
"""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from configs.names import nearest
from servers.errors import ApiError
from servers.gateway.exchange import Exchange
from servers.gateway.routes import openai
from servers.gateway.routes.route import Route

# How like a route a path must be to be taken for a misspelling of it, and how long it may be: comparing takes time.
_ALIKE = 0.8
_LONGEST_TYPO = 64
_NO_PARAMETERS: Mapping[str, str] = MappingProxyType({})
_NO_PATTERNS: Mapping[str, list[Route]] = MappingProxyType({})


class Match(NamedTuple):
    """A request's route with the values of its parameters; `allow` is set when the route has another method."""

    route: Route
    parameters: Mapping[str, str] = _NO_PARAMETERS
    allow: str | None = None


class RouteTable:
    """The routes by their paths; `is_offered` says whether a model offers a path that has no route of its own."""

    def __init__(self, routes: Iterable[Route], is_offered: Callable[[str], bool]) -> None:
        self._is_offered = is_offered
        self._unknown = Route("", (), "", self._reject, label="other")
        self._exact: dict[str, list[Route]] = {}
        self._patterns: dict[str, dict[str, list[Route]]] = {}  # by the first segment, which is most often a word
        self._matches: dict[tuple[str, str], Match] = {}
        for route in routes:
            segment = _first_segment(route.pattern)
            by_path = self._exact
            if route.parameters:
                by_path = self._patterns.setdefault("" if "{" in segment else segment, {})
            by_path.setdefault(route.pattern, []).append(route)
            if not route.parameters:
                self._matches.update({(method, route.pattern): Match(route) for method in route.methods})

    def match(self, method: str, path: str) -> Match:
        """The route of a request; for a path that is not on the port, a route that answers 404."""
        if match := self._matches.get((method, path)):
            return match
        if path in self._exact:
            return _choose(self._exact[path], method, _NO_PARAMETERS)
        for segment in (_first_segment(path), ""):
            for routes in self._patterns.get(segment, _NO_PATTERNS).values():
                if parameters := routes[0].expression.fullmatch(path):
                    return _choose(routes, method, parameters.groupdict())
        if self._is_offered(path):
            return _choose([openai.card_route(path)], method, _NO_PARAMETERS)
        return Match(self._unknown)

    async def _reject(self, exchange: Exchange) -> None:
        request = exchange.request
        message = f"{request.method} {request.path[:200]} is not served here; "
        path = nearest(request.path, self._exact, _ALIKE) if len(request.path) <= _LONGEST_TYPO else None
        message += f"did you mean {path}?" if path else "GET /status lists models and routes"
        raise ApiError(404, message, code="unknown_route")


def _first_segment(path: str) -> str:
    return path[1:].partition("/")[0]


def _choose(routes: list[Route], method: str, parameters: Mapping[str, str]) -> Match:
    for route in routes:
        if method in route.methods:
            return Match(route, parameters)
    return Match(routes[0], parameters, ", ".join(route.methods[0] for route in routes))
