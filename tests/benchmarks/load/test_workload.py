"""What is asked of every rung: repeatable, as long as the settings say, in the form that a server takes."""

import io
import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.course import Course
from benchmarks.load.workload import Item, expected_hit_rate, make
from configs.bench import Bench, Workload
from configs.errors import UserError

QUESTIONS = ("Why is the sky blue?", "And the sea?", "What of the grass?")
SHAREGPT = [
    {"id": str(number), "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": "So."}]}
    for number, question in enumerate(QUESTIONS)
]
BATCH = [
    {"custom_id": str(number), "method": "POST", "body": {"messages": [{"role": "user", "content": question}]}}
    for number, question in enumerate(QUESTIONS)
]


def lines(documents: list[Any]) -> str:
    return "".join(json.dumps(document, ensure_ascii=False) + "\n" for document in documents)


def from_text(folder: Path, text: str, count: int, **more: Any) -> list[Item]:
    path = folder / "asked.jsonl"
    path.write_text(text, encoding="utf-8")
    return make(Workload(kind="file", path=path, **more), count, 0)


def asked(item: Item) -> str:
    messages = item.messages if item.body is None else item.body["messages"]
    assert messages is not None
    return str(messages[0]["content"])


def sizes(input_tokens: str, count: int = 2000) -> list[int]:
    made = make(Workload(input_tokens=input_tokens), count, 0)
    return [len(item.token_ids[0]) for item in made if item.token_ids]


@pytest.mark.parametrize("kind", ["tokens", "shared-prefix", "chat", "texts", "images"])
def test_the_same_seed_gives_the_same_items_and_another_gives_others(kind: Any) -> None:
    workload = Workload(kind=kind, input_tokens="uniform(4, 40)", output_tokens="uniform(4, 40)", prefix_tokens=8)
    assert make(workload, 10, 7) == make(workload, 10, 7)
    assert make(workload, 10, 7) != make(workload, 10, 8)
    assert make(workload, 4, 7) == make(workload, 10, 7)[:4]


def test_a_fixed_length_is_that_of_every_prompt_and_answer() -> None:
    made = make(Workload(input_tokens="17", output_tokens="5"), 20, 0)
    assert [len(item.token_ids[0]) for item in made if item.token_ids] == [17] * 20
    assert [item.output_tokens for item in made] == [5] * 20
    assert [item.index for item in made] == list(range(20))


def test_uniform_lengths_reach_both_bounds_and_no_further() -> None:
    found = sizes("uniform(8, 24)")
    assert (min(found), max(found)) == (8, 24)
    assert statistics.mean(found) == pytest.approx(16, rel=0.03)


def test_lognormal_lengths_have_the_median_and_the_spread_asked_for() -> None:
    found = sizes("lognormal(200, 0.5)")
    assert statistics.median(found) == pytest.approx(200, rel=0.05)
    assert statistics.stdev(map(math.log, found)) == pytest.approx(0.5, rel=0.1)
    assert min(sizes("lognormal(1, 2)")) == 1


def test_an_embedding_request_has_as_many_texts_as_asked_for() -> None:
    (item,) = make(Workload(input_tokens="6", inputs_per_request=3), 1, 0)
    assert item.token_ids is not None
    assert [len(text) for text in item.token_ids] == [6, 6, 6]
    assert len({tuple(text) for text in item.token_ids}) == 3


def test_prompts_with_shared_prefixes_begin_alike_and_go_on_otherwise() -> None:
    workload = Workload(kind="shared-prefix", prefixes=2, prefix_tokens=100, input_tokens="60")
    made = [item.token_ids[0] for item in make(workload, 8, 0) if item.token_ids]
    assert [len(ids) for ids in made] == [160] * 8
    assert len({tuple(ids[:100]) for ids in made}) == 2
    assert made[0][:100] == made[2][:100] != made[1][:100]
    assert len({tuple(ids[100:]) for ids in made}) == 8


def test_the_expected_hit_rate_is_known_where_the_workload_decides_it() -> None:
    shared = Workload(kind="shared-prefix", prefixes=2, prefix_tokens=100, input_tokens="60")
    assert expected_hit_rate(shared, make(shared, 8, 0)) == pytest.approx(6 * 100 / (8 * 160))
    assert expected_hit_rate(shared, make(shared, 1, 0)) == 0
    assert expected_hit_rate(Workload(), make(Workload(), 8, 0)) == 0
    chat = Workload(kind="chat")
    assert expected_hit_rate(chat, make(chat, 8, 0)) is None


def test_each_turn_of_a_chat_waits_for_the_one_before_and_repeats_it() -> None:
    made = make(Workload(kind="chat", turns=3, input_tokens="5"), 7, 0)
    assert [item.after for item in made] == [None, 0, 1, None, 3, 4, None]
    assert [item.session for item in made] == [0, 0, 0, 1, 1, 1, 2]
    said = [item.messages or [] for item in made]
    assert [len(messages) for messages in said[:4]] == [1, 3, 5, 1]
    assert said[2][:3] == said[1]
    assert said[1][:1] == said[0]
    assert [message["role"] for message in said[2]] == ["user", "assistant", "user", "assistant", "user"]


