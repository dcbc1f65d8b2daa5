"""Which source wins, how each writes a name, and what origin a value has."""

import subprocess
import sys
from pathlib import Path

import pytest

from configs.errors import SettingsError
from configs.loading import load
from configs.settings import LitportSettings, LitServeModel, VllmModel
from configs.sources import split_overrides
from tests.configs.conftest import Load

SMOL = ("models", "smollm2-135m-instruct")
MINI = ("models", "org/v1.5-mini")


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir()
    return folder


def test_each_source_wins_over_the_one_before(load_two: Load, secrets: Path) -> None:
    (secrets / "litport_server__port").write_text("3\n")
    folder = {"LITPORT_SECRETS_DIR": str(secrets)}
    variable = {"LITPORT_SERVER__PORT": "4"}
    recipe = "server: {port: 2}\n"
    port = ("server", "port")
    for number, origin, loaded in (
        (8000, None, load_two()),
        (2, "later.yaml:1", load_two(more=recipe)),
        (3, "secret file litport_server__port", load_two(more=recipe, environ=folder)),
        (4, "environment LITPORT_SERVER__PORT", load_two(more=recipe, environ=folder | variable)),
        (5, "command line --server.port", load_two("--server.port", "5", more=recipe, environ=folder | variable)),
    ):
        assert loaded.settings.server.port == number
        assert (loaded.origins.get(port) or "").endswith(origin or "")
        assert (port in loaded.origins) is (origin is not None)


def test_an_origin_has_the_line_of_the_value(load_two: Load, recipe: Path) -> None:
    origins = load_two().origins
    assert origins[*SMOL, "engine"] == f"{recipe}:3"
    assert origins[*SMOL, "args", "max-model-len"] == f"{recipe}:6"
    assert origins[*MINI, "api"] == f"{recipe}:9"


def test_recipes_merge_by_key_and_replace_lists(load_two: Load) -> None:
    loaded = load_two(
        more="models: {smollm2-135m-instruct: {args: {max_model_len: 64, allowed-media-domains: [a]}}}\n",
        environ={"LITPORT_MODELS__SMOLLM2_135M_INSTRUCT__ARGS__ALLOWED_MEDIA_DOMAINS": "[b, c]"},
    )
    model = loaded.settings.models["smollm2-135m-instruct"]
    assert isinstance(model, VllmModel)
    assert model.source == "smollm2-135m-instruct"
    assert model.args == {"max-model-len": 64, "allowed-media-domains": ["b", "c"]}


def test_an_option_of_vllm_is_the_same_in_every_spelling(load_two: Load) -> None:
    wide = {"LITPORT_MODELS__SMOLLM2_135M_INSTRUCT__ARGS__COMPILATION_CONFIG__CUSTOM_OPS": "[none]"}
    loaded = load_two(
        "--models.smollm2-135m-instruct.args.max_model_len",
        "1024",
        "--models.smollm2-135m-instruct.args.enforce-eager",
        "--models.smollm2-135m-instruct.args.-tp=2",
        more="models: {smollm2-135m-instruct: {args: {compilation-config.mode: 0}}}\n",
        environ=wide,
    )
    model = loaded.settings.models["smollm2-135m-instruct"]
    assert isinstance(model, VllmModel)
    assert model.args == {
        "max-model-len": 1024,
        "enforce-eager": True,
        "-tp": 2,
        "compilation-config": {"mode": 0, "custom_ops": ["none"]},
    }


def test_the_environment_matches_model_names_by_letters_and_digits(load_two: Load) -> None:
    environ = {
        "LITPORT_MODELS__SMOLLM2_135M_INSTRUCT__ARGS__MAX_MODEL_LEN": "1024",
        "LITPORT_MODELS__ORG_V1_5_MINI__DEVICES": "[0, 1]",
        "LITPORT_MODELS__ORG_V1_5_MINI__STREAM": "true",
        "LITPORT_MODELS__ORG_V1_5_MINI__TIMEOUT_S": "null",
        "LITPORT_MODELS__ORG_V1_5_MINI__ENV__HF_HOME": "/hf",
        "LITPORT_MODELS__ORG_V1_5_MINI__INIT__TOP_K": "5",
    }
    models = load_two(environ=environ).settings.models
    chat, mini = models["smollm2-135m-instruct"], models["org/v1.5-mini"]
    assert isinstance(chat, VllmModel)
    assert isinstance(mini, LitServeModel)
    assert chat.args["max-model-len"] == 1024
    assert (mini.devices, mini.stream, mini.timeout_s) == ([0, 1], True, None)
    assert (mini.env, mini.init) == ({"HF_HOME": "/hf"}, {"top_k": 5})


