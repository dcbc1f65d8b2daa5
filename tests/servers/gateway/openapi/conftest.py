"""The documents of vLLM and of a running platform."""

import json
import subprocess
import sys
from typing import Any

import httpx
import pytest

from tests.conftest import REPOSITORY, Platform


@pytest.fixture(scope="session")
def of_vllm() -> dict[str, Any]:
    """What vLLM documents of a model that chats and hears."""
    command = [sys.executable, "-m", "tests.services.vllm_document", "generate", "transcription"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True, timeout=120)
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def live(small: Platform) -> dict[str, Any]:
    """The document of the running platform."""
    return dict(httpx.get(f"{small.url}/openapi.json", timeout=20).json())
