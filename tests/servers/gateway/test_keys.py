"""Who may call: what a keys file may say, which key fits, and that limits hold and waits are told truly.

Keys and files are real; only time is stood in for, by a clock that the tests turn.
"""

import contextlib
import copy
import hashlib
import hmac
import logging
import os
import random
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from configs.errors import SettingsError
from configs.settings import Auth
from servers.errors import ApiError
from servers.gateway.address import is_public
from servers.gateway.keys import Key, Keyring, anonymous

ALICE = "sk-alice-0123456789"
BOB = "sk-bob-0123456789ab"


@dataclass
class StandInForTime:
    """A monotonic clock that only the test moves; it begins where a machine would be after weeks."""

    now_s: float = 2_000_000.1

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def time() -> StandInForTime:
    return StandInForTime()


def keys_file(folder: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path = folder / "keys.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


def ring_of(folder: Path, text: str, *api_keys: str, time: StandInForTime | None = None) -> Keyring:
    auth = Auth.model_validate({"api_keys": api_keys, "keys_file": keys_file(folder, text)})
    return Keyring(auth, time) if time else Keyring(auth)


def problems_of(path: Path, *api_keys: str) -> list[str]:
    """The problems of a keys file, each without the folder that it is in."""
    with pytest.raises(SettingsError) as refused:
        Keyring(Auth.model_validate({"api_keys": api_keys, "keys_file": path}))
    assert "sk-" not in str(refused.value), "no key is ever repeated"
    return [problem.removeprefix(f"{path.parent}/") for problem in refused.value.problems]


def bearer(key: str) -> Mapping[str, str]:
    return {"authorization": f"Bearer {key}"}


def refusal(key: Key, tokens: int = 0) -> ApiError:
    with pytest.raises(ApiError) as refused:
        key.enter(tokens)
    assert refused.value.status == 429
    return refused.value


# Who is let in.


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
    ring = ring_of(tmp_path, f"alice: {{key: {ALICE}}}\nbob: {{key_sha256: {digest}}}\n", "short", "other")
    assert not ring.empty
    for secret, name in ((ALICE, "alice"), (BOB, "bob"), ("short", "key-1"), ("other", "key-2")):
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


@pytest.mark.parametrize("given", [ALICE, BOB, "first", "x", "", "y" * 10_000])
def test_every_key_is_compared_in_constant_time_at_one_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    ring = ring_of(tmp_path, f"alice: {{key: {ALICE}}}\nbob: {{key: {BOB}}}\n", "first")
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
    ring = ring_of(tmp_path, f"alice: {{key: {ALICE}}}\n", "quick-start")
    told = repr(vars(ring)) + repr(ring.find(bearer(ALICE)))
    assert "alice" in told
    assert ALICE not in told
    assert "quick-start" not in told


# What a keys file may say.


def test_a_key_has_the_rights_and_limits_of_its_entry(tmp_path: Path) -> None:
    text = (
        f"alice:\n  key: {ALICE}\n  models: [one, org/two]\n  requests_per_minute: 60\n"
        f"  tokens_per_minute: 10000\n  max_in_flight: 4\nbob:\n  key: {BOB}\n  models: null\n"
    )
    ring = ring_of(tmp_path, text)
    alice, bob = ring.find(bearer(ALICE)), ring.find(bearer(BOB))
    assert alice.models == frozenset({"one", "org/two"})
    assert (alice.requests_per_minute, alice.tokens_per_minute, alice.max_in_flight) == (60, 10_000, 4)
    assert bob.models is None
    assert (bob.requests_per_minute, bob.tokens_per_minute, bob.max_in_flight) == (None, None, None)


def test_a_key_may_look_like_a_number_and_a_name_like_those_of_api_keys(tmp_path: Path) -> None:
    ring = ring_of(tmp_path, "key-3: {key: 0123456789012345}\nno: {key: 1e10000000000000}\n", "one")
    assert ring.find(bearer("0123456789012345")).name == "key-3"
    assert ring.find(bearer("1e10000000000000")).name == "no"


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


GOOD = f"key: {ALICE}"
NUMBER = "expected a whole number of 1 or more, got"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        # the file
        ("", "keys.yaml: expected at least one name with its key, got an empty file"),
        ("# nothing\n", "keys.yaml: expected at least one name with its key, got an empty file"),
        ("{}", "keys.yaml: expected at least one name with its key, got an empty file"),
        (b"alice: \xff", "keys.yaml: expected text in UTF-8"),
        ("\n- alice\n", "keys.yaml:2: expected a mapping of names to keys, got a list"),
        (ALICE, "keys.yaml:1: expected a mapping of names to keys, got 19 characters"),
        ("alice: {\n", "keys.yaml:2: expected YAML: "),
        (
            "alice:\n  key: *sk-secret\n",
            "keys.yaml:2: expected YAML: found undefined alias; check indentation, and quote",
        ),
        ("alice:\n  key: !sk-secret!x y\n", "keys.yaml:2: expected YAML: found undefined tag handle; check"),
        # names
        (
            f"al ice: {{{GOOD}}}",
            "keys.yaml:1: expected a name of 1 to 64 letters, digits, '.', '_' and '-', got 'al ice'",
        ),
        (f"'': {{{GOOD}}}", "keys.yaml:1: expected a name of 1 to 64 letters, digits, '.', '_' and '-', got ''"),
        (f"{'sk-' * 22}: {{{GOOD}}}", "'.', '_' and '-', got 66 characters"),
        (f"älice: {{{GOOD}}}", "got 'älice'"),
        (
            f"a: {{{GOOD}}}\nb: {{key: {BOB}}}\na: {{{GOOD}}}\n",
            "keys.yaml:3: a: set before, on line 1; keep one of the two",
        ),
        (f"<<: {{a: {{{GOOD}}}}}", "keys.yaml:1: expected a name before the colon, got a merge or a compound key"),
        (f"alice: {ALICE}", "keys.yaml:1: alice: expected a mapping with a key or a key_sha256, got 19 characters"),
        (f"{ALICE}: alice", "keys.yaml:1: expected a mapping with a key or a key_sha256, got 5 characters"),
        ("alice:\n", "keys.yaml:1: alice: expected a mapping with a key or a key_sha256, got nothing"),
        # keys
        ("alice: {}", "keys.yaml:1: alice: expected a key or a key_sha256, got neither"),
        (f"alice: {{{GOOD}, key_sha256: {'0' * 64}}}", "keys.yaml:1: alice: expected a key or a key_sha256, got both"),
        ("alice:\n  key: sk-123456789012\n", "keys.yaml:2: alice.key: expected a key of 16 or more characters, got 15"),
        ("alice: {key: ''}", "alice.key: expected a key of 16 or more characters, got 0"),
        (f"alice: {{key: '{ALICE} {BOB}'}}", "alice.key: expected a key of visible ASCII without spaces"),
        (f"alice: {{key: {ALICE}é}}", "alice.key: expected a key of visible ASCII without spaces"),
        (f'alice: {{key: "{ALICE}\\n"}}', "alice.key: expected a key of visible ASCII without spaces"),
        (f"alice: {{key: [{ALICE}]}}", "alice.key: expected text, got a list"),
        (
            f"alice: {{key_sha256: {ALICE}}}",
            "alice.key_sha256: expected the SHA-256 of a key, 64 hexadecimal digits, got 19",
        ),
        (f"alice: {{key_sha256: {'g' * 64}}}", "64 hexadecimal digits, got 64 characters"),
        (
            f"alice: {{key_sha256: {hashlib.sha256().hexdigest()}}}",
            "alice.key_sha256: expected the SHA-256 of a key, got that",
        ),
        (f"alice: {{{GOOD}, key: {BOB}}}", "keys.yaml:1: alice.key: set before, on line 1"),
        # rights and limits
        (
            f"alice: {{{GOOD}, models: []}}",
            "alice.models: expected a list of names of models, or no such line for all of",
        ),
        (f"alice: {{{GOOD}, models: echo}}", "alice.models: expected a list of names of models"),
        (f"alice: {{{GOOD}, models: ['']}}", "alice.models: expected a list of names of models"),
        (f"alice:\n  {GOOD}\n  max_in_flight: 0\n", f"keys.yaml:3: alice.max_in_flight: {NUMBER} '0'"),
        (f"alice: {{{GOOD}, requests_per_minute: many}}", f"alice.requests_per_minute: {NUMBER} 'many'"),
        (f"alice: {{{GOOD}, tokens_per_minute: 1.5}}", f"alice.tokens_per_minute: {NUMBER} '1.5'"),
        (f"alice: {{{GOOD}, tokens_per_minute: {BOB}}}", f"alice.tokens_per_minute: {NUMBER} 19 characters"),
        (f"alice: {{{GOOD}, tokens_per_minute: {{}}}}", f"alice.tokens_per_minute: {NUMBER} a mapping"),
        # unknown settings
        (
            f"alice:\n  {GOOD}\n  model: [x]\n",
            "keys.yaml:3: alice.model: no such setting of a key; did you mean models?",
        ),
        (f"alice: {{{GOOD}, requests_per_min: 1}}", "no such setting of a key; did you mean requests_per_minute?"),
        (f"alice: {{kye: {ALICE}}}", "keys.yaml:1: alice.kye: no such setting of a key; did you mean key?"),
        (f"alice: {{{GOOD}, x: 1}}", "alice.x: no such setting of a key; there are key, key_sha256, models, requests"),
        (f"alice: {{{ALICE}: 1, {GOOD}}}", "alice.a name of 19 characters: no such setting of a key"),
    ],
)
def test_a_wrong_keys_file_is_one_line_that_names_the_place_and_what_would_be_right(
    tmp_path: Path, text: str | bytes, problem: str
) -> None:
    problems = problems_of(keys_file(tmp_path, text))
    assert len(problems) == 1
    assert problem in problems[0]