def test_a_name_that_fits_two_models_is_refused(load_two: Load) -> None:
    with pytest.raises(SettingsError, match=r"fits more than one model: smollm2-135m-instruct, smollm2.135m.instruct"):
        load_two(
            more="models: {smollm2.135m.instruct: {engine: litserve, api: echo}}\n",
            environ={"LITPORT_MODELS__SMOLLM2_135M_INSTRUCT__REQUIRED": "false"},
        )


def test_the_longest_model_name_wins_on_the_command_line(load_two: Load) -> None:
    loaded = load_two(
        "--models.a.b.stream",
        "--models.a.stream=false",
        more="models: {a: {engine: litserve, api: echo}, a.b: {engine: litserve, api: echo}}\n",
    )
    models = loaded.settings.models
    assert [getattr(models[name], "stream", None) for name in ("a", "a.b")] == [False, True]


def test_the_environment_and_the_command_line_add_a_model_by_its_engine(load_two: Load) -> None:
    loaded = load_two(
        "--models.org/v2.engine",
        "litserve",
        "--models.org/v2.api",
        "./mine.py:Mine",
        environ={"LITPORT_MODELS__OTHER__ENGINE": "litserve", "LITPORT_MODELS__OTHER__API": "echo"},
    )
    assert list(loaded.settings.models) == ["smollm2-135m-instruct", "org/v1.5-mini", "other", "org/v2"]


def test_models_named_on_the_command_line_can_be_overridden_there(load_two: Load) -> None:
    loaded = load_two("--models.org/name.required", "no", models={"org/name": {"engine": "vllm", "source": "org/name"}})
    assert not loaded.settings.models["org/name"].required
    assert loaded.origins["models", "org/name", "source"] == "command line"


def test_secrets_come_from_files_one_item_a_line(load_two: Load, secrets: Path) -> None:
    (secrets / "litport_auth__api_keys").write_text("*first:{-and-longer\n\nsecond-and-longer\n")
    (secrets / "litport_models__smollm2_135m_instruct__env__hf_token").write_text("123\n")
    (secrets / "database_password").write_text("not ours")
    loaded = load_two(environ={"LITPORT_SECRETS_DIR": str(secrets)})
    assert loaded.origins["auth", "api_keys"] == "secret file litport_auth__api_keys"
    assert len(loaded.settings.auth.api_keys) == 2
    assert "first" not in repr(loaded)


def test_a_secret_file_with_an_unknown_name_is_told_without_its_text(load_two: Load, secrets: Path) -> None:
    (secrets / "litport_server__prot").write_text("hunter2")
    with pytest.raises(SettingsError) as caught:
        load_two(environ={"LITPORT_SECRETS_DIR": str(secrets)})
    assert caught.value.problems == (
        "litport_server__prot: no such setting; did you mean litport_server__port? "
        "(value **********, from secret file litport_server__prot)",
    )


def test_one_key_in_the_environment_is_a_list_of_one(load_two: Load) -> None:
    keys = load_two(environ={"LITPORT_AUTH__API_KEYS": "hunter2-and-longer"}).settings.auth.api_keys
    assert [key.get_secret_value() for key in keys] == ["hunter2-and-longer"]


def test_text_stays_as_it_was_written(load_two: Load) -> None:
    settings = load_two(
        more="models: {a: {engine: litserve, api: echo, source: 1.10, env: {A: on, B: 010}}}\n"
    ).settings
    assert settings.models["a"].source == "1.10"
    assert settings.models["a"].env == {"A": "on", "B": "010"}


def test_an_empty_recipe_and_an_empty_section_change_nothing(load_two: Load) -> None:
    for text in ("", "# nothing\n", "server:\nmodels:\n", "{}\n"):
        assert load_two(more=text).settings == load_two().settings


def test_the_process_environment_is_read_only_by_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITPORT_SERVER__PORT", "81")
    assert LitportSettings().server.port == 8000
    assert load().settings.server.port == 81


def test_overrides_are_told_from_a_commands_own_words() -> None:
    argv = [
        "serve",
        "--server.port",
        "1",
        "demo.yaml",
        "--models.a.stream",
        "--json",
        "--limits.max_body_bytes=5",
        "x",
    ]
    arguments, overrides = split_overrides(argv)
    assert arguments == ["serve", "demo.yaml", "--json", "x"]
    assert overrides == ["--server.port", "1", "--models.a.stream", "--limits.max_body_bytes=5"]


def test_importing_the_settings_is_light() -> None:
    heavy = "import sys, configs.loading; print({'torch', 'vllm', 'litserve', 'transformers'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert printed.stdout == "set()\n"
