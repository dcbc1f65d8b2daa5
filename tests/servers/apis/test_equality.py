"""The proof on tiny models: what it lets serve, and what it does not."""

import base64
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from configs.errors import UserError
from servers.apis import efficientnet_lite, equality
from servers.apis.embedding import EmbeddingAPI
from servers.apis.equality import Variant
from servers.apis.image_classification import ImageClassificationAPI
from servers.apis.selection import select
from tests.servers.engines.litserve.child import end, launch

BFLOAT16 = Variant("bfloat16")


@pytest.fixture(scope="module")
def fragile(tiny_classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT whose word vectors differ by less than bfloat16 tells apart."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("fragile") / "model"
    shutil.copytree(tiny_classifier, folder)
    weights = load_file(folder / "model.safetensors")
    weights["bert.embeddings.word_embeddings.weight"] += 100
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_an_encoder_in_bfloat16_serves_once_it_is_proved(tiny_classifier: Path) -> None:
    api = _set_up(EmbeddingAPI, tiny_classifier, BFLOAT16)
    assert (proof := api.equality) is not None
    assert (proof.precision, proof.inputs, proof.top1) == ("bfloat16", len(equality.TEXTS), None)
    assert 0.999 <= proof.cosine < 1  # it was computed otherwise
    assert str(next(api._encoder.model.parameters()).dtype) == "torch.bfloat16"


def test_a_classifier_in_bfloat16_serves_once_it_is_proved(tiny_vit: Path) -> None:
    api = _set_up(ImageClassificationAPI, tiny_vit, Variant("bfloat16", top1=0.5))
    assert (proof := api.equality) is not None
    assert (proof.precision, proof.inputs) == ("bfloat16", 24)
    assert 0.99 <= proof.cosine < 1


def test_eager_float32_needs_no_proof(tiny_classifier: Path) -> None:
    assert _set_up(EmbeddingAPI, tiny_classifier, Variant()).equality is None


def test_an_encoder_that_bfloat16_breaks_is_refused_or_serves_in_float32(fragile: Path) -> None:
    with pytest.raises(
        UserError, match=r"bfloat16 against float32 on 12 inputs: cosine 0\.\d+; expected cosine >= 0\.999"
    ):
        _set_up(EmbeddingAPI, fragile, BFLOAT16)
    api = _set_up(EmbeddingAPI, fragile, Variant("bfloat16", falls_back=True))
    assert api.equality.precision == "float32"
    assert api.equality.note.startswith("float32, since bfloat16 against float32")
    assert str(next(api._encoder.model.parameters()).dtype) == "torch.float32"
    assert _set_up(EmbeddingAPI, fragile, Variant("bfloat16", cosine=0)).equality.precision == "bfloat16"


@pytest.mark.long
def test_a_model_that_fails_the_proof_never_takes_traffic_and_says_the_figures(fragile: Path, tmp_path: Path) -> None:
    process, log_file = launch(tmp_path, api="embedding", model_dir=str(fragile), variant={"precision": "bfloat16"})
    try:
        assert process.wait(timeout=60) == 3
    finally:
        end(process)
    last = log_file.read_text().splitlines()[-1]
    assert last.startswith("worker_host: error: api 'embedding': bfloat16 against float32 on 12 inputs: cosine 0.")
    assert not list(tmp_path.glob("*.equality"))


def test_wrong_weights_a_constant_class_and_numbers_that_are_none_are_refused() -> None:
    import torch

    weights = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    inputs = torch.randn(12, 64, generator=torch.Generator().manual_seed(1))
    constant = torch.zeros(64, 8)
    for broken in (weights.flip(0), constant, weights * float("nan")):
        models = {Variant(): weights, BFLOAT16: broken}
        for gate in ("cosine", "top1"):
            with pytest.raises(UserError, match=f"expected {gate} >="):
                select(BFLOAT16, gate, models.__getitem__, lambda model, _: inputs @ model)


def test_the_inputs_of_checks_are_part_of_the_proof(tiny_classifier: Path, tiny_vit: Path, tmp_path: Path) -> None:
    picture = equality.make_pictures()[3]
    picture.save(tmp_path / "noise.png")
    encoded = base64.b64encode((tmp_path / "noise.png").read_bytes()).decode()
    bodies = [{"input": ["one", "two"]}, {"input": [[5, 6]], "model": "m"}, {"image": encoded}, {"input": 5}, "text"]
    checks = [{"name": f"check {index}", "body": body, "file": None} for index, body in enumerate(bodies)]
    checks.append({"name": "upload", "body": {}, "file": str(tmp_path / "noise.png")})
    proof = _set_up(EmbeddingAPI, tiny_classifier, Variant("bfloat16", checks=checks)).equality
    assert proof.inputs == len(equality.TEXTS) + 3
    assert " on 15 inputs, 3 of them of checks: cosine 0.99" in proof.note
    proof = _set_up(ImageClassificationAPI, tiny_vit, Variant("bfloat16", top1=0.5, checks=checks)).equality
    assert " on 26 inputs, 2 of them of checks: same top-1" in proof.note


@pytest.mark.parametrize("gate", ["cosine", "top1"])
def test_a_variant_that_answers_one_check_otherwise_is_refused_by_the_name_of_the_check(gate: Any) -> None:
    import torch

    expected = torch.eye(4).repeat(3, 1)
    answers = expected.clone()
    answers[10] = expected[11]
    models = {Variant(): expected, BFLOAT16: answers}
    names = ["hello", "paris", "rome"]
    with pytest.raises(UserError, match=rf"expected {gate} >= .* \(not so for the checks: paris\)\."):
        select(BFLOAT16, gate, models.__getitem__, lambda rows, _: rows, 1, names)
    _, proof = select(
        Variant("bfloat16", falls_back=True), gate, lambda each: models[replace(each, falls_back=False)],
        lambda rows, _: rows, 1, names,
    )  # fmt: skip
    assert proof is not None
    assert proof.precision == "float32"


def test_float16_is_not_taken_for_a_cpu(tiny_classifier: Path, tiny_vit: Path) -> None:
    for api_class, folder in ((EmbeddingAPI, tiny_classifier), (ImageClassificationAPI, tiny_vit)):
        with pytest.raises(UserError, match="float16 failed: RuntimeError: in torch it is for a GPU"):
            _set_up(api_class, folder, Variant("float16"))
        proof = _set_up(api_class, folder, Variant("float16", falls_back=True)).equality
        assert (proof.variant, proof.precision) == ("float16", "float32")


def test_near_ties_do_not_count_where_the_surest_are_asked_for() -> None:
    import torch

    expected = torch.tensor([[5.0, 0.0], [0.0, 4.0], [1.0, 1.01], [1.01, 1.0]])
    answers = torch.tensor([[5.0, 0.0], [0.0, 4.0], [1.01, 1.0], [1.0, 1.01]])
    assert equality.compare(expected, answers)[1] == 0.5
    assert equality.compare(expected, answers, surest=4)[1] == 1
    assert equality.compare(expected, answers, surest=3)[1] == pytest.approx(2 / 3)  # the last row is of a check


def test_rows_of_zeros_equal_each_other_and_nothing_else() -> None:
    import torch

    rows = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    assert equality.compare(rows, rows)[0] == pytest.approx(1)
    for other in (rows * torch.tensor([[0.0], [1.0]]), rows + torch.tensor([[0.0, 0.0], [0.0, 1e-6]])):
        for pair in ((rows, other), (other, rows)):
            assert equality.compare(*pair)[0] == 0
    served, proof = _prove(rows, rows)
    assert (served is rows, proof.cosine) == (True, pytest.approx(1))
    for broken in (rows * torch.tensor([[2.0], [1.0]]), torch.ones(2, 2)):  # a zero row hides no other one
        with pytest.raises(UserError, match=r"too large or small|expected cosine"):
            _prove(rows, broken)


def _prove(expected: Any, answers: Any) -> Any:
    return select(BFLOAT16, "cosine", {Variant(): expected, BFLOAT16: answers}.__getitem__, lambda rows, _: rows)


def test_a_fused_norm_computes_the_same_function() -> None:
    import torch

    torch.manual_seed(0)
    model = efficientnet_lite.EfficientNetLite0(classes=10).eval()
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    pixels = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        expected = model(pixels)
        model.fuse()
        assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
        assert torch.allclose(model(pixels), expected, atol=1e-4)


def test_what_was_measured_is_read_as_it_was_written_and_can_be_removed(tmp_path: Path) -> None:
    card = tmp_path / "m.card.json"
    proof = equality.Equality("bfloat16", "float32", 12, None, None, "a note")
    assert equality.read(card) is None
    equality.write(proof, card)
    assert equality.read(card) == proof
    equality.remove(card)
    assert equality.read(card) is None


def _set_up(api_class: Callable[[str], Any], folder: Path, variant: Variant) -> Any:
    api = api_class(str(folder))
    api.variant = variant
    api.setup("cpu")
    return api
