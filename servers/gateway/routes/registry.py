"""The registry of routes: those of Litport, and those that packages add before the platform is built.

A package of its own names a sequence of routes as an entry point of the group `litport.routes`.
"""

from collections.abc import Sequence
from importlib.metadata import entry_points

from configs.errors import UserError
from servers.gateway.routes import change, kserve, openai, platform, predict
from servers.gateway.routes.route import Route

ENTRY_POINT_GROUP = "litport.routes"

_ROUTES: list[Route] = [*platform.ROUTES, *change.ROUTES, *predict.ROUTES, *openai.ROUTES, *kserve.ROUTES]


def register(*routes: Route) -> None:
    """Add routes to the port. Raises UserError for a path and method that are served already."""
    for route in routes:
        if route in _ROUTES:
            continue
        if any(entry.pattern == route.pattern and set(entry.methods) & set(route.methods) for entry in _ROUTES):
            raise UserError(
                f"route {route.pattern}: expected a path and methods of its own, got those of another route"
            )
        _ROUTES.append(route)


def register_installed() -> None:
    """Add the routes that installed packages bring. Raises UserError for those that cannot be imported."""
    for point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            routes = point.load()
        except Exception as error:  # whatever a package raises at its import
            raise UserError(f"routes {point.name!r} ({point.value}): {type(error).__name__}: {error}") from error
        if not isinstance(routes, Sequence) or not all(isinstance(route, Route) for route in routes):
            raise UserError(f"routes {point.name!r}: expected a sequence of Route at {point.value}, got {routes!r}")
        register(*routes)


def routes() -> tuple[Route, ...]:
    """All routes; of several that match a path, the first counts."""
    return tuple(_ROUTES)
