"""Reload: on SIGHUP keys and limits are read anew, and no request notices.

It takes over what can change while models run: the keys, `limits`, and of each model how many requests it takes and how
long they may last. For anything else it says that a restart is needed. Settings with a mistake are refused as a whole,
and what was in force stays.
"""

import logging
from collections.abc import Callable

from configs.errors import SettingsError, UserError
from configs.loading import Loaded
from configs.settings import LitServeModel, VllmModel
from servers.gateway.front_door import FrontDoor
from servers.gateway.keys import Keyring
from servers.gateway.server import Server
from servers.models.supervisor import Supervisor

_log = logging.getLogger("litport.reload")
_OF_A_MODEL = {"request_timeout_s", "max_running", "max_waiting", "max_tokens_in_flight"}


class Reload:
    """Called without arguments for each SIGHUP."""

    def __init__(
        self,
        supervisor: Supervisor,
        front_door: FrontDoor,
        server: Server,
        keyring: Keyring,
        load_again: Callable[[], Loaded],
    ) -> None:
        self._supervisor = supervisor
        self._front_door = front_door
        self._server = server
        self._keyring = keyring
        self._load_again = load_again

    def __call__(self) -> None:
        """Read everything, and only then change anything."""
        try:
            settings = self._load_again().settings
            keyring = self._keyring.reloaded(settings.auth)
            if problems := keyring.unknown_models(self._supervisor.models):
                raise SettingsError(tuple(problems))
            if keyring.empty and not self._keyring.empty:
                raise UserError(
                    "auth: the last key is gone, and with none anybody could call; restart if that is meant"
                )
        except UserError as problem:
            _log.error("reload refused, nothing has changed: %s", problem)
            return
        self._keyring = keyring
        self._front_door.reload(settings, keyring)
        self._server.reload(settings.limits)
        for name, model in self._supervisor.models.items():
            if name in settings.models:
                model.settings = _with_limits(model.settings, settings.models[name])
        _log.info("reloaded: keys and limits; everything else needs a restart")


def _with_limits(old: VllmModel | LitServeModel, new: VllmModel | LitServeModel) -> VllmModel | LitServeModel:
    return old.model_copy(update=new.model_dump(include=_OF_A_MODEL & old.__class__.model_fields.keys()))
