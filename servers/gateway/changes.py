"""Changes of a running platform at a command: a model is loaded or unloaded, and the audit log has a line about it."""

import time
from collections.abc import Callable
from typing import Literal

from clients import documents
from servers.errors import ApiError
from servers.gateway.directory import Directory
from servers.models.loader import Loader
from servers.models.start import StartError

Action = Literal["load", "unload"]


class Changes:
    """Makes changes through the loader; `audit` writes a line of the audit log."""

    def __init__(self, directory: Directory, loader: Loader, audit: Callable[..., None]) -> None:
        self._directory = directory
        self._loader = loader
        self._audit = audit

    async def make(self, action: Action, name: str, who: str) -> documents.Change:
        """Load or unload the model of this name, and return once it is done.

        Raises ApiError: 404 for a model that does not exist, 503 for one that could not be loaded.
        """
        model = self._directory.find(name)
        before, begin_s = model.state.value, time.monotonic()
        cause = None
        try:
            if action == "load":
                await self._loader.load(model)
            else:
                await self._loader.unload(model, "command")
        except StartError as problem:
            cause = str(problem)
            message = f"{model.name} could not be loaded: {cause}"
            raise ApiError(503, message, code="model_not_ready", param="model") from None
        finally:
            self._audit(
                request_id=None,
                change=action,
                who=who,
                model=model.name,
                before=before,
                state=model.state.value,
                error=cause,
                duration_s=round(time.monotonic() - begin_s, 4),
            )
        return documents.Change(model=model.name, before=before, state=model.state.value)
