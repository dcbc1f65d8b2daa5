"""Two results against each other: the ratio is right, and what cannot be compared is not."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import commands
from benchmarks.comparison import compare
from configs.errors import UserError

Change = Callable[[Path], object]
RUNGS = (("vllm", 4), ("litport", 4))


def settings_of(load: dict[str, Any]) -> dict[str, Any]:
    return {"model": {}, "bench": {"load": load}}


def write(folder: Path, seconds_each: float = 1.0, tokens: int | None = 10, rungs: Any = RUNGS, **changes: Any) -> Path:
    """A result with two passes of 40 requests, one after the other, for each rung."""
    folder.mkdir()
    document = {
        "schema_version": 1,
        "started_at": "2026-01-02T03:04:05Z",
        "finished_at": "2026-01-02T03:14:05Z",
        "command": ["litport", "bench", "run"],
        "model": "smol",
        "workload_digest": "abc",
        "settings": settings_of({"shape": "closed", "users": 4}),
        "versions": {},
        "machine": {"system": "Linux", "processor": None, "cores": 2, "memory_bytes": None, "gpus": []},
        "git_commit": None,
        "valid": True,
        "findings": [],
        "requests_file": "requests.jsonl",
        "rungs": [],
        "verdict": None,
        "confirmed": None,
        **changes,
    }
    (folder / "result.json").write_text(json.dumps(document))
    requests = [
        {
            "rung": rung,
            "users": users,
            "pass": number,
            "index": index,
            "scheduled_s": index * seconds_each,
            "sent_s": index * seconds_each,
            "end_s": (index + 1) * seconds_each,
            "status": 200,
            "output_tokens": tokens,
        }
        for rung, users in rungs
        for number in (1, 2)
        for index in range(40)
    ]
    (folder / "requests.jsonl").write_text("".join(json.dumps(request) + "\n" for request in requests))
    return folder


def test_twice_as_fast_is_a_ratio_of_two(tmp_path: Path) -> None:
    ratios = compare(write(tmp_path / "a"), write(tmp_path / "b", 0.5))
    assert [(ratio.rung, ratio.users) for ratio in ratios] == list(RUNGS)
    for ratio in ratios:
        assert ratio.ratio == pytest.approx(2)
        assert ratio.low <= 2.0000001
        assert ratio.high >= 1.9999999


def test_throughput_is_that_of_tokens_or_else_of_requests(tmp_path: Path) -> None:
    half = write(tmp_path / "half", tokens=5)
    assert [ratio.ratio for ratio in compare(write(tmp_path / "a"), half)] == pytest.approx([0.5, 0.5])
    pictures = write(tmp_path / "c", tokens=None), write(tmp_path / "d", 4, tokens=None)
    assert [ratio.ratio for ratio in compare(*pictures)] == pytest.approx([0.25, 0.25])


def test_open_loads_are_compared_without_a_number_of_users(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rungs = (("litport", None),)
    assert commands.compare(write(tmp_path / "a", rungs=rungs), write(tmp_path / "b", rungs=rungs), None) == 0
    assert capsys.readouterr().out.startswith("litport (open load): 1.000 ")


def test_a_longer_pass_counts_for_more(tmp_path: Path) -> None:
    one, other = write(tmp_path / "a"), write(tmp_path / "b")
    requests = [json.loads(line) for line in (other / "requests.jsonl").read_text().splitlines()]
    for request in requests:
        if request["pass"] == 2:
            request |= {"scheduled_s": request["scheduled_s"] * 3, "end_s": request["end_s"] * 3}
    (other / "requests.jsonl").write_text("".join(json.dumps(request) + "\n" for request in requests))
    # 40 requests in 40 s and 40 in 120 s, where the other had 80 in 80 s.
    assert [ratio.ratio for ratio in compare(one, other)] == pytest.approx([0.5, 0.5])


def test_only_rungs_that_both_have_are_compared(tmp_path: Path) -> None:
    one = write(tmp_path / "a", rungs=(("vllm", 4), ("litport", 4)))
    other = write(tmp_path / "b", rungs=(("litport", 4), ("vllm", 8)))
    assert [(ratio.rung, ratio.users) for ratio in compare(one, other)] == [("litport", 4)]
    third = write(tmp_path / "c", rungs=(("vllm", 8), ("fastapi", 8)))
    with pytest.raises(UserError, match=r"no rung in common: vllm \(4 users\), .* and vllm \(8 users\).*--pair RUNG"):
        compare(one, third)


def test_two_addresses_are_compared_without_being_asked_to_be_and_other_rungs_by_pairs(tmp_path: Path) -> None:
    one = write(tmp_path / "a", rungs=(("http://one:8000", 4),))
    other = write(tmp_path / "b", 2, rungs=(("http://other:9000", 4),))
    (ratio,) = compare(one, other)
    assert (ratio.rung, ratio.against) == ("http://one:8000", "http://other:9000")
    assert ratio.ratio == pytest.approx(0.5)
    ladder = write(tmp_path / "c")
    assert [(ratio.rung, ratio.against) for ratio in compare(ladder, ladder, [("vllm", "litport")])] == [
        ("vllm", "litport")
    ]


def test_a_pair_that_is_not_there_is_the_users_mistake_beside_one_that_is(tmp_path: Path) -> None:
    ladder = write(tmp_path / "a")
    with pytest.raises(UserError, match=r"^--pair: expected a rung of A \(vllm \(4 users\), .* got vllm vlm$"):
        compare(ladder, ladder, [("vllm", "litport"), ("vllm", "vlm")])


def test_token_counts_of_one_side_alone_are_not_compared_with_answers(tmp_path: Path) -> None:
    """One server says how many tokens it made and the other does not; the answers are the same."""
    (first, _) = compare(write(tmp_path / "a", tokens=32), write(tmp_path / "b", tokens=None))
    assert first.unit == "requests"
    assert first.ratio == pytest.approx(1)


def test_where_the_requests_are_too_few_it_is_said_how_many_would_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = write(tmp_path / "a"), write(tmp_path / "b")
    draw = random.Random(0)
    for folder in folders:
        requests = [json.loads(line) for line in (folder / "requests.jsonl").read_text().splitlines()]
        now_s = 0.0
        for request in requests:
            now_s = now_s if request["index"] else 0.0
            request["scheduled_s"] = request["sent_s"] = now_s
            request["end_s"] = now_s = now_s + draw.lognormvariate(0, 1)
        (folder / "requests.jsonl").write_text("".join(json.dumps(request) + "\n" for request in requests))
    (first, _) = compare(*folders)
    assert first.high - first.low > 0.2
    assert first.requests_needed is not None
    assert first.requests_needed > 40
    assert commands.compare(*folders, 0.9) == 0
    assert f"about {first.requests_needed} requests would (bench.workload.requests)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"workload_digest": "xyz"}, ("workload_digest", '"abc"', '"xyz"')),
        ({"model": "other"}, ("model", '"smol"', '"other"')),
        ({"settings": settings_of({"shape": "closed", "users": 8})}, ("settings.bench.load", "4", "8")),
        (
            {"settings": settings_of({"shape": "poisson", "rate_per_s": 3, "note": "x" * 90})},
            ("settings.bench.load", "poisson", "..."),
        ),
    ],
    ids=["requests", "model", "users", "shape"],
)
def test_what_was_not_asked_the_same_is_not_compared(
    tmp_path: Path, changes: dict[str, Any], parts: tuple[str, ...]
) -> None:
    with pytest.raises(UserError, match="cannot be compared") as caught:
        compare(write(tmp_path / "a"), write(tmp_path / "b", **changes))
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("which", ["a", "b"])
def test_a_result_that_is_not_valid_is_not_compared(tmp_path: Path, which: str) -> None:
    wrong: dict[str, Any] = {
        "valid": False,
        "findings": [{"rule": "generator_lag", "rung": "vllm", "message": "it lagged by 80 ms"}],
    }
    folders = [write(tmp_path / name, **(wrong if name == which else {})) for name in ("a", "b")]
    with pytest.raises(UserError, match=f"{which} is not valid: it lagged by 80 ms"):
        compare(folders[0], folders[1])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "result.json").unlink(), "result.json"),
        (lambda folder: (folder / "result.json").write_text('{"schema_ver'), "result.json"),
        (lambda folder: (folder / "result.json").write_text('{"schema_version": 99}'), "schema_version 1, got 99"),
        (lambda folder: (folder / "requests.jsonl").unlink(), "requests.jsonl"),
        (lambda folder: (folder / "requests.jsonl").write_text('{"rung": "vl'), "requests.jsonl"),
        (lambda folder: (folder / "requests.jsonl").write_text('{"rung": "a", "users": 1, "pass": 1}'), "index"),
    ],
    ids=["no result", "broken result", "other schema", "no requests", "broken requests", "other requests"],
)
def test_a_missing_or_broken_file_is_the_users_mistake(tmp_path: Path, change: Change, words: str) -> None:
    one, other = write(tmp_path / "a"), write(tmp_path / "b")
    change(other)
    with pytest.raises(UserError) as caught:
        compare(one, other)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected a result at .*gone: No such file or directory$"):
        compare(write(tmp_path / "a"), tmp_path / "gone")


@pytest.mark.parametrize(
    ("seconds_each", "fail_below", "status"),
    [(1, None, 0), (4, None, 0), (1, 0.9, 0), (0.5, 0.9, 0), (2, 0.9, 1), (1.05, 0.9, 0)],
)
def test_the_status_says_whether_a_ratio_is_below_what_was_asked(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    seconds_each: float,
    fail_below: float | None,
    status: int,
) -> None:
    assert commands.compare(write(tmp_path / "a"), write(tmp_path / "b", seconds_each), fail_below) == status
    *table, last = capsys.readouterr().out.splitlines()
    document = json.loads(last)
    assert document["passed"] is (status == 0)
    assert [ratio["rung"] for ratio in document["ratios"]] == ["vllm", "litport"]
    assert document["ratios"][0]["ratio"] == pytest.approx(1 / seconds_each)
    assert table[0].startswith(f"vllm (4 users): {1 / seconds_each:.3f} (95 %: ")
    assert all(("below 0.9" in line) is (status == 1) for line in table)
