"""The page of the report in a real browser: Debian's Chromium, without a screen and without a network."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.result import Result
from tests.services.chromium import CHROMIUM, NEEDS_CHROMIUM

DARK_INK, LIGHT_INK = "rgb(230, 233, 237)", "rgb(27, 31, 36)"
pytestmark = NEEDS_CHROMIUM


@pytest.fixture
def page(result: Result, tmp_path: Path) -> Path:
    file = tmp_path / "report.html"
    file.write_text(report.html(result), encoding="utf-8")
    return file


def test_every_chart_is_drawn_and_nothing_is_complained_about(page: Path) -> None:
    dom, console = browse(page)
    assert console == []
    charts = re.findall(r'<div class="chart[^"]*" id="chart-\d+"[^>]*>(.*?)<ul class="legend">', dom, re.DOTALL)
    assert len(charts) == 13
    assert [number for number, chart in enumerate(charts) if '<svg class="main-svg"' not in chart] == []
    assert [number for number, chart in enumerate(charts) if not re.search(r'class="(point|trace)', chart)] == []


def test_hostile_words_are_shown_and_not_run(page: Path) -> None:
    dom, console = browse(page)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;: what serving costs</h1>" in dom
    assert "<script>alert" not in dom
    assert "<img" not in dom
    assert console == []


def test_the_page_asks_for_nothing(page: Path, tmp_path: Path) -> None:
    log = tmp_path / "net.json"
    browse(page, f"--log-net-log={log}")
    assert requests_of_pages(log) == []


@pytest.mark.long
def test_a_page_that_asked_for_something_would_be_noticed(page: Path, tmp_path: Path) -> None:
    url = "http://127.0.0.1:9/picture.png"
    text = page.read_text(encoding="utf-8").replace("</body>", f'<img src="{url}"></body>')
    page.write_text(text, encoding="utf-8")
    _, console = browse(page)
    assert any("Content Security Policy" in line for line in console)

    page.write_text(re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text), encoding="utf-8")
    log = tmp_path / "net.json"
    browse(page, f"--log-net-log={log}")
    assert url in requests_of_pages(log)


@pytest.mark.parametrize(("scheme", "ink"), [("0", DARK_INK), pytest.param("1", LIGHT_INK, marks=pytest.mark.long)])
@pytest.mark.long
def test_charts_have_the_colours_of_the_theme(page: Path, scheme: str, ink: str) -> None:
    dom, _ = browse(page, f"--blink-settings=preferredColorScheme={scheme}")
    (other,) = {DARK_INK, LIGHT_INK} - {ink}
    assert f"fill: {ink}" in dom
    assert f"fill: {other}" not in dom


@pytest.mark.long
def test_an_axis_may_be_logarithmic(page: Path) -> None:
    def ticks() -> tuple[list[str], list[str]]:
        dom, console = browse(page)
        return re.findall(r'<g class="xtick"><text[^>]*>([^<]*)', dom[: dom.index('id="chart-1"')]), console

    before, _ = ticks()
    append(page, "document.querySelector('input[data-axes]').click();")
    after, console = ticks()
    assert console == []
    assert "0" in before
    assert after
    assert "0" not in after


@pytest.mark.long
def test_a_choice_draws_another_figure(page: Path) -> None:
    labels = r'<g class="ytick"><text[^>]*>([^<]*)'
    before = re.findall(labels, browse(page)[0])
    script = (
        "const select = document.querySelector('select');select.value = '1'; select.dispatchEvent(new Event('change'));"
    )
    append(page, script)
    dom, console = browse(page)
    after = re.findall(labels, dom)
    assert console == []
    assert before[:3] == ["transformers (batch 4)", "vllm", "litport"]
    assert after[:3] == ["transformers", "vllm", "litport"]


@pytest.mark.parametrize("width", [400, pytest.param(1400, marks=pytest.mark.long)])
def test_nothing_is_wider_than_the_window(page: Path, tmp_path: Path, width: int) -> None:
    # A window of Chromium's has a least width, a frame has not.
    append(page, "parent.postMessage([innerWidth, document.documentElement.scrollWidth], '*');")
    frame = tmp_path / "frame.html"
    frame.write_text(
        "<script>addEventListener('message', (event) => document.body.dataset.widths = JSON.stringify(event.data))"
        f"</script><iframe src='{page.name}' style='width:{width}px;height:900px;border:0'></iframe>",
        encoding="utf-8",
    )
    dom, _ = browse(frame)
    found = re.search(r'data-widths="\[(\d+),(\d+)\]"', dom)
    assert found is not None
    assert (int(found[1]), int(found[2])) == (width, width)


def browse(page: Path, *options: str) -> tuple[str, list[str]]:
    """The page's document once its scripts have run, and what the browser's console said."""
    command = [
        str(CHROMIUM),
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",  # containers have little of it
        "--hide-scrollbars",
        "--no-first-run",
        "--disable-background-networking",
        "--proxy-server=127.0.0.1:9",  # what the browser itself would fetch comes from nowhere
        f"--user-data-dir={page.parent / 'profile'}",
        "--enable-logging=stderr",
        "--v=0",
        "--virtual-time-budget=10000",
        "--window-size=1500,1000",
        *options,
        "--dump-dom",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def requests_of_pages(log: Path) -> list[str]:
    """The URLs that a page asked for, from Chromium's log of its network; the browser's own have no origin."""
    document = json.loads(log.read_text(encoding="utf-8"))
    begun = document["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    asked = [
        event["params"] for event in document["events"] if event["type"] == begun and "url" in event.get("params", {})
    ]
    return [request["url"] for request in asked if request.get("initiator") != "not an origin"]


def append(page: Path, script: str) -> None:
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
