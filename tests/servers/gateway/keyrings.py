"""Keyrings from files, and a clock that only the test moves."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from configs.settings import Auth
from servers.errors import ApiError
from servers.gateway.keys import Key, Keyring

ALICE = "sk-alice-0123456789"


BOB = "sk-bob-0123456789ab"


GOOD = f"key: {ALICE}"


@dataclass
class StandInForTime:
    """A monotonic clock that only the test moves; it begins where a machine would be after weeks."""

    now_s: float = 2_000_000.1

    def __call__(self) -> float:
        return self.now_s


def keys_file(folder: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path = folder / "keys.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


def ring_of(folder: Path, text: str, *api_keys: str, time: StandInForTime | None = None) -> Keyring:
    auth = Auth.model_validate({"api_keys": api_keys, "keys_file": keys_file(folder, text)})
    return Keyring(auth, time) if time else Keyring(auth)


def bearer(key: str) -> Mapping[str, str]:
    return {"authorization": f"Bearer {key}"}


def refusal(key: Key, tokens: int = 0) -> ApiError:
    with pytest.raises(ApiError) as refused:
        key.enter(tokens)
    assert refused.value.status == 429
    return refused.value