@pytest.mark.parametrize(
    "text", [json.dumps(SHAREGPT, indent=1), lines(SHAREGPT), lines(BATCH)], ids=["list", "ShareGPT", "batch"]
)
def test_a_file_is_asked_in_order_and_from_the_start_again(tmp_path: Path, text: str) -> None:
    made = from_text(tmp_path, text, 7)
    assert [asked(item) for item in made] == [QUESTIONS[number % 3] for number in range(7)]
    assert [item.index for item in made] == list(range(7))


def test_lines_of_another_form_leave_no_gap_and_no_index_twice(tmp_path: Path) -> None:
    made = from_text(tmp_path, lines([{"id": 1}, SHAREGPT[0], {"id": 2}, SHAREGPT[1], SHAREGPT[2]]), 7)
    assert [asked(item) for item in made] == [QUESTIONS[number % 3] for number in range(7)]
    assert [item.index for item in made] == list(range(7))


def test_a_text_may_hold_what_unicode_calls_the_end_of_a_line(tmp_path: Path) -> None:
    said = "one\u2028two\u0085three"
    made = from_text(tmp_path, lines([{"conversations": [{"from": "human", "value": said}]}]), 1)
    assert asked(made[0]) == said


def test_an_empty_line_is_no_request(tmp_path: Path) -> None:
    made = from_text(tmp_path, lines(SHAREGPT[:1]) + "\n" + lines(SHAREGPT[1:]) + "\n", 3)
    assert [asked(item) for item in made] == list(QUESTIONS)


def test_answers_to_sharegpt_are_as_long_as_the_settings_say(tmp_path: Path) -> None:
    made = from_text(tmp_path, lines(SHAREGPT), 30, output_tokens="uniform(8, 64)")
    lengths = [item.output_tokens or 0 for item in made]
    assert 8 <= min(lengths) < max(lengths) <= 64


def test_a_batch_asks_for_its_own_lengths_or_for_those_of_the_settings(tmp_path: Path) -> None:
    limits: list[dict[str, Any]] = [{"max_tokens": 9, "temperature": 1}, {"max_completion_tokens": 7}, {}]
    text = lines([{"body": {"messages": [], "seed": 5, **limit}} for limit in limits])
    made = from_text(tmp_path, text, 3, output_tokens="4")
    assert [item.output_tokens for item in made] == [9, 7, 4]
    assert [item.body for item in made] == [
        {"messages": [], "seed": 5, "max_tokens": length, "ignore_eos": True, "temperature": 0} for length in (9, 7, 4)
    ]


def test_what_is_compared_of_a_batch_is_short_and_its_warm_up_goes_the_same_way(tmp_path: Path) -> None:
    path = tmp_path / "asked.jsonl"
    path.write_text(lines([{"body": {"messages": [], "max_completion_tokens": 700}}]))
    plan = Course.plan(Bench(workload=Workload(path=path)), "file")
    assert {(item.output_tokens, (item.body or {})["max_tokens"]) for item in plan.parity} == {(16, 16)}
    assert all("max_completion_tokens" not in (item.body or {}) for item in plan.parity)
    assert all(item.messages and item.after is None for item in plan.warmup), "a route of chats takes no token ids"


@pytest.mark.parametrize("content", [b"", b"no JSON\n", b"[1, 2]", b'{"a": 1}\n', b'[{"conversations": ', b"\xff\xfe"])
def test_a_broken_file_is_the_users_mistake(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"^bench\.workload\.path: .*broken\.jsonl"):
        make(Workload(kind="file", path=path), 1, 0)


def test_a_file_is_needed_for_the_kind_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^bench\.workload\.path: expected a JSONL file"):
        make(Workload(kind="file"), 1, 0)
    with pytest.raises(UserError, match=r"^bench\.workload\.path: "):
        make(Workload(kind="file", path=tmp_path), 1, 0)


def test_drawn_pictures_are_jpegs_that_differ() -> None:
    made = [item.picture or b"" for item in make(Workload(kind="images"), 3, 0)]
    assert len(set(made)) == 3
    for picture in made:
        with Image.open(io.BytesIO(picture)) as image:
            image.load()
            assert (image.format, image.size, image.mode) == ("JPEG", (320, 240), "RGB")


def test_a_folder_of_pictures_is_read_in_order(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "notes.txt", "c.webp"):
        (tmp_path / name).write_bytes(name.encode())
    made = make(Workload(kind="images", path=tmp_path), 4, 0)
    assert [item.picture for item in made] == [b"a.jpg", b"b.PNG", b"c.webp", b"a.jpg"]


def test_a_folder_without_pictures_and_what_is_no_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(UserError, match=r"^bench\.workload\.path: "):
            make(Workload(kind="images", path=path), 1, 0)