def test_all_problems_are_told_together(tmp_path: Path) -> None:
    same = hashlib.sha256(ALICE.encode()).hexdigest()
    text = (
        f"alice: {{key: {ALICE}}}\nbob: {{key_sha256: {same}}}\nkey-1: {{key: {BOB}}}\n"
        f"carl: {{key: {BOB}0, max_in_flight: no, models: []}}\ndora: {{key: {BOB}1}}\n"
    )
    assert problems_of(keys_file(tmp_path, text), "quick", f"{BOB}1") == [
        "keys.yaml:4: carl.models: expected a list of names of models, or no such line for all of them, "
        "got an empty list",
        "keys.yaml:4: carl.max_in_flight: expected a whole number of 1 or more, got 'no'",
        f"keys.yaml:2: bob: expected a key of its own, got that of 'alice' ({tmp_path}/keys.yaml:1); make another",
        "keys.yaml:3: key-1: expected another name, as auth.api_keys gives this one; rename it",
        "keys.yaml:5: dora: expected a key of its own, got that of 'key-2' (auth.api_keys); make another",
    ]


def test_a_file_that_is_not_there_or_cannot_be_read_is_refused(tmp_path: Path) -> None:
    expected = "expected a file of keys that can be read (auth.keys_file), got"
    assert problems_of(tmp_path / "no.yaml")[0].startswith(f"no.yaml: {expected} No such file or directory; give")
    below_a_file = keys_file(tmp_path, "") / "keys.yaml"
    assert problems_of(below_a_file)[0].startswith(f"keys.yaml: {expected} Not a directory")
    if os.geteuid():  # root reads everything
        assert "got Permission denied" in problems_of(keys_file(tmp_path, f"alice: {{{GOOD}}}\n", 0o000))[0]


