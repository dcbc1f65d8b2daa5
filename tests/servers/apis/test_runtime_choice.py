"""`runtime: auto`: the fastest of what is proved is taken, kept and said."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from servers.apis import runtime_choice, runtimes, selection
from servers.apis.equality import Variant
from servers.apis.image_classification import ImageClassificationAPI
from servers.apis.runtime_choice import Answer, choose
from servers.apis.selection import select


class Clock:
    """Time that passes only where an answer takes it."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def takes(self, one_s: float, batch_s: float) -> Answer:
        def answer(size: int) -> None:
            self.now_s += one_s if size == 1 else batch_s

        return answer


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now_s)
    monkeypatch.setattr(time, "monotonic", lambda: clock.now_s)
    return clock


def test_the_fastest_at_one_and_at_the_largest_batch_is_taken_and_kept(clock: Clock, tmp_path: Path) -> None:
    attempts: list[str] = []

    def attempt(name: str) -> Answer | str:
        attempts.append(name)
        return {"eager": clock.takes(0.01, 0.04), "onnxruntime": clock.takes(0.005, 0.03)}.get(name, "openvino failed")

    names, record = ["eager", "onnxruntime", "openvino"], tmp_path / "exports" / "auto.json"
    choice = choose(names, 8, attempt, record)
    assert choice.runtime == "onnxruntime"
    assert choice.note == (
        "auto took onnxruntime; 1 at a time: eager 10 ms, onnxruntime 5 ms; "
        "8 at a time: eager 40 ms, onnxruntime 30 ms; openvino failed"
    )
    assert choose(names, 8, attempt, record) == choice
    assert len(attempts) == 3
    record.write_text("{")
    assert choose(names, 8, attempt, record) == choice
    assert choose(["eager"], 1, attempt, None).note == "auto took eager; 1 at a time: eager 10 ms"
    assert [path.name for path in record.parent.iterdir()] == ["auto.json"]


def test_a_runtime_whose_turn_comes_too_late_is_named_and_left_out(clock: Clock) -> None:
    def attempt(name: str) -> Answer:
        clock.now_s += runtime_choice.LIMIT_S + 1
        return clock.takes(1, 1)

    assert choose(["eager", "openvino"], 1, attempt, None).note == (
        "auto took eager; 1 at a time: eager 1e+03 ms; openvino not tried within 60 s"
    )


def test_auto_takes_no_runtime_that_is_not_proved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import torch

    weights = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    inputs = torch.randn(12, 64, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(runtimes, "usable", lambda _: ["onnxruntime", "openvino"])
    monkeypatch.setattr(selection, "version", lambda _: "1")

    def take(runtime: str) -> Callable[..., Any]:
        def choose(names: list[str], _size: int, attempt: Any, _record: Any) -> runtime_choice.Choice:
            outcomes = [outcome for outcome in map(attempt, names) if isinstance(outcome, str)]
            return runtime_choice.Choice(runtime, "; ".join(outcomes))

        return choose

    def load(variant: Variant) -> Any:
        return {"eager": weights, "onnxruntime": weights.flip(0), "openvino": weights.clone()}[variant.runtime]

    for runtime in ("openvino", "eager"):
        monkeypatch.setattr(runtime_choice, "choose", take(runtime))
        auto = Variant(runtime="auto", exports=str(tmp_path))
        model, proof = select(auto, "cosine", load, lambda model, _: inputs @ model, 8)
        assert proof is not None
        assert proof.runtime == runtime
        assert "onnxruntime float32 against float32 on 12 inputs: cosine" in proof.note
        assert (model is weights) == (runtime == "eager")


def test_auto_serves_pictures_in_the_precision_that_is_asked_for_and_all_workers_take_one_choice(
    tiny_vit: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(runtimes, "usable", lambda _: [])
    variant = Variant("bfloat16", top1=0.5, runtime="auto", exports=str(tmp_path))
    proofs = []
    for _worker in range(2):
        api = ImageClassificationAPI(str(tiny_vit), max_batch_size=2)
        api.variant = variant
        api.setup("cpu")
        proofs.append(api.equality)
        monkeypatch.setattr(runtime_choice, "_measure", None)  # the second one does not measure again
    first, second = proofs
    assert first is not None
    assert first == second
    assert (first.runtime, first.precision, first.inputs) == ("eager", "bfloat16", 24)
    assert first.note.startswith("bfloat16 against float32 on 24 inputs: same top-1")
    assert "; auto took eager; 1 at a time: eager " in first.note
    assert "; 2 at a time: eager " in first.note
