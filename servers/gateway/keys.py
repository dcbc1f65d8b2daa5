"""Keys: who may call, which models, how many requests at a time, and how much a minute.

With them, one caller cannot take what is meant for all, and a caller who has to wait learns for how long. Only the hash
of a key is stored.
"""

import hmac
import math
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from configs.auth import KeysFile, digest_of
from configs.errors import SettingsError
from configs.names import nearest
from configs.settings import Auth
from servers.errors import ApiError

Clock = Callable[[], float]

_MINUTE_S = 60
_IN_FLIGHT_RETRY_S = 1
# Above the rounding of the clock's floats, so that a caller who waits exactly as long as advised is let in.
_SLACK_S = 1e-6


@dataclass
class _Bucket:
    """A token bucket that holds a minute's worth, measured in time: spending moves the moment when it is full again.

    Its state does not depend on the rate, so when a rate changes, the spent share of the minute stays.
    """

    full_at_s: float = -math.inf

    def wait_s(self, cost_s: float, now_s: float) -> float:
        """Seconds until this much can be spent; 0 or less for now."""
        return max(self.full_at_s - now_s, 0) + cost_s - _MINUTE_S

    def spend(self, cost_s: float, now_s: float) -> None:
        """Take this much out; a negative amount is put back, and the bucket may go below zero."""
        self.full_at_s = max(self.full_at_s, now_s) + cost_s


@dataclass
class _Account:
    """What a name has spent. Keys of one name share it across reloads: requests under the old key may end later."""

    in_flight: int = 0
    requests: _Bucket = field(default_factory=_Bucket)
    tokens: _Bucket = field(default_factory=_Bucket)


@dataclass(frozen=True, eq=False)
class Key:
    """One caller: its name, the models it may call (None: all), its limits (None: no limit) and what it has spent.

    `admin` is whether it may change the platform.

    A minute's worth of requests or tokens can be spent at once, and comes back evenly. For one event loop.
    """

    name: str
    models: frozenset[str] | None = None
    max_in_flight: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    admin: bool = False
    clock: Clock = field(default=time.monotonic, repr=False)
    account: _Account = field(default_factory=_Account, repr=False)

    @property
    def in_flight(self) -> int:
        """The number of requests that have entered and not left."""
        return self.account.in_flight

    def check_model(self, model: str) -> None:
        """Raises ApiError 403 for a model that it may not call."""
        if self.models is not None and model not in self.models:
            message = f"key '{self.name}' may not call model '{model}'; it may call {', '.join(sorted(self.models))}"
            raise ApiError(403, message, code="model_not_allowed", param="model")

    def check_admin(self) -> None:
        """Raises ApiError 403 for a key that may not change the platform."""
        if not self.admin:
            message = f"key '{self.name}' may not change the platform; the keys file grants it by admin: true"
            raise ApiError(403, message, code="not_admin")

    @cached_property
    def is_limited(self) -> bool:
        """Whether it has any limit."""
        limits = (self.max_in_flight, self.requests_per_minute, self.tokens_per_minute)
        return any(limit is not None for limit in limits)

    def enter(self, tokens: int) -> None:
        """Let in a request of an estimated number of tokens, and take them; a rejected request takes nothing.

        Raises ApiError 429. It names the limit with the longest wait, and Retry-After is that wait: after it the
        request is let in if no other comes. For `max_in_flight` the wait is a guess.
        """
        if not self.is_limited:
            self.account.in_flight += 1
            return
        self.check_size(tokens)
        now_s = self.clock()
        costs_s = requests_s, tokens_s = self.costs_s(tokens)
        is_full = self.max_in_flight is not None and self.in_flight >= self.max_in_flight
        requests_wait_s = self.account.requests.wait_s(requests_s or 0, now_s)
        refusal = self.refusal(is_full, requests_wait_s, self.account.tokens.wait_s(tokens_s or 0, now_s))
        if refusal is not None:
            raise refusal
        self.take(costs_s)

    def check_size(self, tokens: int) -> None:
        """Raises ApiError 429 for a request that takes more than a minute has."""
        if self.tokens_per_minute is not None and tokens > self.tokens_per_minute:
            limit = f"{self.tokens_per_minute} tokens a minute (tokens_per_minute)"
            message = f"key '{self.name}' may have {limit}, and this request alone may take {tokens}; ask for fewer"
            raise ApiError(429, message, code="request_too_large_for_rate")

    def costs_s(self, tokens: int) -> tuple[float | None, float | None]:
        """What a request takes of the minute of requests and of tokens, in seconds; None without such a limit."""
        return _cost_s(1, self.requests_per_minute), _cost_s(tokens, self.tokens_per_minute)

    def refusal(self, is_full: bool, requests_wait_s: float, tokens_wait_s: float) -> ApiError | None:
        """The error where as many run as may, or a rate has no room for so long; None where a request may enter."""
        waits: list[tuple[float, str]] = []
        if is_full:
            waits.append((_IN_FLIGHT_RETRY_S, f"{self.max_in_flight} requests at a time (max_in_flight)"))
        rates = (
            ("requests", self.requests_per_minute, requests_wait_s),
            ("tokens", self.tokens_per_minute, tokens_wait_s),
        )
        for unit, per_minute, wait_s in rates:
            if per_minute is not None and wait_s > _SLACK_S:
                waits.append((wait_s, f"{per_minute} {unit} a minute ({unit}_per_minute)"))
        if not waits:
            return None
        wait_s, limit = max(waits)
        retry_s = max(math.ceil(wait_s - _SLACK_S / 2), 1)
        message = f"key '{self.name}' may have {limit}; try again in {retry_s} s"
        return ApiError(429, message, code="rate_limit_exceeded", headers={"retry-after": str(retry_s)})

    def take(self, costs_s: tuple[float | None, float | None]) -> None:
        """Count a request that is let in."""
        now_s = self.clock()
        requests_s, tokens_s = costs_s
        self.account.in_flight += 1
        self.account.requests.spend(requests_s or 0, now_s)
        self.account.tokens.spend(tokens_s or 0, now_s)

    def leave(self, estimated_tokens: int, used_tokens: int | None) -> float:
        """A request that entered with this estimate has ended; what it really used, where known, counts instead.

        Returns how much more that is, in seconds of the minute of tokens.
        """
        assert self.in_flight > 0, f"more requests left than entered with key '{self.name}'"
        self.account.in_flight -= 1
        if used_tokens is None or self.tokens_per_minute is None:
            return 0
        correction_s = (used_tokens - estimated_tokens) * _MINUTE_S / self.tokens_per_minute
        self.account.tokens.spend(correction_s, self.clock())
        return correction_s