def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert "folder: expected a file of keys (auth.keys_file), got a folder" in problems_of(tmp_path / "folder")[0]
    assert "pipe: expected a file of keys (auth.keys_file), got a device, pipe" in problems_of(tmp_path / "pipe")[0]


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    expected = f"keys.yaml: expected a file that only its owner may write to, got mode {mode:o}; chmod go-w it"
    assert problems_of(keys_file(tmp_path, f"alice: {{{GOOD}}}\n", mode)) == [expected]


@pytest.mark.parametrize(("mode", "warned"), [(0o640, True), (0o604, True), (0o600, False), (0o400, False)])
def test_a_file_that_others_may_read_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warned: bool
) -> None:
    with caplog.at_level(logging.WARNING, "litport"):
        Keyring(Auth(keys_file=keys_file(tmp_path, f"alice: {{{GOOD}}}\n", mode)))
    told = f"keys.yaml: not only its owner may read these keys (mode {mode:o}); chmod go-r it"
    assert [told in message for message in caplog.messages] == [True] * warned
    assert ALICE not in caplog.text


# Limits.


def test_requests_at_a_time_are_counted_until_they_leave(time: StandInForTime) -> None:
    key = Key("alice", max_in_flight=2, clock=time)
    key.enter(0)
    key.enter(0)
    error = refusal(key)
    assert (error.code, error.headers) == ("rate_limit_exceeded", {"retry-after": "1"})
    assert error.message == "key 'alice' may have 2 requests at a time (max_in_flight); try again in 1 s"
    assert key.in_flight == 2
    key.leave(0, None)
    key.enter(0)


