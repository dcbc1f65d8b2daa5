"""Reload: on SIGHUP keys and limits are read anew, while models and requests go on.

It applies what can change while models run: the keys, `limits`, and the request limits of each model. Everything else
needs a restart. Settings with a mistake are rejected as a whole, and the old ones stay in force.
"""

import logging
from collections.abc import Callable

from configs.errors import SettingsError, UserError
from configs.loading import LoadedSettings
from servers.gateway.keys import Keyring
from servers.platform.platform import Platform

_log = logging.getLogger("litport.reload")


class Reload:
    """Called without arguments for each SIGHUP; `keyring` holds the keys in force."""

    def __init__(self, platform: Platform, keyring: Keyring, load_again: Callable[[], LoadedSettings]) -> None:
        self._platform = platform
        self._keyring = keyring
        self._load_again = load_again

    def __call__(self) -> None:
        """Read and check everything, then apply it."""
        try:
            settings = self._load_again().settings
            keyring = self._keyring.read_again(settings.auth)
            if problems := keyring.unknown_models({*self._platform.models, *settings.granted_names}):
                raise SettingsError(tuple(problems))
            if keyring.empty and not self._keyring.empty:
                raise UserError(
                    "auth: the last key is gone, and with none anybody could call; restart if that is meant"
                )
        except UserError as problem:
            _log.error("reload refused, nothing has changed: %s", problem)
            return
        self._keyring = keyring
        self._platform.reload(settings, keyring)
        _log.info("reloaded: keys and limits; everything else needs a restart")
