"""Keys: who may call, which models, and how much of them at a time and a minute.

They exist so that one caller cannot take what was meant for all, and so that a caller who has to wait is told for how
long. They refuse to hold a key: all that is kept of it is a hash.
"""

import hmac
import math
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from configs.auth import KeysFile, digest_of
from configs.errors import SettingsError
from configs.names import nearest
from configs.settings import Auth
from servers.errors import ApiError

Clock = Callable[[], float]

_MINUTE_S = 60
_IN_FLIGHT_RETRY_S = 1
# Above the rounding of the clock's floats, so that who waits exactly as long as told is let in.
_SLACK_S = 1e-6


@dataclass
class _Bucket:
    """A token bucket that holds a minute's worth, told in time: spending moves the moment at which it is full again.

    Its state is the same for every rate, so when a rate changes, the share of the minute that is spent stays.
    """

    full_at_s: float = -math.inf

    def wait_s(self, cost_s: float, now_s: float) -> float:
        """How long until this much can be spent; 0 or less for now."""
        return max(self.full_at_s - now_s, 0) + cost_s - _MINUTE_S

    def spend(self, cost_s: float, now_s: float) -> None:
        """Take this much out, or put it back where it is negative; more than is there is owed."""
        self.full_at_s = max(self.full_at_s, now_s) + cost_s


@dataclass
class _Running:
    """What a name has spent. Keys of one name share it across reloads: who entered by the old one may leave later."""

    in_flight: int = 0
    requests: _Bucket = field(default_factory=_Bucket)
    tokens: _Bucket = field(default_factory=_Bucket)


@dataclass(frozen=True, eq=False)
class Key:
    """One caller: its name, the models it may call (None for all), its limits (None for none) and what it has spent.

    A minute's worth of requests or tokens can be spent at once, and comes back evenly. For one event loop.
    """

    name: str
    models: frozenset[str] | None = None
    max_in_flight: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    clock: Clock = field(default=time.monotonic, repr=False)
    running: _Running = field(default_factory=_Running, repr=False)

    @property
    def in_flight(self) -> int:
        """How many requests have entered and not left."""
        return self.running.in_flight

    def check_model(self, model: str) -> None:
        """Raises ApiError 403 for a model that it may not call."""
        if self.models is not None and model not in self.models:
            message = f"key '{self.name}' may not call model '{model}'; it may call {', '.join(sorted(self.models))}"
            raise ApiError(403, message, code="model_not_allowed", param="model")

    def enter(self, tokens: int) -> None:
        """Let in a request of an estimated number of tokens, and take them; a request that is refused takes nothing.

        Raises ApiError 429. Its Retry-After is when this request would be let in if nothing else came: the longest
        wait of all limits that it hit, which is the one that is named. For a request in flight to end it is a guess.
        """
        if self.tokens_per_minute is not None and tokens > self.tokens_per_minute:
            limit = f"{self.tokens_per_minute} tokens a minute (tokens_per_minute)"
            message = f"key '{self.name}' may have {limit}, and this request alone may take {tokens}; ask for fewer"
            raise ApiError(429, message, code="request_too_large_for_rate")
        now_s = self.clock()
        rates = (
            ("requests", self.requests_per_minute, 1, self.running.requests),
            ("tokens", self.tokens_per_minute, tokens, self.running.tokens),
        )
        waits: list[tuple[float, str]] = []
        if self.max_in_flight is not None and self.in_flight >= self.max_in_flight:
            waits.append((_IN_FLIGHT_RETRY_S, f"{self.max_in_flight} requests at a time (max_in_flight)"))
        for what, per_minute, count, bucket in rates:
            wait_s = bucket.wait_s(_cost_s(count, per_minute), now_s)
            if per_minute is not None and wait_s > _SLACK_S:
                waits.append((wait_s, f"{per_minute} {what} a minute ({what}_per_minute)"))
        if waits:
            wait_s, limit = max(waits)
            retry_s = max(math.ceil(wait_s - _SLACK_S / 2), 1)
            message = f"key '{self.name}' may have {limit}; try again in {retry_s} s"
            raise ApiError(429, message, code="rate_limit_exceeded", headers={"retry-after": str(retry_s)})
        self.running.in_flight += 1
        for _, per_minute, count, bucket in rates:
            bucket.spend(_cost_s(count, per_minute), now_s)

    def leave(self, estimated_tokens: int, used_tokens: int | None) -> None:
        """A request has ended that entered with this estimate; what it really used, where known, counts instead."""
        assert self.in_flight > 0, f"more requests left than entered with key '{self.name}'"
        self.running.in_flight -= 1
        if used_tokens is not None:
            self.running.tokens.spend(_cost_s(used_tokens - estimated_tokens, self.tokens_per_minute), self.clock())


def anonymous(clock: Clock = time.monotonic) -> Key:
    """Whoever calls where no key is needed: all models, no limits."""
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
            elif other := self._keys.get(grant.digest):
                got = f"that of '{other.name}' ({self._origins[other.name]})"
                problems.append(f"{origin}: {name}: expected a key of its own, got {got}; make another")
            else:
                models = None if grant.models is None else frozenset(grant.models)
                limits = grant.max_in_flight, grant.requests_per_minute, grant.tokens_per_minute
                self._add(grant.digest, Key(name, models, *limits, clock=clock), origin)
        if problems:
            raise SettingsError(tuple(problem.replace("\n", "\\n") for problem in problems))

    @property
    def empty(self) -> bool:
        """Whether there are no keys, so that nobody needs one."""
        return not self._keys

    def find(self, headers: Mapping[str, str]) -> Key:
        """The key that a request shows (header names in lower case); without keys, everybody's. Raises ApiError 401."""
        if self.empty:
            return self._anonymous
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        shown = digest_of(given)
        # Every key is compared, each in constant time and as a digest, so that the time taken says nothing.
        matches = [key for digest, key in self._keys.items() if hmac.compare_digest(shown, digest)]
        if not given or not matches:
            message = "no valid API key: send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'"
            raise ApiError(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"})
        return matches[0]

    def reloaded(self, auth: Auth) -> "Keyring":
        """A new one, read again; what a name has spent and has in flight goes on. Raises SettingsError as at first.

        This one stays as it is, and may stay in use where the new one is not wanted.
        """
        new = Keyring(auth, self._clock)
        running = {key.name: key.running for key in self._keys.values()}
        new._keys = {
            digest: replace(key, running=running.get(key.name, key.running)) for digest, key in new._keys.items()
        }
        new._anonymous = self._anonymous
        return new

    def unknown_models(self, names: Collection[str]) -> list[str]:
        """One line for each model that some key may call and that is not among these names."""
        lines = []
        for key in self._keys.values():
            for model in sorted((key.models or frozenset()) - set(names)):
                meant = nearest(model, names)
                advice = f"did you mean {meant}?" if meant else f"there are: {', '.join(names) or 'none'}"
                origin = self._origins[key.name]
                lines.append(f"{origin}: {key.name}.models: expected names of models, got {model!r}; {advice}")
        return lines

    def _add(self, digest: bytes, key: Key, origin: str) -> None:
        self._keys[digest] = key
        self._origins[key.name] = origin


def _cost_s(count: int, per_minute: int | None) -> float:
    """How much of a bucket's minute this many take; nothing where there is no limit."""
    return 0 if per_minute is None else count * _MINUTE_S / per_minute
