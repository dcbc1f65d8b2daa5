"""What the harness knows of an engine comes from the engine's kind; an engine need not bring anything."""

import json
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field

from benchmarks.analysis.breakdown import Counters, Row, break_down
from benchmarks.analysis.layer import Layer, Owner
from benchmarks.load.request import COMPLETIONS, EMBEDDINGS, Endpoint
from benchmarks.load.workload import Item
from benchmarks.rungs import litserve, llamacpp, vllm
from benchmarks.rungs.bare.rung import BareRung
from benchmarks.rungs.base import Rung
from benchmarks.rungs.context import RungContext
from benchmarks.rungs.factory import RungFactory
from benchmarks.rungs.harness import EngineHarness, harness_of, row_readers
from benchmarks.rungs.server.rung import ServerRung
from clients.record import RequestRecord
from configs.errors import UserError
from configs.settings import Bench, LitportSettings, LitServeModel, LlamaCppModel, ModelSettings, Server, VllmModel
from servers.engines import allocator, registry
from servers.engines.kind import EngineKind


class ThirdModel(ModelSettings):
    engine: Literal["third"] = Field(description="What runs the model.")


class ThirdLayer(Layer):
    WORK = "third.work", "work", Owner.MODEL


def read_third(counters: Counters, inner_s: float, hop: Layer) -> list[Row] | None:
    return [Row(hop, 0.0), Row(ThirdLayer.WORK, inner_s)] if "third_seconds" in counters else None


def make_third(context: RungContext, rung: str) -> Rung:
    return context.server(rung, ["third"], 1, Endpoint("json", "/"))


HARNESS = EngineHarness(rungs=("alone", "litport"), make=make_third, read_rows=read_third)
THIRD = ThirdModel(engine="third")


def no_engine(*_: object) -> None:
    raise AssertionError("no engine is made for a benchmark")


