"""What llama.cpp's server is started with, what its settings may be, and how its answers are counted."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from configs.settings import LitportSettings, LlamaCppModel
from servers.engines import registry
from servers.engines.base import Command
from servers.engines.connection import TokenCount
from servers.engines.kind import Site
from servers.engines.llamacpp import engine as llamacpp
from servers.engines.llamacpp.connection import LlamaCppConnection


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    return file


def _model(source: object, **settings: object) -> LlamaCppModel:
    return LlamaCppModel.model_validate({"engine": "llamacpp", "source": str(source), **settings})


def _command(model: LlamaCppModel, gguf: Path) -> Command:
    site = Site(LitportSettings(models={"chat": model}), Path("/run/0.sock"), frozenset())
    command = registry.kind_of(model).make("chat", model, site).command(gguf, site.socket)
    assert command is not None
    return command


def test_the_file_the_name_and_the_socket_are_given(monkeypatch: pytest.MonkeyPatch, gguf: Path) -> None:
    monkeypatch.setattr(llamacpp, "find_program", lambda: "/opt/llama-server")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    command = _command(_model(gguf, env={"GGML_X": "1"}), gguf)
    assert command.argv[:7] == ["/opt/llama-server", "--model", str(gguf), "--alias", "chat", "--host", "/run/0.sock"]
    assert command.environ == {"OMP_WAIT_POLICY": "passive", "GGML_X": "1"}
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert _command(_model(gguf), gguf).environ == {}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"ctx_size": 8192}, ["--ctx-size", "8192"]),
        ({"--flash-attn": "on"}, ["--flash-attn", "on"]),
        ({"no-mmap": True, "temp": None}, ["--no-mmap"]),
        ({"lora": ["a.gguf", "b.gguf"]}, ["--lora", "a.gguf", "--lora", "b.gguf"]),
    ],
)
def test_options_pass_through(
    monkeypatch: pytest.MonkeyPatch, gguf: Path, args: Mapping[str, Any], words: list[str]
) -> None:
    monkeypatch.setattr(llamacpp, "find_program", lambda: "/opt/llama-server")
    assert _command(_model(gguf, args=args), gguf).argv[-len(words) :] == words


@pytest.mark.parametrize(("option", "advice"), [("host", "socket"), ("api_key", "auth.api_keys"), ("c", "long name")])
def test_an_option_that_is_litports_own_is_refused(gguf: Path, option: str, advice: str) -> None:
    with pytest.raises(ValidationError, match=advice):
        _model(gguf, args={option: "x"})


@pytest.mark.parametrize(
    ("source", "args", "field"),
    [
        ("org/name", {}, "source"),
        ("./nothing-here.gguf", {}, "source"),
        (None, {"webui": False}, "args.webui"),
        (None, {"ctx-size": 0}, None),
    ],
)
def test_what_would_not_start_is_said_by_the_check(
    gguf: Path, source: str | None, args: Mapping[str, Any], field: str | None
) -> None:
    model = _model(source or gguf, args=args)
    problems = dict(registry.kind_of(model).check_model(model))
    assert list(problems) == ([field] if field else [])


def test_a_program_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch, gguf: Path) -> None:
    monkeypatch.setenv("PATH", str(gguf.parent))
    (problem,) = registry.kind_of(_model(gguf)).check_all({"chat": _model(gguf)}, gguf.parent, {})
    assert problem.startswith("models.chat.engine: expected llama.cpp's llama-server on the PATH, found none")


def test_a_start_needs_memory_for_the_file(monkeypatch: pytest.MonkeyPatch, gguf: Path) -> None:
    model = _model(gguf)
    site = Site(LitportSettings(models={"chat": model}), Path("/run/0.sock"), frozenset())
    needs = registry.kind_of(model).make("chat", model, site).needs(gguf)
    assert needs.memory_bytes == 2**30 + 4


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_stream_is_unchanged_and_counted_however_its_bytes_are_cut(tmp_path: Path, size: int) -> None:
    events = b'data: {"choices": []}\n\ndata: {"timings": {"cache_n": 2,"prompt_n": 1,"predicted_n": 5}}\n\n'
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head)
        for at in range(0, len(events), size):
            await asyncio.sleep(0.001)
            part = events[at : at + size]
            writer.write(b"%x\r\n%b\r\n" % (len(part), part))
        writer.write(b"0\r\n\r\n")
        writer.close()

    async def ask() -> None:
        async with await asyncio.start_unix_server(answer, tmp_path / "0.sock"):
            connection = LlamaCppConnection(tmp_path / "0.sock")
            reply = await connection.send("POST", "/v1/completions")
            assert await reply.read() == events
            assert reply.tokens == TokenCount(3, 5)
            await connection.close()

    asyncio.run(ask())
