"""What all tests share: the folder of pulled models, and one running platform with real models."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.services import gpus
from tests.services.otlp_collector import Collector
from tests.services.polling import wait_until
from tests.services.ports import free_port

os.environ.setdefault("LITPORT_TELEMETRY__METRICS_PORT", "0")  # any free one: several platforms run beside each other
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; two busy threads wait long for each other
if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # as in a shell's background; the tests' children would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).parents[1]
LITPORT = (sys.executable, "-P", "-m", "litport")


@dataclass(frozen=True)
class Platform:
    """A running `litport serve`, or `gateway`: its address, a client of it, its process, and the file with its log."""

    url: str
    http: httpx.Client
    process: "subprocess.Popen[bytes]"
    log: Path

    def status(self) -> dict[str, dict[str, object]]:
        """The status of each model, by name."""
        document = self.http.get("/status", timeout=10).json()
        return {model["name"]: model for model in document["models"]}

    def audited(self, request_id: str) -> dict[str, object]:
        """The line of the audit log about a request, which is written just after its answer."""
        file = self.log.with_name("audit.jsonl")

        def line() -> dict[str, object] | None:
            lines = map(json.loads, file.read_text().splitlines())
            return next((line for line in lines if line["request_id"] == request_id), None)

        return wait_until(line, problem=lambda: f"{request_id} is not in the audit log")

    def wait_for(self, model: str, timeout_s: float = 20, **expected: object) -> dict[str, object]:
        """Wait until the model's status has these values, and return it."""

        def fitting() -> dict[str, object] | None:
            status = self.status()[model]
            return status if expected.items() <= status.items() else None

        return wait_until(fitting, timeout_s, problem=lambda: self.status()[model])


@contextlib.contextmanager
def serving(
    folder: Path,
    *arguments: str,
    cwd: Path = REPOSITORY,
    timeout_s: float = 300,
    environ: Mapping[str, str] | None = None,
    command: str = "serve",
) -> Iterator[Platform]:
    """Run `litport serve`, or `gateway`, on a free port until the block ends, which begins when it is ready."""
    with starting(folder, *arguments, cwd=cwd, environ=environ, command=command) as platform:
        wait_until(lambda: _is_ready(platform), timeout_s, every_s=0.05, problem=lambda: platform.log.read_text())
        yield platform


@contextlib.contextmanager
def starting(
    folder: Path,
    *arguments: str,
    cwd: Path = REPOSITORY,
    environ: Mapping[str, str] | None = None,
    command: str = "serve",
) -> Iterator[Platform]:
    """Start `litport serve`, or `gateway`, on a free port; at the end of the block it must end cleanly on SIGTERM."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    log = folder / "litport.log"
    with log.open("wb") as output:
        words = [*LITPORT, command, *arguments, "--server.port", str(port)]
        env = {**os.environ, **(environ or {})}
        process = subprocess.Popen(words, cwd=cwd, stdout=output, stderr=output, env=env)
    try:
        with httpx.Client(base_url=url, timeout=10) as client:
            yield Platform(url, client, process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=60)
        finally:
            process.kill()


def _is_ready(platform: Platform) -> bool:
    assert platform.process.poll() is None, platform.log.read_text()
    with contextlib.suppress(httpx.TransportError):
        return platform.http.get("/ready").status_code == 200
    return False


def litport(
    *arguments: str, environ: Mapping[str, str] | None = None, timeout_s: float = 120
) -> "subprocess.CompletedProcess[str]":
    """Run the command line to its end."""
    words: Sequence[str] = [*LITPORT, *arguments]
    env = {**os.environ, **(environ or {})}
    return subprocess.run(
        words, cwd=REPOSITORY, capture_output=True, text=True, timeout=timeout_s, check=False, env=env
    )


@pytest.fixture(scope="session")
def model_cache() -> Path:
    """The folder that tests pull models into; kept between runs, because a pull takes half a minute."""
    return Path(os.environ.get("MODEL_CACHE", REPOSITORY / ".cache" / "test-models"))


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in for NVIDIA's library."""
    return gpus.compile_library(tmp_path_factory.mktemp("driver"))


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """Where the shared platform sends its traces."""
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="session", autouse=True)
def _early_start(request: pytest.FixtureRequest) -> None:
    """Start the shared platform before the first test, so that no test waits for all of its start."""
    if any("platform" in getattr(item, "fixturenames", ()) for item in request.session.items):
        request.getfixturevalue("starting_platform")


@pytest.fixture(scope="session")
def two_gpus(library: Path, tmp_path_factory: pytest.TempPathFactory) -> gpus.TwoGpus:
    """The GPUs that the shared platform seems to have."""
    return gpus.TwoGpus(library, tmp_path_factory.mktemp("gpus"))


@pytest.fixture(scope="session")
def starting_platform(
    model_cache: Path, two_gpus: gpus.TwoGpus, collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    """The shared platform, which may not be ready yet."""
    folder = tmp_path_factory.mktemp("platform")
    served = ("configs/recipes/demo.yaml", "tests/services/strangers/squares.py:SquaresAPI")
    left_over = {"VLLM_API_KEY": "left-over", "VLLM_HOST_IP": "192.0.2.1", "LIT_SERVER_API_KEY": "left-over"}
    no_compiler = {"CXX": "/nonexistent"}  # for torch's inductor, which must not run within a request
    environ = {**collector.environ, **two_gpus.environ, **left_over, **no_compiler}
    arguments = ("--server.cache_dir", str(model_cache), "--telemetry.audit_file", str(folder / "audit.jsonl"))
    counts_responses = "--models.smollm2-135m-instruct.args.enable-scale-out=true"  # as `on_overflow: refuse` does
    with starting(folder, *served, *arguments, counts_responses, environ=environ) as platform:
        yield platform


@pytest.fixture(scope="session")
def platform(starting_platform: Platform, two_gpus: gpus.TwoGpus) -> Platform:
    """The demo recipe with real models and an API of a stranger's, served once for all tests that only call it.

    The demo's language model runs in float32, in which greedy decoding must equal transformers' to the token. The
    machine seems to have two GPUs, with the language model on the first one, and requests are traced and audited. Keys
    of the engines' own are left in the environment.
    """
    wait_until(lambda: _is_ready(starting_platform), 300, every_s=0.05, problem=starting_platform.log.read_text)
    [group_id] = [model["group_id"] for model in starting_platform.status().values() if model["kind"] == "vllm"]
    assert isinstance(group_id, int)
    two_gpus.give(group_id)
    return starting_platform