def anonymous(clock: Clock = time.monotonic) -> Key:
    """The key of all callers where none is needed: all models, no limits."""
    return Key("anonymous", clock=clock)


class Keyring:
    """All keys, of `auth.api_keys` (named key-1, key-2, ...) and of `auth.keys_file`."""

    def __init__(self, auth: Auth, clock: Clock = time.monotonic) -> None:
        """Read the file. Raises SettingsError with one line for each problem."""
        self._clock = clock
        self._anonymous = anonymous(clock)
        self._keys: dict[bytes, Key] = {}
        self._origins: dict[str, str] = {}
        for number, secret in enumerate(auth.api_keys, start=1):
            self._add(digest_of(secret.get_secret_value()), Key(f"key-{number}", clock=clock), "auth.api_keys")
        if auth.keys_file is None:
            return
        file = KeysFile(auth.keys_file)
        problems = list(file.problems)
        for name, origin, grant in file.entries:
            if name in self._origins:  # twice in the file is the file's own problem
                problems.append(f"{origin}: {name}: expected another name, as auth.api_keys gives this one; rename it")
            elif twin := self._keys.get(grant.digest):
                owner = f"'{twin.name}' ({self._origins[twin.name]})"
                problems.append(f"{origin}: {name}: expected a key of its own, got that of {owner}; make another")
            else:
                models = None if grant.models is None else frozenset(grant.models)
                limits = grant.max_in_flight, grant.requests_per_minute, grant.tokens_per_minute
                self._add(grant.digest, Key(name, models, *limits, grant.admin, clock=clock), origin)
        if problems:
            raise SettingsError(tuple(problem.replace("\n", "\\n") for problem in problems))

    @property
    def empty(self) -> bool:
        """Whether there are no keys; then callers need none."""
        return not self._keys

    def find(self, headers: Mapping[str, str]) -> Key:
        """The key in these headers (names in lower case); without keys, the anonymous one. Raises ApiError 401."""
        if self.empty:
            return self._anonymous
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        secret = bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        secret_digest = digest_of(secret)
        # Every key is compared, each in constant time and as a digest, so that the duration tells nothing.
        matches = [key for digest, key in self._keys.items() if hmac.compare_digest(secret_digest, digest)]
        if not secret or not matches:
            message = "no valid API key: send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'"
            raise ApiError(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"})
        return matches[0]

    def read_again(self, auth: Auth) -> "Keyring":
        """A new keyring in which the account of each name goes on. Raises SettingsError as the constructor does.

        This keyring does not change, and may stay in use.
        """
        keyring = Keyring(auth, self._clock)
        accounts = {key.name: key.account for key in self._keys.values()}
        keyring._keys = {
            digest: replace(key, account=accounts.get(key.name, key.account)) for digest, key in keyring._keys.items()
        }
        keyring._anonymous = self._anonymous
        return keyring

    def changes_to(self, update: "Keyring") -> dict[str, str]:
        """What a later keyring has other than this one, by the name of each key."""
        before, after = self._grants(), update._grants()
        changes = {}
        for name in dict.fromkeys((*before, *after)):
            if before.get(name) == after.get(name):
                continue
            if name not in before or name not in after:
                changes[name] = "added" if name in after else "removed"
            else:
                changes[name] = "another key" if before[name][0] != after[name][0] else "other rights or limits"
        return changes

    def unknown_models(self, names: Collection[str]) -> list[str]:
        """One line for each model that a key names and that is not among these names."""
        lines = []
        for key in self._keys.values():
            for model in sorted((key.models or frozenset()) - set(names)):
                candidate = nearest(model, names)
                advice = f"did you mean {candidate}?" if candidate else f"there are: {', '.join(names) or 'none'}"
                origin = self._origins[key.name]
                lines.append(f"{origin}: {key.name}.models: expected names of models, got {model!r}; {advice}")
        return lines

    def _grants(self) -> dict[str, tuple[object, ...]]:
        return {
            key.name: (digest, key.models, key.max_in_flight, key.requests_per_minute, key.tokens_per_minute, key.admin)
            for digest, key in self._keys.items()
        }

    def _add(self, digest: bytes, key: Key, origin: str) -> None:
        self._keys[digest] = key
        self._origins[key.name] = origin


def _cost_s(count: int, per_minute: int | None) -> float | None:
    """The share of a bucket's minute that this many take, in seconds; None without a limit."""
    return None if per_minute is None else count * _MINUTE_S / per_minute
