"""The hook of plug-ins, with a runtime that a test plays: what is proved serves, what is broken never does."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import litserve
import pytest

from configs.errors import UserError
from servers.apis import export_hook, exports, registry, runtimes
from servers.apis.equality import Variant

FALLS_BACK = Variant(runtime="onnxruntime", falls_back=True)


class Plugin(litserve.LitAPI):  # type: ignore[misc] # litserve ships no complete types
    def setup(self, device: str) -> None:
        import torch

        torch.manual_seed(0)
        self.words = torch.nn.EmbeddingBag(50, 8)
        self.head = torch.nn.Linear(8, 8)

    def export_modules(self) -> Any:
        import torch

        ids = torch.arange(20).reshape(2, 10)
        return [(self.words, {"input": ids}), (self.head, {"input": torch.rand(2, 8)})]


def exact(module: Any, values: Mapping[str, Any]) -> Any:
    return module(**values)


def wrong_weights(module: Any, values: Mapping[str, Any]) -> Any:
    return module(**values).flip(-1)


def fixed_batch(module: Any, values: Mapping[str, Any]) -> Any:
    return module(**values)[:2]


def refuses_batches(module: Any, values: Mapping[str, Any]) -> Any:
    if len(values["input"]) != 2:
        raise RuntimeError("Got invalid dimensions: expected 2")
    return module(**values)


def wrong_scale(module: Any, values: Mapping[str, Any]) -> Any:
    return module(**values) * 1.5


def not_finite(module: Any, values: Mapping[str, Any]) -> Any:
    return module(**values) / 0


Behaviour = Callable[[Any, Mapping[str, Any]], Any]
BROKEN: Mapping[Behaviour, str] = {
    wrong_weights: r"against float32 on 18 inputs: cosine -?0.*; expected cosine >= 0\.999",
    fixed_batch: "failed: RuntimeError",
    refuses_batches: "failed: RuntimeError: Got invalid dimensions: expected 2",
    wrong_scale: "answers up to 50% too large or small, expected 10%",
    not_finite: "cosine not finite",
}


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[[Behaviour], None]:
    """Have onnxruntime behave like this; nothing is exported."""
    import copy

    import torch

    def start(behaviour: Behaviour) -> None:
        twins: list[Any] = []

        def export(_root: Path, _name: str, module: Any, _inputs: Any) -> Path:
            twins.append(copy.deepcopy(module))
            return Path()

        def open_session(_file: Path, _variant: Variant) -> Any:
            twin = twins[-1]

            def run(values: Mapping[str, Any]) -> Sequence[Any]:
                return [behaviour(twin, {name: torch.from_numpy(value) for name, value in values.items()}).numpy()]

            return run

        monkeypatch.setattr(runtimes, "problem", lambda _: None)
        monkeypatch.setattr(exports, "export", export)
        monkeypatch.setattr(runtimes, "_onnxruntime", open_session)

    return start


def test_the_modules_of_a_plugin_are_replaced_once_they_are_proved(play: Callable[[Behaviour], None]) -> None:
    import torch

    play(exact)
    plugin: Any = Plugin()
    export_hook.attach(plugin, Variant(runtime="onnxruntime"))
    plugin.setup("cpu")
    proof = plugin.equality
    assert (proof.runtime, proof.precision, proof.inputs) == ("onnxruntime", "float32", 18)
    assert proof.cosine == pytest.approx(1)
    eager: Any = Plugin()
    eager.setup("cpu")
    pixels = torch.rand(7, 8)
    with torch.inference_mode():
        assert torch.allclose(plugin.head(pixels), eager.head(pixels))
        assert torch.allclose(plugin.head(input=pixels), eager.head(pixels))
        with pytest.raises(TypeError, match="exported with the inputs"):
            plugin.words(torch.ones(2, 3, dtype=torch.long), torch.zeros(2, dtype=torch.long))
    assert plugin.head.weight.numel() == 0  # torch's own weights take no memory


@pytest.mark.parametrize("behaviour", BROKEN)
def test_a_broken_export_never_takes_traffic(play: Callable[[Behaviour], None], behaviour: Behaviour) -> None:
    import torch

    play(behaviour)
    plugin: Any = Plugin()
    export_hook.attach(plugin, Variant(runtime="onnxruntime"))
    with pytest.raises(UserError, match=BROKEN[behaviour]):
        plugin.setup("cpu")
    export_hook.attach(plugin, FALLS_BACK)
    with torch.inference_mode():
        plugin.setup("cpu")
        eager: Any = Plugin()
        eager.setup("cpu")
        assert torch.equal(plugin.head(torch.ones(3, 8)), eager.head(torch.ones(3, 8)))
    assert (plugin.equality.runtime, plugin.equality.precision) == ("eager", "float32")
    assert plugin.equality.note.startswith("float32, since onnxruntime float32")


class Answering(Plugin):
    """A plug-in with the methods that answer a request."""

    def decode_request(self, request: Any) -> Any:
        import torch

        return torch.tensor(request["ids"])

    def predict(self, x: Any) -> Any:
        return self.head(self.words(x)).tolist()


def test_the_calls_by_which_a_plugin_answers_its_checks_are_part_of_the_proof(
    play: Callable[[Behaviour], None], caplog: pytest.LogCaptureFixture
) -> None:
    def wrong_for_large_ids(module: Any, values: Mapping[str, Any]) -> Any:
        answer = module(**values)
        return answer.flip(-1) if not values["input"].is_floating_point() and values["input"].max() > 40 else answer

    def check(name: str, body: Any) -> dict[str, Any]:
        return {"name": name, "body": body, "file": None}

    checks = [check("small", {"ids": [[1, 2, 3]]}), check("no request", {"text": "a"})]
    play(wrong_for_large_ids)
    plugin: Any = Answering(max_batch_size=1)
    export_hook.attach(plugin, Variant(runtime="onnxruntime", checks=checks))
    plugin.setup("cpu")
    assert " on 20 inputs, 2 of them of checks: cosine " in plugin.equality.note
    assert "check 'no request' is no part of the proof, only asked at the start: KeyError" in caplog.text
    export_hook.attach(plugin, Variant(runtime="onnxruntime", checks=[*checks, check("large", {"ids": [[48, 49]]})]))
    with pytest.raises(UserError, match=r"on 22 inputs, 4 of them of checks: .* \(not so for the checks: large\)"):
        plugin.setup("cpu")


def test_an_export_that_raises_gives_way_to_eager_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    def export(*_: Any) -> Path:
        raise OSError("no space left")

    monkeypatch.setattr(runtimes, "problem", lambda _: None)
    monkeypatch.setattr(exports, "export", export)
    plugin: Any = Plugin()
    export_hook.attach(plugin, FALLS_BACK)
    plugin.setup("cpu")
    assert plugin.equality.note == "float32, since onnxruntime float32 failed: OSError: no space left"
    assert plugin.equality.cosine is None


def test_a_plugin_whose_modules_do_not_take_other_numbers_of_rows_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fixed(Plugin):
        def export_modules(self) -> Any:
            import torch

            return [(torch.nn.Unflatten(0, (2, 1)), {"input": torch.rand(2, 8)})]

    monkeypatch.setattr(runtimes, "problem", lambda _: None)
    plugin: Any = Fixed()
    export_hook.attach(plugin, FALLS_BACK)
    with pytest.raises(UserError, match=r"does not take its example inputs in \(1, 3, 5\) rows"):
        plugin.setup("cpu")


def test_no_row_of_the_proof_is_hidden_by_its_mask() -> None:
    import torch

    mask = torch.tensor([[1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0, 0, 0]])
    shapes = []
    for variation in export_hook._vary({"attention_mask": mask, "pixels": torch.rand(2, 3, 4)}):
        shapes.append([tuple(tensor.shape) for tensor in variation.values()])
        assert bool(variation["attention_mask"].any(dim=1).all())
    assert shapes == [[(1, 7), (1, 3, 4)], [(3, 5), (3, 3, 4)], [(5, 5), (5, 3, 4)]]


def test_whether_a_plugin_has_the_hook_is_read_from_its_source(tmp_path: Path) -> None:
    file = tmp_path / "hooks.py"
    file.write_text(
        "import litserve as ls\n"
        "class With(ls.LitAPI):\n    def export_modules(self):\n        return []\n"
        "class Heir(With):\n    pass\n"
        "class Without(ls.LitAPI):\n    pass\n"
    )
    names = ("With", "Heir", "Without")
    answers = [registry.has_method(f"{file}:{name}", export_hook.HOOK) for name in names]
    assert answers == [True, True, False]