def test_a_minute_of_requests_may_come_at_once_and_then_one_at_a_time(time: StandInForTime) -> None:
    key = Key("alice", requests_per_minute=20, clock=time)
    for _ in range(20):
        key.enter(0)
    error = refusal(key)
    assert error.headers == {"retry-after": "3"}
    assert error.message == "key 'alice' may have 20 requests a minute (requests_per_minute); try again in 3 s"
    time.now_s += 2
    assert refusal(key).headers == {"retry-after": "1"}
    time.now_s += 1
    key.enter(0)
    refusal(key)
    time.now_s += 3600
    for _ in range(20):
        key.enter(0)
    assert refusal(key).headers == {"retry-after": "3"}, "a rest saves up no more than a minute"


def test_tokens_are_taken_by_their_estimate_and_corrected_by_what_was_used(time: StandInForTime) -> None:
    key = Key("alice", tokens_per_minute=600, clock=time)
    key.enter(500)
    error = refusal(key, 200)
    assert error.headers == {"retry-after": "10"}
    assert "key 'alice' may have 600 tokens a minute (tokens_per_minute)" in error.message
    key.leave(500, 100)
    key.enter(500)
    assert refusal(key, 1).headers == {"retry-after": "1"}
    key.leave(500, 1100)
    assert refusal(key, 1).headers == {"retry-after": "61"}, "more than was there is owed"
    assert refusal(key, 0).headers == {"retry-after": "60"}
    time.now_s += 60
    key.enter(0)
    key.leave(0, None)


def test_a_correction_gives_back_no_more_than_a_full_bucket(time: StandInForTime) -> None:
    key = Key("alice", tokens_per_minute=600, clock=time)
    key.enter(600)
    time.now_s += 50
    key.leave(600, 0)
    key.enter(600)
    assert refusal(key, 600).headers == {"retry-after": "60"}


def test_where_use_is_not_known_the_estimate_stands(time: StandInForTime) -> None:
    key = Key("alice", tokens_per_minute=600, clock=time)
    key.enter(600)
    key.leave(600, None)
    assert refusal(key, 60).headers == {"retry-after": "6"}


def test_more_tokens_than_a_whole_minute_has_are_refused_without_a_time_to_retry(time: StandInForTime) -> None:
    key = Key("alice", tokens_per_minute=600, clock=time)
    error = refusal(key, 601)
    assert (error.code, error.headers) == ("request_too_large_for_rate", {})
    assert "key 'alice' may have 600 tokens a minute (tokens_per_minute), and this request alone" in error.message
    key.enter(600)


def test_of_several_limits_the_one_that_takes_longest_is_named(time: StandInForTime) -> None:
    key = Key("alice", max_in_flight=1, requests_per_minute=1, tokens_per_minute=100, clock=time)
    key.enter(50)
    error = refusal(key, 100)
    assert error.headers == {"retry-after": "60"}
    assert "1 requests a minute" in error.message
    time.now_s += 60
    assert "max_in_flight" in refusal(key, 100).message


def test_a_refused_request_takes_nothing(time: StandInForTime) -> None:
    key = Key("alice", max_in_flight=1, requests_per_minute=2, tokens_per_minute=600, clock=time)
    key.enter(300)
    for _ in range(100):
        refusal(key, 300)
    key.leave(300, None)
    key.enter(300)


