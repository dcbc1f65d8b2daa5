"""A driver's library of our own, compiled for the session, and what runs programs against it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.services import gpus

REPOSITORY = Path(__file__).parents[3]
READ = """
import json, sys
from dataclasses import asdict
from servers.telemetry.nvml import Gpus
owners, times, step_s = json.loads(sys.argv[1])
gpus = Gpus()
readings = [[asdict(gpu) for gpu in gpus.read({int(pid): name for pid, name in owners.items()}, i * step_s)]
            for i in range(times)]
gpus.close()
gpus.close()
print(json.dumps({"error": gpus.error, "readings": readings}))
"""


@dataclass(frozen=True)
class Driver:
    """The library, and the file that says what it answers (see tests/services/nvml.c)."""

    library: Path
    answers: Path

    def run(self, program: str, answers: str, *arguments: str) -> Any:
        """What a Python program prints as JSON; it finds this library where it would find NVIDIA's."""
        self.answers.write_text(answers, encoding="utf-8")
        environ = {**os.environ, **gpus.environ(self.library, self.answers)}
        command = [sys.executable, "-W", "error", "-c", program, *arguments]
        result = subprocess.run(command, cwd=REPOSITORY, env=environ, capture_output=True, text=True, timeout=60)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    def read(
        self, answers: str, times: int = 1, owners: Mapping[int, str] | None = None, step_s: float = 1.0
    ) -> list[list[dict[str, Any]]]:
        """The GPUs, read `times` times, `step_s` apart by the clock they are told."""
        output = self.run(READ, answers, json.dumps([owners or {}, times, step_s]))
        assert output["error"] is None
        readings: list[list[dict[str, Any]]] = output["readings"]
        return readings

    def log(self) -> str:
        """What the library wrote when it was shut down."""
        return Path(f"{self.answers}.log").read_text(encoding="utf-8")


@pytest.fixture
def driver(library: Path, tmp_path: Path) -> Driver:
    return Driver(library, tmp_path / "answers")
