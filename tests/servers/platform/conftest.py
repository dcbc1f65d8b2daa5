"""A platform over tiny servers that is brought to what a recipe says."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import httpx
import pytest

from configs.loading import LoadedSettings
from configs.settings import LitServeModel
from litport import main
from servers.engines import registry
from servers.engines.kind import EngineKind, Site
from servers.platform import targets
from tests.services.front_door import Door, open_door
from tests.services.tiny_engine import TinyEngine

ECHO: dict[str, Any] = {"engine": "litserve", "api": "echo"}
TWO = {"one": ECHO, "two": ECHO}


class Served(NamedTuple):
    """A platform over tiny servers, and the folder of its recipes."""

    door: Door
    folder: Path

    def apply(self, recipe: Mapping[str, Any] | str, *options: str) -> int:
        """Apply a recipe by the command; its exit status."""
        file = self.folder / "next.yaml"
        file.write_text(recipe if isinstance(recipe, str) else json.dumps(recipe))
        return main(["apply", str(file), "--port", str(self.door.port), "--yes", *options])

    def ask(self, name: str, **body: Any) -> httpx.Response:
        """The answer of a model."""
        return self.door.client.post("/v1/chat/completions", json={"model": name, **body})

    def pid(self, name: str) -> int:
        """The process that answers for a model."""
        answer: dict[str, int] = self.ask(name).raise_for_status().json()
        return answer["pid"]

    def audited(self) -> list[dict[str, Any]]:
        """The changes in the audit log."""
        lines = map(json.loads, (self.folder / "audit.jsonl").read_text().splitlines())
        return [line for line in lines if "change" in line]


def serve(folder: Path) -> Iterator[Served]:
    audit_file = str(folder / "audit.jsonl")
    (folder / "recipe.yaml").write_text(json.dumps({"models": TWO}))
    sections = {"audit_file": audit_file, "sample_interval_s": "null", "metrics_port": "9464"}
    overrides = [f"--telemetry.{name}={value}" for name, value in sections.items()]

    def read(recipes: Sequence[Path]) -> LoadedSettings:
        files = [str(path) for path in recipes] or [str(folder / "recipe.yaml")]
        return targets.load(files, [*overrides, f"--server.cache_dir={folder}"])

    def make(name: str, settings: LitServeModel, _: Site) -> TinyEngine:
        argv: Any = settings.init.get("argv", ["-m", "tests.services.tiny_server"])
        return TinyEngine(name, argv=argv)

    kind = EngineKind(LitServeModel, make, lambda settings: () if "argv" in settings.init else check(settings))
    check = registry._KINDS["litserve"].check_model
    telemetry = {"audit_file": audit_file}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        with (
            open_door(folder, TinyEngine("one"), TinyEngine("two"), read=read, telemetry=telemetry) as door,
            mock.patch.dict(registry._KINDS, {"litserve": kind}),
        ):
            yield Served(door, folder)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    yield from serve(tmp_path)
