"""A client generated from an OpenAPI document, by a generator that knows nothing of us."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

GENERATOR = Path(sys.executable).with_name("openapi-generator-cli")
_ONLY_CODE = "apiTests=false,modelTests=false,apiDocs=false,modelDocs=false"


def generate(document: dict[str, Any], folder: Path) -> Path:
    """Write the package `openapi_client` into the folder and return where it can be imported from."""
    file = folder / "openapi.json"
    file.write_text(json.dumps(document))
    client = folder / "client"
    command = [str(GENERATOR), "generate", "-i", str(file), "-g", "python", "-o", str(client)]
    done = subprocess.run(
        [*command, "--global-property", _ONLY_CODE], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return client


def call(client: Path, script: str, *arguments: str) -> Any:
    """Run a script that imports the client, in a process of its own, and return the JSON that it prints."""
    environ = {**os.environ, "PYTHONPATH": str(client)}
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=environ,
        cwd=client,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)
