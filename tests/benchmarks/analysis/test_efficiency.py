"""How well a GPU was used, worked out by hand; None where a part of it is not known."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks.analysis import efficiency
from benchmarks.analysis.hardware import RUNG, GpuWindow, ModelWindow, Sample, window_of
from benchmarks.analysis.measurement import Measurement, RungResult
from clients.record import RequestRecord
from servers.telemetry.cpu import HostSample
from servers.telemetry.nvml import GpuProcess, GpuSample

H100 = "NVIDIA H100 80GB HBM3"  # 989.5e12 FLOP/s, 3.35e12 bytes/s
FLOPS, BYTES = 989.5e12, 3.35e12
CONFIG = {
    "hidden_size": 64,
    "num_attention_heads": 8,
    "num_hidden_layers": 2,
    "num_key_value_heads": 4,
    "torch_dtype": "bfloat16",
}
HOST = dict.fromkeys(("cpu_percent", "steal_percent", "throttled_s", "throttled_periods"))
WINDOW = {"start_s": 0, "end_s": 2, "covered_s": 2, "samples": 4, "models": {}, "host": HOST, "nvml_error": None}
WEIGHTS = 20_000  # bytes: 10 000 parameters in bfloat16


def model(folder: Path, **changes: Any) -> Path:
    config = {name: value for name, value in {**CONFIG, **changes}.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(bytes(WEIGHTS))
    (folder / "tokenizer.json").write_bytes(bytes(999))
    return folder


def gpu(
    energy_j: float | None = 50.0, name: str = H100, uuid: str = "GPU-1", model: str | None = RUNG, index: int = 0
) -> dict[str, Any]:
    unread = dict.fromkeys(GpuWindow.__struct_fields__)
    told = {"index": index, "uuid": uuid, "name": name, "model": model, "energy_j": energy_j}
    return {**unread, **told, "lost": False, "mig_instances": []}


def judge(*arguments: Any) -> dict[str, Any]:
    """The figures as `result.json` has them."""
    return dict(msgspec.to_builtins(efficiency.assess(*arguments)))


def measured(*windows: list[dict[str, Any]], users: int = 2) -> RungResult:
    """Passes of two requests (10 tokens in, 5 out, a token each quarter of a second) within two seconds, each."""
    result = RungResult("vllm", users)
    for number, gpus in enumerate(windows):
        begin_s = 100.0 * number
        requests = [
            RequestRecord(
                index=index,
                scheduled_s=begin_s + index * 0.5,
                sent_s=begin_s + index * 0.5,
                chunk_s=[begin_s + index * 0.5 + 0.5, begin_s + index * 0.5 + 1.5],
                end_s=begin_s + index * 0.5 + 1.5,
                prompt_tokens=10,
                output_tokens=5,
            )
            for index in range(2)
        ]
        result.measurements.append(Measurement(tuple(requests), None))
        result.utilisation.append(window_of({**WINDOW, "gpus": gpus}))
        used = [GpuSample(card["index"], processes=(GpuProcess(1, card["model"], None),)) for card in gpus]
        result.series.append([Sample(0.0, {}, HostSample(None, None, None, None), tuple(used))])
    return result


def test_the_shares_of_the_peaks_are_those_of_the_formulas(tmp_path: Path) -> None:
    found = judge(measured([gpu()]), model(tmp_path), "auto", None)
    # 2 x 10 000 parameters x 30 tokens, and 4 x 2 layers x 8 heads x 8 x the pairs of tokens, in 2 s.
    attended = 2 * (15 * 16 / 2)
    assert found["mfu"] == pytest.approx((2 * 10_000 * 30 + 4 * 2 * 8 * 8 * attended) / (2 * FLOPS))
    # A step of 0.25 s reads the weights, and the keys and values of two sequences of 12.5 tokens on average.
    kv_bytes = 2 * 12.5 * 2 * 2 * 4 * 8 * 2
    assert found["mbu"] == pytest.approx((WEIGHTS + kv_bytes) / (0.25 * BYTES))


def test_weights_in_another_precision_than_their_file_are_read_at_that_width(tmp_path: Path) -> None:
    kept = judge(measured([gpu()]), model(tmp_path), None, None)
    widened = judge(measured([gpu()]), tmp_path, "float32", None)
    assert widened["mfu"] == kept["mfu"]
    assert widened["mbu"] == pytest.approx(2 * kept["mbu"])


@pytest.mark.parametrize(
    ("change", "heads_read", "head_dim"),
    [({"head_dim": 16}, 4, 16), ({"num_key_value_heads": None}, 8, 8)],
    ids=["head_dim", "multi-head"],
)
def test_the_cache_is_that_of_the_configuration(
    tmp_path: Path, change: dict[str, Any], heads_read: int, head_dim: int
) -> None:
    found = judge(measured([gpu()]), model(tmp_path, **change), None, None)
    kv_bytes = 2 * 12.5 * 2 * 2 * heads_read * head_dim * 2
    assert found["mbu"] == pytest.approx((WEIGHTS + kv_bytes) / (0.25 * BYTES))


def test_passes_and_cards_add_up(tmp_path: Path) -> None:
    one = judge(measured([gpu()]), model(tmp_path), None, 3.6)
    both = [gpu(), gpu(uuid="GPU-2")]
    two = judge(measured(both, both), tmp_path, None, 3.6)
    assert two["mfu"] == pytest.approx(one["mfu"] / 2)
    assert two["mbu"] == pytest.approx(one["mbu"] / 2)
    assert two["energy_j"] == 200
    assert two["tokens_per_joule"] == 20 / 200
    assert two["cost_per_million_output_tokens"] == one["cost_per_million_output_tokens"]


def test_only_cards_that_the_rung_is_on_count(tmp_path: Path) -> None:
    alone = judge(measured([gpu()]), model(tmp_path), None, 3.6)
    beside = judge(measured([gpu(), gpu(uuid="GPU-2", model=None, index=1)]), tmp_path, None, 3.6)
    assert beside == alone
    elsewhere = judge(measured([gpu(model=None)]), tmp_path, None, 3.6)
    assert elsewhere.pop("cost_per_million_output_tokens") == alone["cost_per_million_output_tokens"]
    assert set(elsewhere.values()) == {None}


def test_where_processes_are_not_told_the_only_card_at_work_counts(tmp_path: Path) -> None:
    alone = judge(measured([gpu()]), model(tmp_path), None, None)
    busy = {**gpu(model=None), "utilization_percent": 90.0}
    result = measured([busy])
    assert set(judge(result, tmp_path, None, None).values()) == {None}, "the rung may be elsewhere"
    here = dict.fromkeys(ModelWindow.__struct_fields__)
    result.utilisation = [window_of({**WINDOW, "models": {RUNG: here}, "gpus": [busy]})]
    assert judge(result, tmp_path, None, None) == alone
    result.utilisation = [window_of({**WINDOW, "models": {RUNG: here}, "gpus": [{**busy, "utilization_percent": 0.0}]})]
    assert set(judge(result, tmp_path, None, None).values()) == {None}


def test_what_works_on_one_request_at_a_time_caches_one(tmp_path: Path) -> None:
    result = measured([gpu()], users=16)
    result.batch_size = 1
    one = measured([gpu()], users=1)
    assert judge(result, model(tmp_path), None, None) == judge(one, tmp_path, None, None)


def test_energy_and_money_are_for_each_token_that_came_out(tmp_path: Path) -> None:
    found = judge(measured([gpu(50)]), model(tmp_path), None, 3.6)
    assert found["energy_j"] == 50
    assert found["tokens_per_joule"] == 0.2
    # 3.6 an hour is 0.001 a second, in which 5 tokens come.
    assert found["cost_per_million_output_tokens"] == pytest.approx(200)


def test_failed_requests_are_no_work_done(tmp_path: Path) -> None:
    result = measured([gpu()])
    first = result.measurements[0].records[0]
    first.error = "status 500"
    found = judge(result, model(tmp_path), None, None)
    assert found["tokens_per_joule"] == 5 / 50
    assert found["mfu"] == pytest.approx((2 * 10_000 * 15 + 4 * 2 * 8 * 8 * 120) / (2 * FLOPS))


def test_without_a_gpu_only_money_is_known(tmp_path: Path) -> None:
    found = judge(measured([]), model(tmp_path), None, 3.6)
    assert found.pop("cost_per_million_output_tokens") == pytest.approx(200)
    assert set(found.values()) == {None}


@pytest.mark.parametrize(
    "gpus",
    [[gpu(name="NVIDIA H100 80GB HBM3 MIG 1g.10gb")], [gpu(name="Somebody's GPU")]],
    ids=["slice", "unknown"],
)
def test_a_card_without_a_known_peak_has_no_share_of_it(tmp_path: Path, gpus: list[dict[str, Any]]) -> None:
    found = judge(measured(gpus), model(tmp_path), None, None)
    assert (found["mfu"], found["mbu"]) == (None, None)
    assert found["tokens_per_joule"] == 0.2


def test_energy_that_one_card_did_not_tell_is_not_known(tmp_path: Path) -> None:
    found = judge(measured([gpu(), gpu(None, uuid="GPU-2")]), model(tmp_path), None, None)
    assert (found["energy_j"], found["tokens_per_joule"]) == (None, None)


@pytest.mark.parametrize("change", [{"num_hidden_layers": None}, {"num_attention_heads": None}])
def test_what_is_no_decoder_has_no_share_of_the_peaks(tmp_path: Path, change: dict[str, Any]) -> None:
    found = judge(measured([gpu()]), model(tmp_path, **change), None, None)
    assert (found["mfu"], found["mbu"]) == (None, None)


def test_a_model_without_files_has_none_either(tmp_path: Path) -> None:
    for folder in (None, tmp_path):
        found = judge(measured([gpu()]), folder, None, None)
        assert (found["mfu"], found["mbu"]) == (None, None)


def test_what_generates_nothing_has_no_figure_for_a_token(tmp_path: Path) -> None:
    result = measured([gpu()])
    for record in result.measurements[0].records:
        record.output_tokens, record.chunk_s = None, record.chunk_s[:1]
    found = judge(result, model(tmp_path), None, 3.6)
    assert (found["mbu"], found["tokens_per_joule"], found["cost_per_million_output_tokens"]) == (None, None, None)
    assert found["energy_j"] == 50
