"""Who may call: which key fits, which models it may call, and what a reload keeps."""

import contextlib
import hashlib
import hmac
from collections.abc import Mapping
from pathlib import Path

import pytest

from configs.errors import SettingsError
from configs.settings import Auth
from servers.errors import ApiError
from servers.gateway.keys import Key, Keyring, anonymous
from tests.servers.gateway.keyrings import ALICE, BOB, StandInForTime, bearer, keys_file, refusal, ring_of


@pytest.fixture
def time() -> StandInForTime:
    return StandInForTime()


def test_without_keys_nobody_needs_one() -> None:
    ring = Keyring(Auth())
    assert ring.empty
    for headers in ({}, bearer("anything")):
        key = ring.find(headers)
        assert (key.name, key.models, key.max_in_flight) == ("anonymous", None, None)
    for _ in range(1000):
        ring.find({}).enter(10**9)
    assert ring.find({}).in_flight == 1000


def test_a_key_is_found_as_bearer_or_x_api_key_in_clear_or_by_its_hash(tmp_path: Path) -> None:
    digest = hashlib.sha256(BOB.encode()).hexdigest().upper()
    keys = ("short-0123456789", "other-0123456789")
    ring = ring_of(tmp_path, f"alice: {{key: {ALICE}}}\nbob: {{key_sha256: {digest}}}\n", *keys)
    assert not ring.empty
    for secret, name in ((ALICE, "alice"), (BOB, "bob"), (keys[0], "key-1"), (keys[1], "key-2")):
        assert ring.find(bearer(secret)).name == name
        assert ring.find({"authorization": f"bEARER  {secret} "}).name == name
        assert ring.find({"x-api-key": secret}).name == name


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": ALICE},
        {"authorization": f"Basic {ALICE}"},
        {"x-api-key": ""},
        bearer(""),
        bearer(ALICE[:-1]),
        bearer(ALICE + "x"),
        bearer(ALICE.upper()),
        bearer("\xff" * 19),
        bearer(hashlib.sha256(ALICE.encode()).hexdigest()),
    ],
)
def test_whoever_shows_no_key_that_fits_is_a_401(tmp_path: Path, headers: Mapping[str, str]) -> None:
    with pytest.raises(ApiError) as refused:
        ring_of(tmp_path, f"alice: {{key: {ALICE}}}\n").find(headers)
    assert (refused.value.status, refused.value.code) == (401, "invalid_api_key")
    assert refused.value.headers == {"www-authenticate": "Bearer"}
    assert ALICE not in refused.value.message


@pytest.mark.parametrize("given", [ALICE, BOB, "first-of-16-chars", "x", "", "y" * 10_000])
def test_every_key_is_compared_in_constant_time_at_one_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    ring = ring_of(tmp_path, f"alice: {{key: {ALICE}}}\nbob: {{key: {BOB}}}\n", "first-of-16-chars")
    sizes: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def noted(one: bytes, other: bytes) -> bool:
        sizes.append((len(one), len(other)))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", noted)
    with contextlib.suppress(ApiError):
        ring.find(bearer(given))
    assert sizes == [(32, 32)] * 3


def test_a_ring_and_its_keys_show_no_secret(tmp_path: Path) -> None:
    ring = ring_of(tmp_path, f"alice: {{key: {ALICE}}}\n", "quick-start-of-16")
    told = repr(vars(ring)) + repr(ring.find(bearer(ALICE)))
    assert "alice" in told
    assert ALICE not in told
    assert "quick-start-of-16" not in told


def test_a_model_that_a_key_may_not_call_is_a_403_that_names_those_it_may() -> None:
    key = Key("alice", models=frozenset({"two", "one"}))
    key.check_model("one")
    anonymous().check_model("three")
    with pytest.raises(ApiError) as refused:
        key.check_model("three")
    assert (refused.value.status, refused.value.code) == (403, "model_not_allowed")
    assert refused.value.message == "key 'alice' may not call model 'three'; it may call one, two"


def test_models_that_do_not_exist_are_named_with_the_nearest_that_does(tmp_path: Path) -> None:
    ring = ring_of(tmp_path, f"a: {{key: {ALICE}}}\nalice: {{key: {BOB}, models: [smollm, echo, x]}}\n")
    assert ring.unknown_models(["echo", "smollm", "x"]) == []
    origin = f"{tmp_path}/keys.yaml:2: alice.models: expected names of models, got "
    assert ring.unknown_models(["echo", "smollm2"]) == [
        f"{origin}'smollm'; did you mean smollm2?",
        f"{origin}'x'; there are: echo, smollm2",
    ]
    assert ring.unknown_models([])[0].endswith("there are: none")


def test_a_reload_changes_keys_rights_and_limits_and_keeps_what_was_spent(tmp_path: Path, time: StandInForTime) -> None:
    limits = "requests_per_minute: 2, tokens_per_minute: 600, max_in_flight: 9"
    old = ring_of(tmp_path, f"alice: {{key: {ALICE}, {limits}}}\n", "quick-start-of-16", time=time)
    before = old.find(bearer(ALICE))
    before.enter(600)
    old.find(bearer("quick-start-of-16")).enter(0)
    keys_file(tmp_path, f"alice: {{key: {BOB}, models: [one], {limits}}}\ncarl: {{key: {BOB}0}}\n")
    ring = old.read_again(Auth.model_validate({"api_keys": ["quick-start-of-16"], "keys_file": tmp_path / "keys.yaml"}))
    with pytest.raises(ApiError):
        ring.find(bearer(ALICE))
    after = ring.find(bearer(BOB))
    assert (after.name, after.models, after.in_flight) == ("alice", frozenset({"one"}), 1)
    assert refusal(after, 60).headers == {"retry-after": "6"}
    assert ring.find(bearer("quick-start-of-16")).in_flight == 1
    assert ring.find(bearer(f"{BOB}0")).in_flight == 0
    before.leave(600, 0)
    assert after.in_flight == 0, "a request leaves by the key it entered with"
    after.enter(600)
    assert old.find(bearer(ALICE)) is before, "the old ring is as it was"


def test_a_new_rate_finds_the_same_share_of_the_minute_spent(tmp_path: Path, time: StandInForTime) -> None:
    old = ring_of(tmp_path, f"alice: {{key: {ALICE}, tokens_per_minute: 100}}\n", time=time)
    old.find(bearer(ALICE)).enter(50)
    keys_file(tmp_path, f"alice: {{key: {ALICE}, tokens_per_minute: 1000}}\n")
    key = old.read_again(Auth(keys_file=tmp_path / "keys.yaml")).find(bearer(ALICE))
    key.enter(500)
    assert refusal(key, 500).headers == {"retry-after": "30"}


def test_a_reload_that_fails_says_why_and_leaves_the_ring_in_use(tmp_path: Path) -> None:
    ring = ring_of(tmp_path, f"alice: {{key: {ALICE}}}\n")
    path = keys_file(tmp_path, "alice: {}\n")
    with pytest.raises(SettingsError, match="got neither"):
        ring.read_again(Auth(keys_file=path))
    assert ring.find(bearer(ALICE)).name == "alice"


def test_requests_of_nobody_in_particular_are_still_counted_after_a_reload() -> None:
    ring = Keyring(Auth())
    ring.find({}).enter(0)
    assert ring.read_again(Auth()).find({}).in_flight == 1