@pytest.fixture(params=[None, f"{__name__}:HARNESS"], ids=["without", "with"])
def third(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Registers a third engine, without and with a harness object of its own."""
    reference: str | None = request.param
    kind = EngineKind(ThirdModel, no_engine, harness=reference)  # type: ignore[arg-type] # it makes none
    monkeypatch.setitem(registry._KINDS, "third", kind)
    return reference


def factory(folder: Path, rungs: list[str]) -> RungFactory:
    models: Any = {"m": THIRD}
    settings = LitportSettings.model_construct(models=models, bench=Bench.model_construct(rungs=rungs))
    return RungFactory(RungContext(settings, "m", None, folder), harness_of(THIRD))


def test_an_engine_brings_its_harness_object_or_none(third: str | None) -> None:
    harness = harness_of(THIRD)
    assert tuple(harness.rungs) == (("alone", "litport") if third else ("litport",))
    assert harness.workload(THIRD) == "example"
    assert harness.endpoint(THIRD, "m") == Endpoint("json", "/predict/m")
    assert (read_third in row_readers()) is (third is not None)


def test_the_series_of_an_engine_are_rows_where_it_says_so(third: str | None) -> None:
    record = RequestRecord(index=0, scheduled_s=0.0, sent_s=0.0, end_s=2.0)
    found = break_down([record], {"third_seconds": 1.0}, None, row_readers())
    assert [row.layer.label for row in found.rows][1:] == (
        ["network, accept, client read", "work"] if third else ["server"]
    )


def test_its_rungs_are_made_by_name_and_an_unknown_one_is_named(tmp_path: Path, third: str | None) -> None:
    url = "http://127.0.0.1:9"
    (somebody,) = factory(tmp_path, [url]).rungs([Item(0)])
    assert isinstance(somebody, ServerRung)
    assert (somebody.name, somebody.command, somebody.endpoint.path) == (url, None, "/predict/m")
    names = "alone, litport" if third else "litport"
    with pytest.raises(UserError, match=rf"^bench\.rungs: expected {names} or a URL for the model 'm', got vllm$"):
        factory(tmp_path, ["vllm"]).rungs([])
    if third:
        (alone,) = factory(tmp_path, ["alone"]).rungs([])
        assert isinstance(alone, ServerRung)
        assert alone.command == (["third"], {})


def test_a_url_that_names_a_route_takes_the_models_usual_workload(tmp_path: Path) -> None:
    def rungs(url: str) -> list[Rung]:
        model = VllmModel(engine="vllm", source="m")
        settings = LitportSettings.model_construct(models={"m": model}, bench=Bench(rungs=[url]))
        return RungFactory(RungContext(settings, "m", None, tmp_path), harness_of(model)).rungs([])

    (somebody,) = rungs("http://h/predict/m")
    assert isinstance(somebody, ServerRung)
    assert somebody.endpoint == Endpoint("causal_lm", "/predict/m", "lines")
    with pytest.raises(UserError, match=r"^bench\.workload\.kind: expected one of chat, file for .*, got tokens"):
        rungs("http://h/v1/chat/completions")


@pytest.mark.parametrize(
    ("model", "workload", "endpoint"),
    [
        (VllmModel(engine="vllm", source="m"), "tokens", COMPLETIONS),
        (LlamaCppModel(engine="llamacpp", source="m.gguf"), "tokens", COMPLETIONS),
        (LlamaCppModel(engine="llamacpp", source="m.gguf", args={"embeddings": True}), "tokens", EMBEDDINGS),
        (LitServeModel(engine="litserve", api="embedding"), "tokens", EMBEDDINGS),
        (LitServeModel(engine="litserve", api="image_classification"), "images", Endpoint("image", "/predict/m")),
        (LitServeModel(engine="litserve", api="echo"), "example", Endpoint("json", "/predict/m")),
        (LitServeModel(engine="litserve", api="echo", stream=True), "example", Endpoint("json", "/predict/m", "lines")),
    ],
)
def test_a_model_has_its_usual_workload_and_endpoint(model: ModelSettings, workload: str, endpoint: Endpoint) -> None:
    harness = harness_of(model)
    assert harness is {"vllm": vllm, "llamacpp": llamacpp, "litserve": litserve}[model.engine].HARNESS
    assert (harness.workload(model), harness.endpoint(model, "m")) == (workload, endpoint)


def test_the_runtimes_of_a_model_are_rungs(tmp_path: Path) -> None:
    names = ["model-batched", "model[onnxruntime]", "model[openvino-bfloat16]"]
    model = LitServeModel(engine="litserve", api="embedding", accelerator="cpu")
    settings = LitportSettings.model_construct(
        models={"m": model}, bench=Bench(rungs=names), server=Server(cache_dir=tmp_path)
    )
    rungs = RungFactory(RungContext(settings, "m", tmp_path, tmp_path), harness_of(model)).rungs([])
    specs = [rung.spec.get("variant", {}) for rung in rungs if isinstance(rung, BareRung)]
    assert [(spec.get("runtime"), spec.get("precision")) for spec in specs] == [
        (None, None),
        ("onnxruntime", "float32"),
        ("openvino", "bfloat16"),
    ]
    assert specs[1]["exports"] == str(tmp_path / "exports" / "m")
    with pytest.raises(ValueError, match=r"expected .* model\[RUNTIME\]"):
        Bench(rungs=["model[tensorrt]"])


def test_llama_cpps_own_server_is_the_rung_below_litport(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (program := tmp_path / "llama-server").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    model = LlamaCppModel(engine="llamacpp", source="m.gguf", args={"parallel": 16}, env={"LLAMA_LOG_COLORS": "0"})
    context = RungContext(LitportSettings.model_construct(models={"m": model}, bench=Bench()), "m", Path("m"), tmp_path)
    bare, served = RungFactory(context, harness_of(model)).rungs([])
    assert (bare.name, served.name) == ("llamacpp", "litport")
    assert isinstance(bare, ServerRung)
    assert bare.command is not None
    argv, environ = bare.command
    assert argv[:5] == [str(program), "--model", "m", "--alias", "m"]
    assert argv[argv.index("--host") + 1] == "127.0.0.1"
    assert bare.url.endswith(f":{argv[-1]}")
    assert environ.items() >= {"OMP_WAIT_POLICY": "passive", "LLAMA_LOG_COLORS": "0"}.items()


def test_rungs_without_litport_have_its_allocator_and_the_stores_exports(tmp_path: Path) -> None:
    model = LitServeModel(engine="litserve", api="embedding", accelerator="cpu", runtime="openvino")
    settings = LitportSettings.model_construct(
        models={"m": model}, bench=Bench(rungs=["model", "fastapi", "litserve"]), server=Server(cache_dir=tmp_path)
    )
    bare, naive, plain = RungFactory(RungContext(settings, "m", tmp_path, tmp_path), harness_of(model)).rungs([])
    assert isinstance(bare, BareRung)
    environs = [bare.environ]
    for server in (naive, plain):
        assert isinstance(server, ServerRung)
        assert server.command is not None
        environs.append(server.command[1])
    assert all(environ.items() >= allocator.environ().items() for environ in environs)
    (spec,) = tmp_path.glob("litserve-*.json")
    assert json.loads(spec.read_text())["variant"]["exports"] == str(tmp_path / "exports" / "m")
