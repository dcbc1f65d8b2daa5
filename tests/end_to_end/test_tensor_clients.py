"""The clients of Triton and KServe, unmodified, against the shared platform.

Their requirements disagree with our locks, so each has a Python of its own, named by TRITON_PYTHON or KSERVE_PYTHON.
"""

import json
import os
import subprocess
from typing import Any

import numpy as np
import pytest

from tests.conftest import REPOSITORY, Platform
from tests.end_to_end.test_generic import CAT

PROGRAMS = REPOSITORY / "tests" / "services" / "tensor_clients"
TEXTS = ["A cat sits on the mat.", "Serving costs something.", "x"]
pytestmark = pytest.mark.long


def _needs(variable: str, package: str) -> pytest.MarkDecorator:
    reason = f"NOT TESTED: {package}; name a Python that has it by {variable}"
    return pytest.mark.skipif(variable not in os.environ, reason=reason)


def _run(platform: Platform, python: str, program: str) -> dict[str, Any]:
    command = [python, str(PROGRAMS / program), platform.url.removeprefix("http://"), str(CAT)]
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert outcome.returncode == 0, outcome.stderr
    document: dict[str, Any] = json.loads(outcome.stdout.splitlines()[-1])
    return document


def _vectors(platform: Platform) -> list[list[float]]:
    body = {"model": "all-minilm-l6-v2", "input": TEXTS}
    answer = platform.http.post("/v1/embeddings", json=body, timeout=60).json()
    return [row["embedding"] for row in answer["data"]]


def _labels(platform: Platform) -> list[str]:
    answer = platform.http.post("/predict/efficientnet-lite0", files={"image": CAT.read_bytes()}, timeout=60).json()
    return [entry["label"] for entry in answer["predictions"]]


@_needs("TRITON_PYTHON", "tritonclient[http]")
def test_tritons_client_infers_in_every_form_and_reads_the_errors(platform: Platform) -> None:
    report = _run(platform, os.environ["TRITON_PYTHON"], "with_triton.py")
    assert (report["live"], report["ready"], report["models_ready"]) == (True, True, [True, True, False])
    assert report["metadata"]["outputs"] == [{"name": "embedding", "datatype": "FP32", "shape": [-1, 384]}]
    for vectors in report["vectors"]:
        np.testing.assert_allclose(vectors, _vectors(platform), atol=1e-5)
    assert report["labels"] == [_labels(platform)[:3]] * 2
    assert report["shapes"] == [[3, 384]] * 8
    problems = {
        "name": ("400", "unexpected inference input 'words' for model 'all-minilm-l6-v2'; it has 'text'"),
        "shape": ("400", "unexpected shape for input 'text' for model 'all-minilm-l6-v2': expected [-1], got [1,3]"),
        "datatype": ("400", "data-type is 'FP32', but model 'all-minilm-l6-v2' expects 'BYTES'"),
        "cut": ("400", "input 'text': binary_data_size: expected at most the"),
        "no picture": ("400", "input 'image': element 1: expected a picture"),
        "classification": ("400", "output 'scores': parameters.classification: this extension is not offered"),
        "timeout": ("400", "unexpected parameter 'timeout' for model 'all-minilm-l6-v2'"),
        "unknown": ("404", "Request for unknown model: 'nobody' is not found"),
        "language model": ("400", "model 'smollm2-135m-instruct' does not serve /v2; it serves"),
        "repository": ("404", "POST /v2/repository/index is not served here"),
    }
    assert report["errors"].keys() == problems.keys()
    for name, (status, message) in problems.items():
        assert report["errors"][name][0] == status, name
        assert message in report["errors"][name][1], name


@_needs("KSERVE_PYTHON", "kserve")
def test_kserves_client_infers_in_both_forms_and_reads_the_errors(platform: Platform) -> None:
    report = _run(platform, os.environ["KSERVE_PYTHON"], "with_kserve.py")
    assert (report["live"], report["ready"], report["models_ready"]) == (True, True, [True, True, False])
    for vectors in report["vectors"]:
        np.testing.assert_allclose(vectors, _vectors(platform), atol=1e-5)
    assert report["labels"] == [_labels(platform)]
    assert "unexpected shape for input 'text' for model 'all-minilm-l6-v2': expected [-1], got [1,3]" in report["error"]
