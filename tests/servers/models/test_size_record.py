"""What a model took in memory is known to the next platform, and to nobody else."""

from pathlib import Path
from typing import Any

from configs.settings import VllmModel
from servers.models.size_record import SizeRecord


def _record(folder: Path, name: str = "chat", **settings: Any) -> SizeRecord:
    model = VllmModel.model_validate({"engine": "vllm", "source": "org/name", **settings})
    return SizeRecord(folder / "cache" / "sizes.json", name, model)


def test_a_size_counts_for_the_same_name_source_and_settings_of_the_engine(tmp_path: Path) -> None:
    record = _record(tmp_path)
    assert record.read() is None
    record.write(1000)
    _record(tmp_path, "other").write(7)
    assert _record(tmp_path).read() == 1000
    assert _record(tmp_path, max_waiting=3, pin=True, aliases=["a"]).read() == 1000, "these take no memory"
    for settings in ({"source": "org/b"}, {"args": {"dtype": "float32"}}, {"replicas": 2}, {"env": {"A": "1"}}):
        assert _record(tmp_path, **settings).read() is None
    record.write(1009)
    assert record.read() == 1000, "a small change is not written"
    record.write(2000)
    assert _record(tmp_path).read() == 2000
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["sizes.json"]


def test_a_file_that_is_no_record_is_replaced_and_one_that_cannot_be_written_is_no_problem(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    file = tmp_path / "cache" / "sizes.json"
    for text in ("", "[1]", '{"chat"'):
        file.write_text(text)
        assert _record(tmp_path).read() is None
        _record(tmp_path).write(5)
        assert _record(tmp_path).read() == 5
    (tmp_path / "taken").write_text("")
    SizeRecord(tmp_path / "taken" / "sizes.json", "chat", VllmModel(engine="vllm", source="a/b")).write(5)
