"""The CPU image serves the demo as hardened as it can be, to the OpenAI SDK outside; it heals, and it ends well."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
import skimage

from tests.containers import served
from tests.containers.conftest import KEY
from tests.containers.engine import Engine
from tests.containers.served import Served, serving, with_keys

pytestmark = pytest.mark.long

CHAT, EMBED, CLASSIFY = "smollm2-135m-instruct", "all-minilm-l6-v2", "efficientnet-lite0"


@pytest.fixture(scope="module")
def demo(engine: Engine, image: str, models: str, lent_keys: Path) -> Iterator[tuple[Served, list[str]]]:
    """The demo, and the healths that were seen while it started."""
    with serving(engine, image, "litport-tests-demo", *with_keys(lent_keys), data=models) as container:
        yield container, served.start(container)


@pytest.fixture
def client(demo: tuple[Served, list[str]]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{demo[0].url}/v1", api_key=KEY, max_retries=0, timeout=120) as client:
        yield client


def test_without_keys_it_refuses_to_start_and_says_what_is_missing(engine: Engine, image: str) -> None:
    done = engine("run", "--rm", image, check=False)
    assert done.returncode == 2
    assert "server.host: 0.0.0.0 is reached from other machines, and there are no keys" in done.stderr


def test_it_is_starting_and_then_healthy(demo: tuple[Served, list[str]]) -> None:
    assert demo[1] == ["starting", "healthy"]


def test_the_key_is_that_of_the_secret_file(demo: tuple[Served, list[str]]) -> None:
    assert httpx.get(f"{demo[0].url}/v1/models", timeout=10).status_code == 401
    environ = demo[0].engine.inspect(demo[0].name)["Config"]["Env"]
    assert [line for line in environ if KEY in line] == []


def test_the_sdk_chats_with_log_probabilities(client: openai.OpenAI) -> None:
    question = "What is the capital of France?"
    answer = client.chat.completions.create(
        model=CHAT, messages=[{"role": "user", "content": question}], logprobs=True, top_logprobs=2
    )
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.choices[0].logprobs
    assert answer.choices[0].logprobs.content


def test_the_sdk_embeds(client: openai.OpenAI) -> None:
    vectors = [item.embedding for item in client.embeddings.create(model=EMBED, input=["a cat", "a kitten"]).data]
    assert [len(vector) for vector in vectors] == [384, 384]
    assert sum(a * b for a, b in zip(*vectors, strict=True)) > 0.7


def test_the_sdk_classifies(client: openai.OpenAI, demo: tuple[Served, list[str]]) -> None:
    cat = Path(skimage.__file__).with_name("data") / "chelsea.png"
    answer = client.with_options(base_url=demo[0].url).post(
        f"/predict/{CLASSIFY}",
        cast_to=httpx.Response,
        files={"image": ("cat.png", cat.read_bytes(), "image/png")},
        options={"headers": {"Content-Type": "multipart/form-data"}},
    )
    assert "cat" in json.dumps(answer.json())


def test_it_may_do_nothing_that_it_need_not(demo: tuple[Served, list[str]]) -> None:
    told = demo[0].python(
        "import json, os, psutil; status = dict(line.split(':', 1) for line in open('/proc/self/status'));"
        "print(json.dumps([os.getuid(), os.getgid(), status['CapEff'].strip(), status['CapBnd'].strip(),"
        "status['NoNewPrivs'].strip(), sorted({process.uids().real for process in psutil.process_iter()})]))"
    )
    none = "0" * 16
    assert json.loads(told) == [10001, 10001, none, none, "1", [10001]]


def test_nothing_but_the_volume_and_temporary_files_can_be_written(demo: tuple[Served, list[str]]) -> None:
    told = demo[0].python(
        "import os, pathlib\n"
        "for folder in ('/opt/litport', '/opt/venv', '/etc', '/usr', '/run/secrets', '/var/lib/litport', '/tmp'):\n"
        "    try:\n"
        "        pathlib.Path(folder, 'written').touch(); os.unlink(f'{folder}/written'); print(folder)\n"
        "    except OSError:\n"
        "        pass\n"
    )
    assert told.split() == ["/var/lib/litport", "/tmp"]


def test_one_init_is_the_first_process(demo: tuple[Served, list[str]]) -> None:
    told = demo[0].python(
        "import psutil; print([(p.pid, p.ppid()) for p in psutil.process_iter() if p.name() == 'tini'])"
    )
    assert told.strip() == "[(1, 0)]"


def test_what_keeps_state_is_in_the_volume(demo: tuple[Served, list[str]]) -> None:
    folders = set(demo[0].engine("exec", demo[0].name, "ls", "/var/lib/litport").stdout.split())
    assert {"logs", "models"} <= folders


def test_it_is_unhealthy_when_vllm_is_killed_and_heals(demo: tuple[Served, list[str]], client: openai.OpenAI) -> None:
    container, _ = demo
    container.python("import psutil; [p.kill() for p in psutil.process_iter() if 'VLLM::EngineCore' in p.cmdline()]")
    assert container.until("unhealthy", 60)[-1] == "unhealthy"
    vectors = client.embeddings.create(model=EMBED, input="others are served").data
    assert len(vectors[0].embedding) == 384
    assert container.until("healthy", 240) == ["unhealthy", "healthy"]
    assert client.completions.create(model=CHAT, prompt="1, 2, 3,", max_tokens=4).choices[0].text
    assert container.state()["Status"] == "running"


def test_sigterm_lets_a_stream_finish_and_ends_with_0(demo: tuple[Served, list[str]], client: openai.OpenAI) -> None:
    container, _ = demo
    stream = client.completions.create(
        model=CHAT, prompt="Once upon a time", max_tokens=80, stream=True, extra_body={"ignore_eos": True}
    )
    chunks = iter(stream)
    first = next(chunks)
    refused: list[int] = []

    def stop() -> None:
        container.engine("kill", "--signal=TERM", container.name)
        time.sleep(1)
        refused.append(httpx.get(f"{container.url}/ready", timeout=5).status_code)

    stopping = threading.Thread(target=stop)
    stopping.start()
    rest = list(chunks)
    stopping.join()
    assert refused == [503]
    assert rest[-1].choices[0].finish_reason == "length"
    assert len([chunk for chunk in (first, *rest) if chunk.choices[0].text]) > 40
    assert container.engine("wait", container.name, timeout_s=60).stdout.strip() == "0"
    assert '"level": "error"' not in container.logs().splitlines()[-1]
