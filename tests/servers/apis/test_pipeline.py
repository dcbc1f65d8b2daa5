import base64
import io
import shutil
import wave
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from servers.apis.pipeline import PipelineAPI, PipelineRequest, to_json
from servers.apis.rejection import Rejection
from tests.servers.conftest import Serve
from tests.servers.engines.litserve.child import Child


@pytest.fixture(scope="module")
def child(serve: Serve, tiny_classifier: Path) -> Child:
    init = {"task": "text-classification"}
    return serve(api="pipeline", model_dir=str(tiny_classifier), init=init, max_batch_size=4, batch_timeout=0.02)


@pytest.fixture(scope="module")
def expected(tiny_classifier: Path) -> Any:
    from transformers import pipeline

    return pipeline("text-classification", model=str(tiny_classifier), device="cpu")


def test_answers_are_the_pipelines_own(child: Child, expected: Any) -> None:
    assert child.predict(inputs="hello").json() == pytest.approx(expected("hello")[0])
    many = child.predict(inputs=["a", "b c"]).json()
    assert many == [pytest.approx(answer) for answer in expected(["a", "b c"])]
    assert child.predict(inputs="x", parameters={"top_k": 2}).json() == [
        pytest.approx(answer) for answer in expected("x", top_k=2)
    ]


def test_requests_with_other_parameters_and_broken_ones_share_a_batch(child: Child) -> None:
    bodies = [{"inputs": "a"}, {"inputs": "a", "parameters": {"top_k": 2}}, {"inputs": 5}] * 4
    with ThreadPoolExecutor(len(bodies)) as pool:
        answers = list(pool.map(lambda body: child.predict(**body), bodies))
    assert [answer.status_code for answer in answers] == [200, 200, 400] * 4
    assert [len(answer.json()) for answer in answers[1::3]] == [2] * 4
    assert "cannot use these inputs" in answers[2].text


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"input": "a"}, "inputs"),
        ({"inputs": "a", "parameters": []}, "parameters"),
        ({"inputs": "a", "parameters": {"num_workers": 4}}, "parameters: num_workers cannot be set by a request"),
        ({"inputs": "a", "parameters": {"custom_generate": "a/b"}}, "custom_generate cannot be set"),
    ],
)
def test_a_body_that_does_not_fit_is_told_before_the_model_runs(child: Child, body: dict[str, Any], says: str) -> None:
    answer = child.predict(**body)
    assert answer.status_code == 422
    assert says in answer.text


def test_settings_may_let_more_parameters_through(tiny_classifier: Path) -> None:
    api = PipelineAPI("text-classification", str(tiny_classifier), client_parameters=["padding"])
    api.setup("cpu")
    request = PipelineRequest(inputs="a", parameters={"padding": True})
    assert api.encode_response(api.predict(api.decode_request(request)))["label"].startswith("LABEL_")


def test_pictures_come_as_base64_and_never_as_a_path_or_an_address(tiny_vit: Path, tmp_path: Path) -> None:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (40, 40), "red").save(buffer, format="PNG")
    picture = tmp_path / "picture.png"
    picture.write_bytes(buffer.getvalue())
    text = base64.b64encode(buffer.getvalue()).decode()
    api = PipelineAPI("image-classification", str(tiny_vit), max_batch_size=2)
    api.setup("cpu")
    one, two = api.predict([api.decode_request(PipelineRequest(inputs=each)) for each in (text, [text])])
    assert one == two[0]
    assert len(one) == 5
    for inputs in (str(picture), "http://localhost/a.png", {"images": str(picture)}, {"image": str(picture)}, [[text]]):
        assert isinstance(api.decode_request(PipelineRequest(inputs=inputs)), Rejection)


def test_features_come_as_plain_numbers(tiny_classifier: Path) -> None:
    api = PipelineAPI("feature-extraction", str(tiny_classifier))
    api.setup("cpu")
    (features,) = api.encode_response(api.predict(api.decode_request(PipelineRequest(inputs="abc"))))
    assert [len(token) for token in features] == [32, 32, 32]


