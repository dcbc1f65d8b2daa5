"""Part 2: LitServe's models on the card: right answers, two workers, a killed worker, a full card, the best batch."""

import os
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from benchmarks.gpu_check.card import Context, pids_on_card, read_card
from benchmarks.gpu_check.check import Recorder
from benchmarks.gpu_check.models import make_encoder
from benchmarks.gpu_check.platform import Platform, serving
from benchmarks.load import workload
from benchmarks.rungs.bare.api_model import ApiModel
from configs.bench import Workload
from configs.loading import load
from servers.processes.group import ProcessGroup
from servers.store import Store

_START_S = 60.0
_FREED_S = 2.0
_BACK_S = 30.0
_LARGEST_BATCH = {"cuda": 128, "cpu": 8}
# A process with a CUDA context and nothing else holds more than this.
_CONTEXT_BYTES = 200 * 1024**2
_TEXT = "17 4 2012 99"
_API = "benchmarks.gpu_check.hungry_api:HungryAPI"


def run(record: Recorder, context: Context) -> None:
    """Serve three models and compare. Raises NotRunError without a card that torch can use."""
    context.require_card()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = Store(load().settings.server.cache_dir).pull(context.picture_model)
        make_encoder(folder / "encoder")
        items = workload.make(Workload(kind="images"), _LARGEST_BATCH[context.device], seed=0)
        with serving(_recipe(context, pictures, folder / "encoder"), folder, _START_S) as platform:
            picture = items[0].picture
            assert picture is not None
            _check_answers(record, platform, pictures, folder / "encoder", picture)
            _check_placement(record, context, platform)
            _check_full_card(record, context, platform)
            _check_killed_worker(record, context, platform, picture)
        model = ApiModel("image_classification", {"model_dir": str(pictures)}, context.device)
        model.find_batch_size(items, _LARGEST_BATCH[context.device])
        record.judge("best batch of the image classifier", model.batch_size, "1 or more", model.batch_size >= 1)


def _recipe(context: Context, pictures: Path, encoder: Path) -> dict[str, Any]:
    place = {"engine": "litserve", "accelerator": context.device, "devices": 1}
    batches = {"max_batch_size": 8, "batch_timeout_s": 0.005}
    return {
        "pictures": {
            **place,
            **batches,
            "api": "image_classification",
            "source": str(pictures),
            "workers_per_device": 2,
        },
        "texts": {**place, **batches, "api": "embedding", "source": str(encoder)},
        "hungry": {**place, "api": _API},
    }


def _check_answers(record: Recorder, platform: Platform, pictures: Path, encoder: Path, picture: bytes) -> None:
    """The answers of the card beside those of the processor, by the same code in this process."""
    from servers.apis.equality import Variant
    from servers.apis.sentence_encoder import from_folder

    [item] = workload.make(Workload(kind="images"), 1, seed=0)
    expected = ApiModel("image_classification", {"model_dir": str(pictures)}, "cpu").predict(item)["predictions"][0]
    answer = _classify(platform, picture).json()["predictions"][0]
    record.judge(
        "a picture's class is that of the processor",
        answer["label"],
        expected["label"],
        answer["label"] == expected["label"],
    )
    record.within("its score differs by", abs(answer["score"] - expected["score"]), 0, 0.02, "")

    reference = from_folder(encoder, "cpu", Variant(), 8)
    vector = reference.embed(reference.tokenize([_TEXT]))[0].tolist()
    document = platform.http.post("/v1/embeddings", json={"model": "texts", "input": _TEXT}).json()
    cosine = _cosine(vector, document["data"][0]["embedding"])
    record.within("cosine of an embedding with that of the processor", cosine, 0.999, 1.0001, "")


def _check_placement(record: Recorder, context: Context, platform: Platform) -> None:
    names = {"pictures": 2, "texts": 1}
    if not context.on_card:
        record.skip("each model's workers are on the card", "a rehearsal")
        return
    counts = {name: len(pids) for name, pids in pids_on_card(platform.groups()).items()}
    if not any(counts.values()):
        record.skip("each model's workers are on the card", "NVML names no process of ours, as in a container")
        return
    for name, count in names.items():
        record.judge(
            f"processes of {name} on the card", counts.get(name), f"{count} workers", counts.get(name) == count
        )


def _check_full_card(record: Recorder, context: Context, platform: Platform) -> None:
    if context.on_card:
        full = platform.http.post("/predict/hungry", json={"gib": 100_000})
        record.judge("a worker without memory answers", full.status_code, "503", full.status_code == 503)
    else:
        record.skip("a worker without memory answers", "a rehearsal: the processor has no such error")
    after = platform.http.post("/predict/hungry", json={"gib": 0.1})
    record.judge("and answers the next request", after.status_code, "200", after.status_code == 200)
    record.judge("and the platform is ready", platform.is_ready(), "True", platform.is_ready())


def _check_killed_worker(record: Recorder, context: Context, platform: Platform, picture: bytes) -> None:
    group = platform.groups()["pictures"]
    pids = pids_on_card({"pictures": group})["pictures"] if context.on_card else []
    before_bytes = read_card().memory_used_bytes if context.on_card else None
    os.kill((pids or _largest(group))[0], signal.SIGKILL)
    if before_bytes is None:
        record.skip("a killed worker's memory is free again after", "the card's memory is not known")
    else:
        limit_bytes = before_bytes - _CONTEXT_BYTES
        freed_s = _seconds_until(lambda: (read_card().memory_used_bytes or 0) <= limit_bytes, _BACK_S)
        _judge_time(record, "a killed worker's memory is free again after", freed_s, _FREED_S)
    back_s = _seconds_until(lambda: _classify(platform, picture).status_code == 200 and platform.is_ready(), _BACK_S)
    _judge_time(record, "and its model is back after", back_s, _BACK_S)


def _judge_time(record: Recorder, name: str, seconds: float | None, limit_s: float) -> None:
    if seconds is None:
        record.fail(name, f"not within {_BACK_S:g} s")
    else:
        record.within(name, seconds, 0, limit_s, "s")


def _largest(group: int) -> list[int]:
    """The processes of a group that hold the most memory: the workers, which have loaded the model."""
    members = sorted(ProcessGroup(group).members(), key=lambda member: -member.resident_bytes)
    return [member.pid for member in members]


def _classify(platform: Platform, picture: bytes) -> httpx.Response:
    files: Mapping[str, Any] = {"image": ("picture.png", picture, "image/png")}
    return platform.http.post("/predict/pictures", files=files)


def _seconds_until(condition: Callable[[], bool], timeout_s: float) -> float | None:
    begin_s = time.monotonic()
    while time.monotonic() - begin_s < timeout_s:
        try:
            if condition():
                return time.monotonic() - begin_s
        except httpx.TransportError:
            pass
        time.sleep(0.02)
    return None


def _cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return float(dot / (sum(x * x for x in a) * sum(y * y for y in b)) ** 0.5)
