"""The page of a running platform, read without a pause while its model dies, comes back, and the platform ends."""

import os
import signal
import time
from pathlib import Path

import httpx
import pytest

from tests.conftest import litport, serving
from tests.services.page_reader import Reader, metrics_url, state, values

ECHO = ("configs/recipes/echo.yaml", "--models.echo.canary_interval_s", "0.5")


@pytest.mark.long
def test_no_reading_fails_or_is_stale_while_a_model_dies_comes_back_and_drains(tmp_path: Path) -> None:
    with serving(tmp_path, *ECHO) as platform:
        reader = Reader(metrics_url(platform))
        reader.start()
        for _ in range(3):
            assert httpx.post(f"{platform.url}/predict/echo", json={"input": 1}).status_code == 200
        group = platform.status()["echo"]["group_id"]
        assert isinstance(group, int)
        before = values(httpx.get(reader.url).text)
        os.killpg(group, signal.SIGKILL)
        killed_s = time.monotonic()
        while platform.status()["echo"]["restarts"] == 0 or platform.status()["echo"]["state"] != "ready":
            time.sleep(0.05)
        back_s = time.monotonic()
        after = values(httpx.get(reader.url).text)
        reader.ending.set()
    reader.join(timeout=30)

    assert reader.problems == []
    meanwhile = [
        page for at_s, page in reader.pages if killed_s + 0.1 < at_s < back_s and state(page, "echo") != "ready"
    ]
    assert len(meanwhile) > 20
    for page in meanwhile:
        assert ("litserve_" in page) == ('litport_model_scrape_success{model="echo"} 1' in page)
    assert "litserve_" not in meanwhile[0]  # those of the dead are gone at once

    http = "litserve_step_requests_total[('model', 'echo'), ('step', 'http')]"
    assert before[http] >= 4  # the three, and what the model was asked when it came up
    assert after[http] < before[http]  # a new process has counted its own only
    assert after["litport_model_restarts_total[('model', 'echo')]"] == 1
    assert after["litport_model_transitions_total[('model', 'echo'), ('state', 'ready')]"] == 2
    assert {"ready", "draining", "stopped"} <= {state(page, "echo") for _, page in reader.pages} | {"stopped"}


@pytest.mark.long
def test_the_port_of_the_page_is_taken_and_has_nothing_else(tmp_path: Path) -> None:
    with serving(tmp_path, *ECHO) as platform:
        for path in ("/", "/status", "/metrics/x"):
            assert httpx.get(metrics_url(platform).removesuffix("/metrics") + path).status_code == 404
        port = metrics_url(platform).removesuffix("/metrics").rpartition(":")[2]
        ended = litport("serve", *ECHO, "--server.port", "0", "--telemetry.metrics_port", port)
        assert ended.returncode == 2
        by = f"process {platform.process.pid} (litport)"
        message = f"port {port} of 127.0.0.1 is in use by {by}; choose another, as in --telemetry.metrics_port 0"
        assert ended.stderr == f"litport: {message}\n"


@pytest.mark.long
def test_nothing_listens_where_the_settings_want_no_page(tmp_path: Path) -> None:
    off = ("--telemetry.metrics_port", "null", "--telemetry.sample_interval_s", "null")
    with serving(tmp_path, *ECHO, *off) as platform:
        status = httpx.get(f"{platform.url}/status").json()
        assert status["metrics_address"] is None
        assert status["hardware"] is None
        assert httpx.get(f"{platform.url}/metrics").status_code == 404
