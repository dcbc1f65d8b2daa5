"""A running playground, and Debian's Chromium, which may fetch nothing from elsewhere and complain of nothing."""

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.conftest import LITPORT, REPOSITORY
from tests.services.chromium import chromium

expect.set_options(timeout=15_000)


@dataclass(frozen=True)
class Playground:
    """A running `litport playground`: its address, the file with what it said, the folder for its temporary files."""

    url: str
    log: Path
    temporary: Path


@contextlib.contextmanager
def playing(folder: Path, url: str, *arguments: str, key: str | None = None) -> Iterator[Playground]:
    """Run `litport playground` on a free port until the block ends; `key` is the environment's OPENAI_API_KEY."""
    log, temporary = folder / "playground.log", folder / "temporary"
    temporary.mkdir()
    environ = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    environ |= {"TMPDIR": str(temporary)} | ({"OPENAI_API_KEY": key} if key else {})
    with log.open("wb") as output:
        command = [*LITPORT, "playground", "--url", url, "--port", "0", *arguments]
        process = subprocess.Popen(command, cwd=REPOSITORY, env=environ, stdout=subprocess.PIPE, stderr=output)
    assert process.stdout is not None
    try:
        said = process.stdout.readline().decode()
        found = re.match(r"playground at (http://\S+) for", said)
        assert found is not None, said + log.read_text()
        yield Playground(found[1].replace("0.0.0.0", "127.0.0.1"), log, temporary)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(timeout=20) == 0
        finally:
            process.kill()
            process.stdout.close()
    assert list(temporary.iterdir()) == []
    assert "Traceback" not in log.read_text()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens a page as a new visitor, of a window of that width; all of them must then have behaved."""
    complaints: list[str] = []
    with contextlib.ExitStack() as stack:

        def visit(url: str, width: int = 1280) -> Page:
            context = browser.new_context(viewport={"width": width, "height": 900})
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(15_000)
            page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on(
                "request", lambda request: complaints.append(request.url) if _is_foreign(request.url, url) else None
            )
            page.goto(url)
            page.get_by_role("tab", name="Chat").wait_for()
            return page

        yield visit
    assert complaints == []


def _is_foreign(url: str, own: str) -> bool:
    return not url.startswith((own, "data:", "blob:"))


def tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def choose(page: Page, label: str, option: str, within: str = "body") -> None:
    page.locator(within).get_by_label(label, exact=True).click()
    page.get_by_role("option", name=option).click()


def open_parameters(page: Page) -> None:
    """Open the parameters of the chat; a field that is filled before Gradio has built all of them would be reset."""
    page.get_by_role("button", name="Parameters").click()
    expect(page.get_by_label("Completion", exact=True)).to_be_visible()
    expect(page.get_by_role("textbox", name=re.compile("^stop"))).to_be_visible()


def ask(page: Page, prompt: str) -> None:
    """Type the prompt and press Enter."""
    box = page.get_by_label("Prompt")
    box.fill(prompt)
    box.press("Enter")