def test_a_task_that_cannot_be_served_is_refused_at_the_start(tiny_vit: Path) -> None:
    with pytest.raises(KeyError, match="Unknown task image-clasification"):
        PipelineAPI("image-clasification", str(tiny_vit)).setup("cpu")
    with pytest.raises(ValueError, match="videos are not supported"):
        PipelineAPI("video-classification", str(tiny_vit)).setup("cpu")


def test_a_wav_file_becomes_samples_at_its_own_rate() -> None:
    import numpy as np

    from servers.apis.pipeline import _sound

    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(np.array([[0, 16384], [-32768, -32768]], dtype="<i2").tobytes())
    sound = _sound(base64.b64encode(buffer.getvalue()).decode())
    assert sound["sampling_rate"] == 16_000
    assert sound["raw"].tolist() == [0.25, -1.0]


def test_results_of_any_kind_become_json() -> None:
    import numpy as np
    import torch
    from PIL import Image

    value = to_json({"a": np.float32(0.5), "b": (torch.ones(2), "c"), 1: Image.new("RGB", (1, 1)), "n": None})
    assert value["a"] == 0.5
    assert value["b"] == [[1.0, 1.0], "c"]
    assert value["1"].startswith("data:image/png;base64,")
    assert value["n"] is None


def test_the_features_of_a_text_do_not_depend_on_those_beside_it(tiny_classifier: Path) -> None:
    api = PipelineAPI("feature-extraction", str(tiny_classifier), max_batch_size=4)
    api.setup("cpu")
    bodies = [PipelineRequest(inputs=inputs) for inputs in ("cat", "a longer text than that", ["cat", "a cat sat"])]
    calls = [api.decode_request(body) for body in bodies]
    together = api.predict(calls)
    alone = [api.predict([call])[0] for call in calls]
    assert [len(rows[0]) for rows in (together[0], *together[2])] == [3, 3, 9]
    for answer, other in zip(together, alone, strict=True):
        assert to_json(answer) == to_json(other)


def test_what_a_model_cannot_read_is_the_callers_mistake(tiny_classifier: Path, tmp_path: Path) -> None:
    from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_classifier)
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=40, **sizes)
    BertForMaskedLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    api = PipelineAPI("fill-mask", str(tmp_path))
    api.setup("cpu")
    for inputs, parameters, words in (
        ("no mask", {}, "mask_token"),
        ("<mask>" + "x" * 50, {}, "inputs: this model takes at most 40 tokens, item 0 has 51; shorten or split it"),
        ("<mask>", {"top_k": 1000}, "parameters.top_k: expected at most 258, the model's tokens, got 1000"),
        ("<mask>", {"top_k": 0}, "parameters.top_k: expected a whole number of 1 or more, got 0"),
        ("<mask>", {"top_k": "x"}, 'got "x"'),
    ):
        call = api.decode_request(PipelineRequest(inputs=inputs, parameters=parameters))
        answer = call if isinstance(call, Rejection) else api.predict(call)
        assert isinstance(answer, Rejection)
        assert words in answer.detail
    ((_, example),) = api.export_modules()
    assert example["input_ids"].shape[0] == 2


def test_weights_of_16_bits_are_computed_in_float32(tiny_classifier: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    shutil.copytree(tiny_classifier, tmp_path, dirs_exist_ok=True)
    AutoModelForSequenceClassification.from_pretrained(tiny_classifier, dtype=torch.bfloat16).save_pretrained(tmp_path)
    for options, dtype in (({}, torch.float32), ({"dtype": "bfloat16"}, torch.bfloat16)):
        api = PipelineAPI("text-classification", str(tmp_path), pipeline_kwargs=options)
        api.setup("cpu")
        assert api._pipeline.model.dtype == dtype
