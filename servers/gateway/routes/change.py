"""Routes that change a running platform: they load, unload, swap and scale models, for keys with `admin: true` only."""

from functools import partial

from servers.gateway.body.content import BodyKind
from servers.gateway.changes import Action
from servers.gateway.exchange import Exchange
from servers.gateway.routes.route import Handler, Route


async def _change(exchange: Exchange, action: Action) -> None:
    key = exchange.key
    assert key is not None, "a route that changes the platform needs a key"
    key.check_admin()
    change = await exchange.gateway.changes.make(action, exchange.parameters["model"], f"key {key.name}")
    await exchange.response.send_json(change)


async def _revise(exchange: Exchange, action: str) -> None:
    key = exchange.key
    assert key is not None, "a route that changes the platform needs a key"
    key.check_admin()
    who = f"key {key.name}"
    work = exchange.gateway.revisions.make(action, exchange.parameters["model"], exchange.body, who)
    await exchange.response.send_json(await work)


def _route(action: str, handler: Handler) -> Route:
    pattern = f"/admin/{action}/{{model:path}}"
    return Route(pattern, ("POST",), "platform", handler, body=BodyKind.OPAQUE, label=f"/admin/{action}")


# The OpenAPI document, which generated clients are made from, does not have them.
ROUTES = (
    _route("load", partial(_change, action="load")),
    _route("unload", partial(_change, action="unload")),
    *(_route(action, partial(_revise, action=action)) for action in ("swap", "rollback", "scale")),
)
