"""The command line as a stranger meets it."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from configs.arguments import EXAMPLES, commands
from configs.errors import UserError
from configs.names import COMMAND_LINE
from configs.settings import Auth
from configs.sources import split_overrides
from litport import _parser, main
from servers.gateway.keys import Keyring
from servers.platform.targets import check, load
from tests.conftest import LITPORT, REPOSITORY, litport
from tests.services.front_door import open_door
from tests.services.terminal import CTRL_U, terminal
from tests.services.tiny_engine import TinyEngine


def test_the_version_is_that_of_the_distribution() -> None:
    from importlib import metadata

    for words in ("version", "--version"):
        assert litport(words).stdout == f"litport {metadata.version('litport')}\n"


def test_status_and_clients_say_when_nothing_answers() -> None:
    for words in (("status",), ("chat", "x", "hi"), ("predict", "x", "{}")):
        ended = litport(*words, "--url", "http://127.0.0.1:9")
        assert ended.returncode == 1
        assert ended.stderr == "nothing answers at http://127.0.0.1:9; is `litport serve` running there?\n"


def test_an_input_that_is_neither_file_nor_json_is_said_to_be() -> None:
    ended = litport("predict", "x", "no-such-file.png")
    assert ended.returncode == 2
    assert ended.stderr.startswith("expected a file that exists or JSON, got 'no-such-file.png'")


def test_every_problem_of_the_settings_is_a_line_of_its_own(tmp_path: Path) -> None:
    recipe = tmp_path / "bad.yaml"
    recipe.write_text("server: {prot: 1}\nmodels:\n  a: {engine: vlm}\n")
    ended = litport("serve", str(recipe), "--server.port", "eighty")
    assert ended.returncode == 2
    lines = ended.stderr.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("litport: ") and "(" in line for line in lines)


def test_the_environment_of_a_recipe_does_not_trouble_the_other_commands() -> None:
    environ = {"LITPORT_MODELS__CHAT__ARGS__SEED": "1"}
    assert "nothing answers" in litport("status", "--url", "http://127.0.0.1:9", environ=environ).stderr


def test_check_show_and_schema_tell_what_serve_would_take() -> None:
    shown = litport("config", "check", "configs/recipes/echo.yaml").stdout
    assert shown == "all settings are valid; models: echo\necho: the worker host, as far as its source shows\n"
    shown = litport(
        "config", "show", "configs/recipes/echo.yaml", environ={"LITPORT_AUTH__API_KEYS": "[hush-and-no-further]"}
    ).stdout
    assert "environment LITPORT_AUTH__API_KEYS" in shown
    assert "hush" not in shown
    assert json.loads(litport("config", "schema").stdout)["title"]


@pytest.mark.parametrize("words", [("apis",), ("models", "list")])
def test_lists_are_printed(words: tuple[str, ...], tmp_path: Path) -> None:
    ended = litport(*words, environ={"XDG_CACHE_HOME": str(tmp_path)})
    assert ended.returncode == 0
    assert "embedding" in ended.stdout


def test_a_new_key_is_printed_once_and_its_hash_is_in_the_keys_file(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    first = litport("keys", "new", "alice", "--file", str(file))
    assert first.returncode == 0
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_text(file.read_text() + "  models: [smol]  # a note\n")
    second = litport("keys", "new", "bob", environ={"LITPORT_AUTH__KEYS_FILE": str(file)})
    keys = [ended.stdout.strip() for ended in (first, second)]
    assert all(len(key) >= 32 and key not in file.read_text() for key in keys)
    assert "models: [smol]  # a note" in file.read_text(), "what was there stays"
    ring = Keyring(Auth.model_validate({"keys_file": str(file)}))
    assert [ring.find({"authorization": f"Bearer {key}"}).name for key in keys] == ["alice", "bob"]
    link = tmp_path / "link.yaml"
    link.symlink_to(file)
    file.chmod(0o640)
    assert litport("keys", "new", "carol", "--file", str(link)).returncode == 0
    assert link.is_symlink()
    assert "carol:" in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o640, "as it was"
    file.chmod(0o600)
    again = litport("keys", "new", "bob", "--file", str(file))
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert "bob: expected a name that is not in" in again.stderr
    wrong = litport("keys", "new", "a b", "--file", str(file))
    assert wrong.returncode == 2
    assert "expected a name of 1 to 64 letters" in wrong.stderr
    assert "a b" not in file.read_text()


def test_commands_without_a_key_say_how_to_give_one(tmp_path: Path) -> None:
    with open_door(tmp_path, TinyEngine("one"), auth={"api_keys": ["secret-0123456789"]}) as door:
        url = str(door.client.base_url).rstrip("/")
        for words in (("status",), ("chat", "one", "hi"), ("predict", "one", "{}")):
            ended = litport(*words, "--url", url, environ={"OPENAI_API_KEY": ""})
            assert ended.returncode == 1
            assert ended.stderr.startswith("401: ")
            assert ended.stderr.endswith("; --key, or OPENAI_API_KEY, gives a key\n")
            assert "{" not in ended.stderr, "the message and not the JSON around it"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("list",), "litport: error: list: no such command; did you mean models list?"),
        (("serv", "echo"), "litport: error: serv: no such command; did you mean serve?"),
        (("models", "pul", "x"), "litport models: error: pul: no such command; did you mean pull?"),
        (("apply", "m.yaml", "--prot", "80"), "litport apply: error: --prot: no such option; did you mean --port?"),
        (("serve", "m", "--port", "80"), "litport: --port: no such option; did you mean --server.port?"),
        (
            ("serve", "m", "--max-model-len=9"),
            "litport: --max-model-len: no such option; did you mean --models.NAME.args.max-model-len?",
        ),
    ],
)
def test_a_near_miss_is_told_what_was_meant(words: tuple[str, ...], line: str) -> None:
    ended = litport(*words)
    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (2, line)


def test_the_help_of_every_command_has_an_example_that_can_be_parsed(capsys: pytest.CaptureFixture[str]) -> None:
    parser = _parser()
    for name, sub in commands(parser):
        assert "\nexample:\n  " in sub.format_help(), name
        words = shlex.split(EXAMPLES[name].removeprefix("source <(").rstrip(")").partition(" >")[0])
        assert words[0] == "litport"
        parser.parse_args(split_overrides(words[1:])[0])
    assert not EXAMPLES.keys() - dict(commands(parser)).keys()
    with pytest.raises(SystemExit, match="0"):
        main(["help", "models", "pull"])
    assert capsys.readouterr().out.startswith("usage: litport models pull")


def test_a_shell_completes_commands_options_models_and_settings() -> None:
    script = litport("completion", "bash").stdout
    lines = (
        "litport se",
        "litport bench run --r",
        "litport models pull smo",
        "litport serve a --server.po",
        "litport x ./",
    )
    loop = """; do COMP_WORDS=($line); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _litport; echo "${COMPREPLY[*]}"; done"""
    program = f"{script}for line in {shlex.join(lines)}{loop}"
    ended = subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.splitlines() == ["serve", "--require-parity", "smollm2-135m-instruct", "--server.port", ""]


@pytest.mark.long
@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh on this machine")
def test_zsh_completes_too_without_a_configuration_of_its_own(tmp_path: Path) -> None:
    script = tmp_path / "litport.zsh"
    script.write_text(litport("completion", "zsh").stdout)
    lines = {
        "litport se": "serve ",
        "litport bench run --r": "--require-parity ",
        "litport models pull smo": "smollm2-135m-instruct ",
        "litport help doc": "doctor ",
        f"litport predict m {tmp_path}/lit": "litport.zsh ",
    }
    with terminal("-f", "-i", columns=200, program=[str(shutil.which("zsh"))]) as shell:
        shell.type(f"source {script}; echo 'rea'dy\n")
        assert "not found" not in shell.wait("ready\r\n")
        for line, completion in lines.items():
            shell.type(f"{line}\t")
            shell.wait(re.escape(completion))
            shell.type(CTRL_U)


def test_the_models_fit_a_terminal_of_50_columns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LITPORT_SERVER__CACHE_DIR", str(tmp_path))
    with terminal("models", "ls", columns=50) as screen:
        assert screen.end() == 0
    assert "MODEL               ON DISK     WHAT" in screen.output.replace("\x1b[1m", "").replace("\x1b[0m", "")


def test_an_address_needs_no_scheme_and_may_be_that_of_openais_sdk(tmp_path: Path) -> None:
    with open_door(tmp_path, TinyEngine("one")) as door:
        for url in (f"127.0.0.1:{door.port}", f"http://127.0.0.1:{door.port}/v1"):
            assert litport("status", "--url", url).returncode == 0


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--url", "http://[::1"), "litport: --url: expected an address such as"),
        (("--url", "ftp://h"), "litport: --url: expected an address such as"),
        (("--key", "é"), "litport: --key, or OPENAI_API_KEY: expected ASCII"),
    ],
)
def test_an_address_or_a_key_that_cannot_be_sent_is_one_line(
    words: tuple[str, ...], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", *words]) == 2
    problem = capsys.readouterr().err
    assert (problem[: len(line)], problem.count("\n")) == (line, 1)


def test_a_prediction_is_read_from_standard_input(tmp_path: Path) -> None:
    with open_door(tmp_path, TinyEngine("one")) as door:
        command = [*LITPORT, "predict", "one", "-", "--url", f"127.0.0.1:{door.port}"]
        ended = subprocess.run(command, input='{"x": 1}', capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(ended.stdout)["bytes"] == len('{"x":1}')


def test_a_file_that_is_no_json_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.json").write_text("{bad")
    assert main(["predict", "one", str(tmp_path / "bad.json")]) == 2
    assert capsys.readouterr().err.startswith(f"{tmp_path / 'bad.json'}: expected JSON (")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("apply", "/nowhere.yaml"), "/nowhere.yaml: expected a recipe, got No such file or directory"),
        (("swap", "one"), "expected a change, as --set KEY=VALUE or --source SOURCE, got none"),
        (("swap", "one", "--set", "a=1", "a=2"), "--set: expected each setting once, got a twice"),
        (
            ("swap", "one", "--source", "a", "--set", "source=b"),
            "--source: expected it alone, or --set source=..., got",
        ),
    ],
)
def test_a_change_that_cannot_be_meant_reaches_no_platform(
    words: tuple[str, ...], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err.startswith(f"litport: {problem}")


def test_the_class_of_a_file_with_one_litapi_may_be_left_off(tmp_path: Path) -> None:
    squares = load(["tests/services/strangers/squares.py"], []).settings.models["squares"]
    assert squares.model_dump()["api"] == "tests/services/strangers/squares.py:SquaresAPI"
    two = tmp_path / "two.py"
    two.write_text("import litserve as ls\nclass A(ls.LitAPI): ...\nclass B(A): ...\nclass C: ...\n")
    with pytest.raises(UserError, match=r"expected the class behind a colon, .*: A, B$"):
        load([str(two)], [])
    with pytest.raises(UserError, match=r"with a LitAPI, got No such file or directory$"):
        load([str(tmp_path / "gone.py")], [])


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("configs.py", "", "another module is called 'configs' (.*); rename the file"),
        ("test.py", "", "another module is called 'test' (.*); rename the file"),
        ("time.py", "", r"another module is called 'time' \(built into Python\); rename the file"),
        ("my.api.py", "", "expected a file with a module's name, such as my_api.py; rename it"),
        (
            "mine.py",
            "from clients import x",
            "it imports clients, and would get Litport's own package of that name; rename",
        ),
    ],
)
def test_an_api_that_another_module_hides_is_refused_before_the_start(
    name: str, text: str, line: str, tmp_path: Path
) -> None:
    (tmp_path / "clients.py").touch()
    (tmp_path / name).write_text(f"{text}\nimport litserve as ls\nclass A(ls.LitAPI): ...\n")
    with pytest.raises(UserError, match=line):
        check(load([str(tmp_path / name)], []))


def test_documents_name_only_commands_and_settings_that_exist() -> None:
    names = {name.partition(" ")[0] for name, _ in commands(_parser())}
    models = dict.fromkeys(("org/name", "NAME", "my-model", "MODEL"))  # of any engine
    for page in (REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")):
        text = page.read_text()
        assert set(re.findall(r"(?:`|^)litport ([a-z]+)", text, re.MULTILINE)) <= names, page
        for setting in re.findall(r"--((?:server|auth|limits|telemetry|models|bench)\.[\w./-]+\w)", text):
            COMMAND_LINE.find(setting, models)


def test_a_recipe_without_models_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("models:\n")
    with pytest.raises(UserError, match="models: expected one model or more, got none"):
        check(load([str(tmp_path / "empty.yaml")], []))
