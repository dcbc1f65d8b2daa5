"""What the owner of a running platform may change: load, unload, swap and scale models, through a Unix socket.

    POST /load    {"model": NAME}    -> {"model": NAME, "before": STATE, "state": STATE}
    POST /unload  {"model": NAME}    -> the same
    POST /swap, /rollback, /scale ?name=NAME, with the order -> a line of JSON for each step, then the change
    POST /plan    {"recipes": [PATH, ...]}  -> {"plan": NUMBER, "is_empty": BOOL, "lines": [TEXT, ...]}
    POST /apply   {"plan": NUMBER}          -> {"results": [TEXT, ...], "failures": [TEXT, ...]}
    GET  /model?name=NAME            -> {"model": NAME, "log_file": PATH, "address": URL or null}

An error is {"error": TEXT}. Only the newest plan can be applied. The socket is this user's own. Each change is a line
of the audit log.
"""

import asyncio
import contextlib
import itertools
import logging
import socket
import struct
from pathlib import Path

import msgspec
from aiohttp import web

from configs.errors import UserError
from servers.errors import ApiError
from servers.gateway.changes import Action, Changes
from servers.gateway.directory import Directory
from servers.gateway.revisions import Revisions
from servers.platform import admin_socket
from servers.platform.declaration import Declaration
from servers.platform.plan import Plan

_log = logging.getLogger("litport.platform")


class Admin:
    """Answers on the admin socket of the platform on `port`, within the block.

    Where no socket can be made, the platform runs without.
    """

    def __init__(
        self, port: int, directory: Directory, changes: Changes, revisions: Revisions, declaration: Declaration
    ) -> None:
        self._port = port
        self._directory = directory
        self._changes = changes
        self._revisions = revisions
        self._declaration = declaration
        self._numbers = itertools.count(1)
        self._plans: dict[int, Plan] = {}
        self._path: Path | None = None
        app = web.Application()
        app.router.add_post("/load", self._make)
        app.router.add_post("/unload", self._make)
        for action in ("swap", "rollback", "scale"):
            app.router.add_post(f"/{action}", self._revise)
        app.router.add_post("/plan", self._plan)
        app.router.add_post("/apply", self._apply)
        app.router.add_get("/model", self._show)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)

    async def __aenter__(self) -> None:
        try:
            listener, self._path = admin_socket.bind(self._port)
        except OSError as problem:
            _log.warning("no admin socket, so `litport load` and the like do not reach this platform: %s", problem)
            return
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()

    async def __aexit__(self, *_: object) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            await self._runner.cleanup()

    async def _make(self, request: web.Request) -> web.Response:
        try:
            name = str((await request.json())["model"])
        except (ValueError, KeyError, TypeError):
            return _error('expected {"model": NAME}')
        action: Action = "load" if request.path == "/load" else "unload"
        try:
            change = await self._changes.make(action, name, _caller(request))
        except ApiError as problem:
            return _error(problem.message)
        return web.json_response(msgspec.to_builtins(change))

    async def _revise(self, request: web.Request) -> web.StreamResponse:
        """Each step as it comes; the work goes on where the command is ended meanwhile."""
        answer = web.StreamResponse(headers={"content-type": "application/x-ndjson"})
        await answer.prepare(request)
        lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        body, name, who = await request.read(), request.query.get("name", ""), _caller(request)

        async def work() -> None:
            try:
                change = await self._revisions.make(
                    request.path[1:], name, body, who, lambda step: lines.put_nowait(msgspec.json.encode(step))
                )
                lines.put_nowait(msgspec.json.encode(change))
            except ApiError as problem:
                lines.put_nowait(msgspec.json.encode({"error": problem.message}))
            except Exception:
                _log.exception("%s of %s failed", request.path[1:], name)
                lines.put_nowait(msgspec.json.encode({"error": "the platform failed at it; its log says how"}))
            finally:
                lines.put_nowait(None)

        task = asyncio.create_task(work())
        with contextlib.suppress(ConnectionError):
            while (line := await lines.get()) is not None:
                await answer.write(line + b"\n")
        await task
        return answer

    async def _plan(self, request: web.Request) -> web.Response:
        try:
            recipes = [Path(path) for path in (await request.json())["recipes"]]
        except (ValueError, KeyError, TypeError):
            return _error('expected {"recipes": [PATH, ...]}')
        try:
            plan = await self._declaration.plan(recipes)
        except UserError as problem:
            return _error(str(problem))
        number = next(self._numbers)
        self._plans = {number: plan}
        return web.json_response({"plan": number, "is_empty": plan.is_empty, "lines": plan.lines})

    async def _apply(self, request: web.Request) -> web.Response:
        try:
            plan = self._plans.pop((await request.json())["plan"])
        except (ValueError, KeyError, TypeError):
            return _error("expected the number of the newest plan; make it again")
        try:
            outcome = await self._declaration.apply(plan, _caller(request))
        except UserError as problem:
            return _error(str(problem))
        return web.json_response(msgspec.to_builtins(outcome))

    async def _show(self, request: web.Request) -> web.Response:
        try:
            model = self._directory.find(request.query.get("name", ""))
        except ApiError as problem:
            return _error(problem.message)
        instance = model.choose()
        return web.json_response({"model": model.name, "log_file": str(instance.log_file), "address": instance.address})


def _error(text: str) -> web.Response:
    return web.json_response({"error": text}, status=400)


def _caller(request: web.Request) -> str:
    """The user and the process on the other side (SO_PEERCRED)."""
    assert request.transport is not None
    connection = request.transport.get_extra_info("socket")
    size = struct.calcsize("3i")
    pid, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return f"uid {uid}, process {pid}"
