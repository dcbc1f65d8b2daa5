"""`runtime_options`: which ones are refused, by Litport and by the runtimes themselves."""

import sys
from pathlib import Path
from typing import Any

import pytest

from configs.settings import LitServeModel
from servers.apis import export_hook, runtimes, session_options
from servers.apis.embedding import EmbeddingAPI
from servers.apis.equality import Variant
from servers.engines.litserve.engine import variant_of
from servers.engines.litserve.kind import LITSERVE

needs_runtimes = pytest.mark.skipif(
    runtimes.usable("float32") != [*runtimes.PACKAGES], reason="NOT TESTED: onnxruntime or openvino is not installed"
)


def test_what_litport_sets_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "find_spec", lambda _: object())
    threads = {"intra_op_num_threads": 2, "session.inter_op_num_threads": 2, "use_per_session_threads": False}
    problems = _problems("onnxruntime", {**threads, "session.intra_op.allow_spinning": "1"})
    assert list(problems) == [*(f"runtime_options.{name}" for name in threads), *list(problems)[3:]]
    assert problems["runtime_options.intra_op_num_threads"] == (
        "expected no number of threads, which is the model's share of the cores, or env.OMP_NUM_THREADS; got 2"
    )
    assert "spinning" in problems["runtime_options.session.intra_op.allow_spinning"]
    files = {"optimized_model_filepath": "/m.onnx", "enable_profiling": True, "ep.context_enable": "1"}
    problems = _problems("onnxruntime", files)
    assert len(problems) == 3
    assert all("expected no option that writes files" in problem for problem in problems.values())
    problems = _problems("openvino", {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": 2})
    assert problems["runtime_options.INFERENCE_PRECISION_HINT"] == (
        'expected no precision here; set `precision`; got "bf16"'
    )
    assert len(problems) == 2


def test_only_one_runtime_has_options() -> None:
    for runtime in ("eager", "auto"):
        reason = f"expected none with runtime: {runtime}, they are those of onnxruntime or openvino"
        assert _problems(runtime, {"NUM_STREAMS": 2}) == {"runtime_options": reason}


def test_a_runtime_that_cannot_be_asked_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    argv = [sys.executable, "-S", "-c", "raise ImportError('no library')"]
    monkeypatch.setattr(session_options, "module_argv", lambda *_: argv)
    monkeypatch.setattr(runtimes, "find_spec", lambda _: object())
    reason = "openvino cannot be asked about them: ImportError: no library"
    assert _problems("openvino", {"NUM_STREAMS": 2}) == {"runtime_options": reason}


@pytest.mark.long
@needs_runtimes
def test_a_runtime_is_asked_which_options_it_takes() -> None:
    wrong: dict[str, Any] = {
        "graph_optimisation_level": 1,
        "execution_mode": "FAST",
        "enable_mem_pattern": 3,
        "session.no_such": "1",
    }
    right = {"graph_optimization_level": "ORT_ENABLE_BASIC", "session.disable_prepacking": True}
    problems = _problems("onnxruntime", {**wrong, **right})
    assert problems == {
        "runtime_options.graph_optimisation_level": "expected an option of onnxruntime's sessions, got "
        "graph_optimisation_level; did you mean graph_optimization_level?",
        "runtime_options.execution_mode": 'expected one of ORT_SEQUENTIAL, ORT_PARALLEL, got "FAST"',
        "runtime_options.enable_mem_pattern": "expected true or false, got 3",
        "runtime_options.session.no_such": problems["runtime_options.session.no_such"],
    }
    assert problems["runtime_options.session.no_such"].endswith('has no option of this name; got "1"')
    problems = _problems("openvino", {"PERFORMANCE_HINT": "FAST", "NUM_STREAM": 2, "ENABLE_CPU_PINNING": False})
    assert list(problems) == ["runtime_options.PERFORMANCE_HINT", "runtime_options.NUM_STREAM"]
    assert problems["runtime_options.PERFORMANCE_HINT"].startswith('openvino refuses "FAST": Wrong value FAST')
    assert problems["runtime_options.NUM_STREAM"].endswith("did you mean NUM_STREAMS?")


@pytest.mark.long
@needs_runtimes
@pytest.mark.filterwarnings("default")  # of the exporter
def test_the_options_reach_the_session_and_a_precision_that_the_processor_lacks_is_none(
    tiny_classifier: Path, tmp_path: Path
) -> None:
    import openvino

    file = tmp_path / "optimized.onnx"
    options = {"optimized_model_filepath": str(file), "graph_optimization_level": "ORT_DISABLE_ALL"}
    proof = _set_up(tiny_classifier, Variant(runtime="onnxruntime", exports=str(tmp_path), options=options))
    assert proof.runtime == "onnxruntime"
    assert file.stat().st_size > 0
    types = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    for precision, name in (("bfloat16", "BF16"), ("float16", "FP16")):
        variant = Variant(precision, runtime="openvino", exports=str(tmp_path), falls_back=True, cosine=0.99)
        proof = _set_up(tiny_classifier, variant)
        assert proof.precision == (precision if name in types else "float32"), proof.note
        if name not in types:
            assert "on this processor it computes in " in proof.note


@pytest.mark.long
@needs_runtimes
@pytest.mark.filterwarnings("default")  # of the exporter
def test_openvino_binds_no_thread_to_a_core_that_another_worker_has_too(
    tiny_classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import openvino

    models: list[Any] = []
    compile_model = openvino.Core.compile_model

    def keep(*arguments: Any, **options: Any) -> Any:
        models.append(compile_model(*arguments, **options))
        return models[-1]

    monkeypatch.setattr(openvino.Core, "compile_model", keep)
    assert _set_up(tiny_classifier, Variant(runtime="openvino", exports=str(tmp_path))).runtime == "openvino"
    assert {model.get_property("ENABLE_CPU_PINNING") for model in models} == {False}


def test_the_worker_gets_the_options_and_the_checks_that_expect_an_answer() -> None:
    checks = {
        "greets": {"body": {"input": "hello"}},
        "by path": {"path": "/v1/embeddings", "body": {"input": "hello"}},
        "too long": {"body": {"input": "x " * 1000}, "status": 400},
        "tensors": {"path": "/v2/models/m/infer"},
    }
    model = _model("onnxruntime", {"enable_mem_pattern": False}, checks=checks)
    variant = variant_of(model, None)
    assert variant.options == {"enable_mem_pattern": False}
    assert [check["name"] for check in variant.checks] == ["greets", "by path"]
    assert variant.checks[0] == {"name": "greets", "body": {"input": "hello"}, "file": None}


def _model(runtime: str, options: dict[str, Any], **settings: Any) -> LitServeModel:
    base = {"engine": "litserve", "api": "embedding", "source": "all-minilm-l6-v2", "runtime": runtime}
    return LitServeModel.model_validate({**base, "runtime_options": options, **settings})


def _problems(runtime: str, options: dict[str, Any]) -> dict[str, str]:
    return dict(LITSERVE.check_model(_model(runtime, options)))


def _set_up(folder: Path, variant: Variant) -> Any:
    api = EmbeddingAPI(str(folder))
    export_hook.attach(api, variant)
    api.setup("cpu")
    return api.equality