def test_no_more_may_leave_than_entered() -> None:
    with pytest.raises(AssertionError, match="anonymous"):
        anonymous().leave(0, None)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_comes_the_rate_holds_and_who_waits_as_told_is_let_in_and_no_sooner(
    time: StandInForTime, seed: int
) -> None:
    chance = random.Random(seed)
    per_minute = chance.choice([1, 7, 60, 999, 10_000, 12_345_678])
    key = Key("alice", tokens_per_minute=per_minute, clock=time)
    let_in: list[tuple[float, int]] = []
    inside: list[int] = []
    for _ in range(300):
        time.now_s += chance.choice([0, 0, 0.01, 1, chance.uniform(0, 90)])
        if inside and chance.random() < 0.3:
            key.leave(inside.pop(), None)
        tokens = chance.randint(1, per_minute)
        try:
            key.enter(tokens)
        except ApiError as error:
            retry_s = int(error.headers["retry-after"])
            assert 1 <= retry_s <= 60
            for wait_s, fits in ((retry_s, True), (retry_s - 1, False)):
                later = replace(key, running=copy.deepcopy(key.running), clock=StandInForTime(time.now_s + wait_s))
                if fits:
                    later.enter(tokens)
                else:
                    refusal(later, tokens)
        else:
            let_in.append((time.now_s, tokens))
            inside.append(tokens)
        assert key.in_flight == len(inside)
    assert let_in
    for first, (begin_s, _) in enumerate(let_in):
        total = 0
        for end_s, tokens in let_in[first:]:
            total += tokens
            assert total <= per_minute * (1 + (end_s - begin_s) / 60 + 1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_estimates_were_what_is_used_keeps_to_the_rate_and_a_request_beyond_it(
    time: StandInForTime, seed: int
) -> None:
    chance = random.Random(seed)
    key = Key("alice", tokens_per_minute=1000, clock=time)
    begin_s, used_total = time.now_s, 0
    for _ in range(1000):
        estimate, used = chance.randint(0, 1000), chance.randint(0, 1000)
        try:
            key.enter(estimate)
        except ApiError as error:
            time.now_s += int(error.headers["retry-after"])
            key.enter(estimate)
        time.now_s += chance.uniform(0, 2)
        key.leave(estimate, used)
        used_total += used
        # At most one request at a time overdraws, by at most the 1000 that it may use.
        assert used_total <= 1000 * (1 + (time.now_s - begin_s) / 60) + 1000
    assert used_total > 1000 * (time.now_s - begin_s) / 60 / 2, "and is not far below it"


# Reloading.


def test_a_reload_changes_keys_rights_and_limits_and_keeps_what_was_spent(tmp_path: Path, time: StandInForTime) -> None:
    limits = "requests_per_minute: 2, tokens_per_minute: 600, max_in_flight: 9"
    old = ring_of(tmp_path, f"alice: {{key: {ALICE}, {limits}}}\n", "quick", time=time)
    before = old.find(bearer(ALICE))
    before.enter(600)
    old.find(bearer("quick")).enter(0)
    keys_file(tmp_path, f"alice: {{key: {BOB}, models: [one], {limits}}}\ncarl: {{key: {BOB}0}}\n")
    ring = old.reloaded(Auth.model_validate({"api_keys": ["quick"], "keys_file": tmp_path / "keys.yaml"}))
    with pytest.raises(ApiError):
        ring.find(bearer(ALICE))
    after = ring.find(bearer(BOB))
    assert (after.name, after.models, after.in_flight) == ("alice", frozenset({"one"}), 1)
    assert refusal(after, 60).headers == {"retry-after": "6"}
    assert ring.find(bearer("quick")).in_flight == 1
    assert ring.find(bearer(f"{BOB}0")).in_flight == 0
    before.leave(600, 0)
    assert after.in_flight == 0, "a request leaves by the key it entered with"
    after.enter(600)
    assert old.find(bearer(ALICE)) is before, "the old ring is as it was"


def test_a_new_rate_finds_the_same_share_of_the_minute_spent(tmp_path: Path, time: StandInForTime) -> None:
    old = ring_of(tmp_path, f"alice: {{key: {ALICE}, tokens_per_minute: 100}}\n", time=time)
    old.find(bearer(ALICE)).enter(50)
    keys_file(tmp_path, f"alice: {{key: {ALICE}, tokens_per_minute: 1000}}\n")
    key = old.reloaded(Auth(keys_file=tmp_path / "keys.yaml")).find(bearer(ALICE))
    key.enter(500)
    assert refusal(key, 500).headers == {"retry-after": "30"}


def test_a_reload_that_fails_says_why_and_leaves_the_ring_in_use(tmp_path: Path) -> None:
    ring = ring_of(tmp_path, f"alice: {{key: {ALICE}}}\n")
    path = keys_file(tmp_path, "alice: {}\n")
    with pytest.raises(SettingsError, match="got neither"):
        ring.reloaded(Auth(keys_file=path))
    assert ring.find(bearer(ALICE)).name == "alice"


def test_requests_of_nobody_in_particular_are_still_counted_after_a_reload() -> None:
    ring = Keyring(Auth())
    ring.find({}).enter(0)
    assert ring.reloaded(Auth()).find({}).in_flight == 1


# The address.


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "127.255.0.9", "::1", "localhost"])
def test_loopback_is_not_public(host: str) -> None:
    assert not is_public(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "192.168.1.5", "2001:db8::1", "128.0.0.1", "", "a..b"])
def test_any_other_address_is_public_and_so_is_what_cannot_be_resolved(host: str) -> None:
    assert is_public(host)


@pytest.mark.parametrize(("second", "public"), [("127.0.1.1", False), ("10.0.0.1", True)])
def test_a_name_is_public_when_any_of_its_addresses_is(
    monkeypatch: pytest.MonkeyPatch, second: str, public: bool
) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ("127.0.0.1", second)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: found)
    assert is_public("this-machine") is public
