"""What a keys file may say: everything else is one line that names the place and what would be right."""

import hashlib
import logging
import os
from pathlib import Path

import pytest

from configs.errors import SettingsError
from configs.settings import Auth
from servers.gateway.keys import Keyring
from tests.servers.gateway.keyrings import ALICE, BOB, GOOD, bearer, keys_file, ring_of

NUMBER = "expected a whole number of 1 or more, got"


def problems_of(path: Path, *api_keys: str) -> list[str]:
    """The problems of a keys file, each without the folder that it is in."""
    with pytest.raises(SettingsError) as refused:
        Keyring(Auth.model_validate({"api_keys": api_keys, "keys_file": path}))
    assert "sk-" not in str(refused.value), "no key is ever repeated"
    return [problem.removeprefix(f"{path.parent}/") for problem in refused.value.problems]


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
    ring = ring_of(tmp_path, "key-3: {key: 0123456789012345}\nno: {key: 1e10000000000000}\n", "one-of-16-characters")
    assert ring.find(bearer("0123456789012345")).name == "key-3"
    assert ring.find(bearer("1e10000000000000")).name == "no"


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
        (
            "alice: {key_sha256: " + hashlib.sha256(b"\n").hexdigest() + "}",
            "alice.key_sha256: expected the SHA-256 of a key, got that of an empty line",
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
    assert problems_of(keys_file(tmp_path, text), "quick-of-16-chars", f"{BOB}1") == [
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
