import base64
import itertools
import json
import shutil
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import HTTPException
from litserve.specs.openai_embedding import Embedding, EmbeddingResponse, UsageInfo

from servers.apis import sentence_encoder
from servers.apis.embedding import EmbeddingAPI, EmbeddingSpec
from servers.apis.equality import Variant
from servers.apis.rejection import Rejection
from tests.servers.conftest import Serve
from tests.servers.engines.litserve.child import Child

TEXTS = ["A cat sat on the mat.", "Ein Kätzchen", "stock prices fell sharply on Monday after the bank's report", "!"]


@pytest.fixture(scope="module")
def folder(model_folder: Callable[[str], Path]) -> Path:
    return model_folder("all-minilm-l6-v2")


@pytest.fixture(scope="module")
def child(serve: Serve, folder: Path) -> Child:
    return serve(api="embedding", model_dir=str(folder), max_batch_size=8, batch_timeout=0.02)


@pytest.fixture(scope="module")
def expected(folder: Path) -> Any:
    """Vectors by transformers and a mean written out here, one text at a time, so without padding."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    with torch.inference_mode():
        hidden = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0] for text in TEXTS]
    return torch.stack([torch.nn.functional.normalize(each.mean(dim=0), dim=0) for each in hidden])


def test_vectors_are_those_of_transformers_and_a_mean(child: Child, expected: Any) -> None:
    import torch

    got = torch.tensor(_vectors(_ask(child, TEXTS)))
    assert torch.nn.functional.cosine_similarity(got, expected).min() >= 0.9999
    assert torch.allclose(got.norm(dim=1), torch.ones(len(TEXTS)), atol=1e-5)


def test_lists_are_taken_while_requests_are_batched(child: Child, expected: Any) -> None:
    import torch

    wanted = [[0], [1, 2], [3, 0, 1], [2], [0, 1, 2, 3], [3]] * 3
    with ThreadPoolExecutor(len(wanted)) as pool:
        answers = list(pool.map(lambda rows: _vectors(_ask(child, [TEXTS[row] for row in rows])), wanted))
    for rows, vectors in zip(wanted, answers, strict=True):
        assert torch.nn.functional.cosine_similarity(torch.tensor(vectors), expected[rows]).min() >= 0.9999


def test_usage_counts_the_tokens_that_the_model_read(child: Child, folder: Path) -> None:
    from transformers import AutoTokenizer

    tokens = sum(len(ids) for ids in AutoTokenizer.from_pretrained(folder)(TEXTS)["input_ids"])
    assert _ask(child, TEXTS).json()["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


def test_token_ids_are_one_input_and_a_list_of_them_is_many(child: Child, folder: Path) -> None:
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(folder)(TEXTS[0])["input_ids"]
    as_text = _vectors(_ask(child, TEXTS[0]))
    assert _vectors(_ask(child, ids))[0] == pytest.approx(as_text[0], abs=1e-5)
    assert len(_vectors(_ask(child, [ids, ids[:3], ids[:1]]))) == 3


def test_base64_and_fewer_dimensions_are_the_same_vector_packed_and_cut(child: Child) -> None:
    whole = _vectors(_ask(child, TEXTS[0]))[0]
    length = sum(number**2 for number in whole[:16]) ** 0.5
    packed = _ask(child, TEXTS[0], dimensions=16, encoding_format="base64").json()["data"][0]["embedding"]
    assert struct.unpack("<16f", base64.b64decode(packed)) == pytest.approx([n / length for n in whole[:16]], abs=1e-5)


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"input": ""}, 422, "input"),
        ({"input": []}, 422, "expected 1 to 2048 inputs, got 0"),
        ({"input": ["a", ""]}, 422, "item 1 is empty"),
        ({"input": [[]]}, 422, "item 0 is empty"),
        ({}, 422, "input"),
        ({"input": "a", "dimensions": 0}, 422, "dimensions"),
        ({"input": "a", "dimensions": 999}, 400, "dimensions: this model has 384, got 999"),
        ({"input": ["a", "b " * 300]}, 400, "at most 256 tokens, item 1 has 302"),
        ({"input": [30522]}, 400, "must lie in 0..30521"),
    ],
)
def test_what_cannot_be_embedded_is_the_clients_error(
    child: Child, body: dict[str, Any], status: int, says: str
) -> None:
    answer = child.http.post("/v1/embeddings", json={"model": "m", **body})
    assert answer.status_code == status
    assert says in answer.text


def test_a_refused_request_does_not_fail_its_neighbours_in_the_batch(child: Child) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda index: _ask(child, "a " * 300 if index % 2 else "a").status_code, range(16))
    assert list(answers) == [200, 400] * 8


def test_an_unknown_pooling_is_refused_rather_than_guessed(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text(json.dumps([{"type": "a.Transformer", "path": ""}, {"type": "a.Dense"}]))
    with pytest.raises(ValueError, match=r"asks for Dense, which is not supported"):
        sentence_encoder.from_folder(tmp_path, "cpu", Variant(), 8)
    (tmp_path / "modules.json").write_text(json.dumps([{"type": "a.Pooling", "path": "1"}]))
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(ValueError, match=r"expected mean or cls pooling"):
        sentence_encoder.from_folder(tmp_path, "cpu", Variant(), 8)


def test_cls_pooling_takes_the_first_token(tiny_classifier: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModel

    folder = tmp_path / "cls"
    shutil.copytree(tiny_classifier, folder)
    (folder / "modules.json").write_text(json.dumps([{"type": "a.Pooling", "path": ""}]))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "pooling_mode_cls_token": True}))
    encoder = sentence_encoder.from_folder(folder, "cpu", Variant(), forward_size=2)
    sequences = [[5, 6, 7], [8], [9, 10], [11, 12, 13, 14]]
    with torch.inference_mode():
        model = AutoModel.from_pretrained(folder)
        expected = torch.stack([model(torch.tensor([ids])).last_hidden_state[0, 0] for ids in sequences])
    assert torch.allclose(encoder.embed(sequences), expected, atol=1e-5)


def test_a_folder_may_ask_for_tuples_and_attentions_and_has_as_many_tokens_as_positions(
    tiny_classifier: Path, tmp_path: Path
) -> None:
    import torch
    from transformers import RobertaConfig, RobertaModel

    folder = tmp_path / "roberta"
    shutil.copytree(tiny_classifier, folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = RobertaConfig(vocab_size=300, max_position_embeddings=20, pad_token_id=1, **sizes)
    RobertaModel(config).save_pretrained(folder)
    answers = {"return_dict": False, "output_attentions": True}
    document = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**document, **answers}))
    encoder = sentence_encoder.from_folder(folder, "cpu", Variant(), forward_size=2)
    assert encoder.max_tokens == 18
    assert torch.isfinite(encoder.embed([[5] * 18, [7]])).all()


@pytest.mark.parametrize("lengths", [[7], [20] * 6, [10, 200], [5, 5, 5, 300], [10, 30, 42, 55, 62, 90], [1, 90, 91]])
@pytest.mark.parametrize("most", [2, 32])
@pytest.mark.parametrize("cost_of", [lambda count, longest: count * longest, lambda count, longest: count * longest**2])
def test_texts_are_grouped_as_costs_least(lengths: list[int], most: int, cost_of: Callable[[int, int], float]) -> None:
    def cost(groups: Sequence[tuple[int, int]]) -> float:
        return sum(32 + cost_of(end - begin, lengths[end - 1]) for begin, end in groups)

    count = len(lengths)
    cuts = [cut for size in range(count) for cut in itertools.combinations(range(1, count), size)]
    ways = [list(itertools.pairwise((0, *cut, count))) for cut in cuts]
    allowed = [way for way in ways if all(end - begin <= most for begin, end in way)]
    assert cost(sentence_encoder.forward_groups(lengths, most, 32, cost_of)) == min(map(cost, allowed))


def _ask(child: Child, value: Any, **options: Any) -> httpx.Response:
    return child.http.post("/v1/embeddings", json={"model": "m", "input": value, **options})


def _vectors(answer: httpx.Response) -> list[list[float]]:
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert [entry["index"] for entry in data] == list(range(len(data)))
    return [entry["embedding"] for entry in data]


def test_the_short_way_answers_as_the_endpoint_of_litserve() -> None:
    spec = EmbeddingSpec()
    response = {"embeddings": [[0.1, -2.5e-8, 1.0], [3.0, 0.25, 1e-3]], "prompt_tokens": 7, "total_tokens": 7}
    for encoding in ("float", "base64"):
        body = {"input": ["a", "b"], "model": "m", "encoding_format": encoding}
        request = EmbeddingSpec.request_type.model_validate(body)
        answer = json.loads(spec.render(request, response))
        rows = response["embeddings"]
        assert isinstance(rows, list)
        packed = [base64.b64encode(struct.pack("<3f", *row)).decode() for row in rows]
        data = [
            Embedding(index=index, embedding=row if encoding == "float" else packed[index])
            for index, row in enumerate(rows)
        ]
        expected = EmbeddingResponse(data=data, model="m", usage=UsageInfo(prompt_tokens=7, total_tokens=7))
        assert answer == json.loads(expected.model_dump_json())
    with pytest.raises(HTTPException, match="too long"):
        spec.render(request, Rejection("too long"))


def test_a_folder_that_asks_for_lower_case_gets_it(tiny_classifier: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_classifier, tmp_path, dirs_exist_ok=True)
    for lowers in (False, True):
        (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"do_lower_case": lowers, "max_seq_length": -1}))
        encoder = sentence_encoder.from_folder(tmp_path, "cpu", Variant(), forward_size=2)
        one, other = encoder.tokenize(["A Cat", "a cat"])
        assert (one == other) is lowers
        assert encoder.max_tokens == 128


def test_the_default_prompt_of_a_folder_stands_before_each_text(tiny_classifier: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_classifier, tmp_path, dirs_exist_ok=True)
    plain = sentence_encoder.from_folder(tmp_path, "cpu", Variant(), forward_size=2)
    file = tmp_path / "config_sentence_transformers.json"
    file.write_text(json.dumps({"prompts": {"query": "find: "}, "default_prompt_name": "query"}))
    prompted = sentence_encoder.from_folder(tmp_path, "cpu", Variant(), forward_size=2)
    assert prompted.tokenize(["a cat"]) == plain.tokenize(["find: a cat"])
    file.write_text(json.dumps({"prompts": {"query": "find: "}, "default_prompt_name": "text"}))
    with pytest.raises(ValueError, match=r"default_prompt_name: expected one of \['query'\], got 'text'"):
        sentence_encoder.from_folder(tmp_path, "cpu", Variant(), forward_size=2)


def test_a_forward_of_no_texts_is_refused() -> None:
    with pytest.raises(ValueError, match=r"init\.forward_size: expected a whole number of 1 or more, got 0"):
        EmbeddingAPI("nowhere", forward_size=0)
