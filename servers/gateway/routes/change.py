"""Routes that change a running platform: they load and unload models, for keys with `admin: true` only."""

from functools import partial

from servers.gateway.body.content import BodyKind
from servers.gateway.changes import Action
from servers.gateway.exchange import Exchange
from servers.gateway.routes.route import Route


async def _change(exchange: Exchange, action: Action) -> None:
    key = exchange.key
    assert key is not None, "a route that changes the platform needs a key"
    key.check_admin()
    change = await exchange.gateway.changes.make(action, exchange.parameters["model"], f"key {key.name}")
    await exchange.response.send_json(change)


def _route(action: Action) -> Route:
    pattern = f"/admin/{action}/{{model:path}}"
    return Route(
        pattern, ("POST",), "platform", partial(_change, action=action), body=BodyKind.OPAQUE, label=f"/admin/{action}"
    )


# The OpenAPI document, which generated clients are made from, does not have them.
ROUTES = (_route("load"), _route("unload"))
