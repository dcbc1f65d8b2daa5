"""The page at /docs, as it is answered, and in a real browser: Debian's Chromium."""

import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import skimage
from playwright.sync_api import Browser, Locator, Page

from servers.gateway.openapi import docs_page as docs
from tests.conftest import Platform, serving
from tests.services.chromium import NEEDS_CHROMIUM, chromium
from tests.services.polling import wait_until

CAT = Path(skimage.__file__).parent / "data" / "chelsea.png"
KEY = "a-key-of-16-or-more-characters"


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """The echo, for those who have a key."""
    folder = tmp_path_factory.mktemp("keyed")
    keys = folder / "keys.yaml"
    keys.write_text(json.dumps({"alice": {"key": KEY}}))
    keys.chmod(0o600)
    arguments = ("--auth.keys_file", str(keys), "--telemetry.audit_file", str(folder / "audit.jsonl"))
    with serving(folder, "configs/recipes/echo.yaml", *arguments, timeout_s=120) as platform:
        yield platform


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@dataclass
class Window:
    """An open page, what its console said, and what it asked for."""

    page: Page
    console: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def operation(self, name: str) -> Locator:
        """The opened block of an operation."""
        block = self.page.locator(f"[id$='-{name}'].opblock")
        block.locator("button.opblock-summary-control").click()
        block.locator("button.execute").wait_for()
        return block


@pytest.fixture
def window(browser: Browser) -> Iterator[Window]:
    page = browser.new_page(viewport={"width": 1200, "height": 1400})
    window = Window(page)
    page.on("console", lambda message: window.console.append(message.text))
    page.on("pageerror", lambda error: window.console.append(str(error)))
    page.on("request", lambda request: window.asked.append(request.url))
    yield window
    page.close()


def execute(block: Locator) -> tuple[int, str]:
    """Send what stands there; the status and the body of the answer."""
    block.locator("button.execute").click()
    answer = block.locator(".live-responses-table .response").first
    answer.wait_for(timeout=60_000)
    return int(answer.locator(".response-col_status").inner_text().split()[0]), answer.inner_text()


# What is answered.


@pytest.mark.parametrize("path", sorted(docs.PATHS))
def test_page_and_files_need_no_key_and_may_load_nothing_from_elsewhere(keyed: Platform, path: str) -> None:
    answer = httpx.get(keyed.url + path, timeout=10)
    assert answer.status_code == 200
    policy = dict(rule.split(" ", 1) for rule in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert KEY.encode() not in answer.content
    head = httpx.head(keyed.url + path, timeout=10)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(answer.content))


def test_files_are_kept_for_as_long_as_they_are_the_same_and_the_page_is_not(keyed: Platform) -> None:
    page = httpx.get(f"{keyed.url}/docs", timeout=10)
    assert page.headers["cache-control"] == "no-cache"
    linked = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert {f"/{link.partition('?')[0]}" for link in linked} == docs.PATHS - {"/docs"}
    for link in linked:
        assert re.fullmatch(r"[^?]+\?[0-9a-f]{12}", link)
        assert "immutable" in httpx.get(f"{keyed.url}/{link}", timeout=10).headers["cache-control"]


def test_what_it_shows_does_need_a_key(keyed: Platform) -> None:
    home = httpx.get(f"{keyed.url}/", timeout=10)
    assert home.status_code == 200
    assert "This server wants a key" in home.text
    assert "echo" not in home.text
    assert httpx.get(f"{keyed.url}/openapi.json", timeout=10).status_code == 401
    allowed = httpx.get(f"{keyed.url}/openapi.json", headers={"x-api-key": KEY}, timeout=10)
    assert allowed.json()["security"] == [{"key": []}]


def test_other_methods_and_other_files_are_refused(keyed: Platform) -> None:
    assert httpx.post(f"{keyed.url}/docs", timeout=10).headers["allow"] == "GET"
    for path in ("/docs/", "/docs/main.py", "/docs/..%2f..%2fmain.py", "/docs/swagger-ui-bundle.js/x"):
        headers = {"x-api-key": KEY}
        assert httpx.get(keyed.url + path, headers=headers, timeout=10).json()["error"]["code"] == "unknown_route"


def test_the_audit_notes_the_page_without_a_key(keyed: Platform) -> None:
    request_id = uuid.uuid4().hex

    def lines() -> list[dict[str, Any]]:
        log = keyed.log.with_name("audit.jsonl").read_text().splitlines()
        return [line for line in map(json.loads, log) if line["request_id"] == request_id]

    httpx.get(f"{keyed.url}/docs", headers={"x-request-id": request_id}, timeout=10)
    (line,) = wait_until(lines)  # it is written after the answer
    assert (line["path"], line["status"], line["key"]) == ("/docs", 200, None)


# In a browser.


@NEEDS_CHROMIUM
def test_every_operation_is_shown_and_nothing_is_complained_about_or_loaded_from_elsewhere(
    small: Platform, window: Window
) -> None:
    window.page.goto(f"{small.url}/docs")
    window.page.locator(".opblock").first.wait_for()
    paths = httpx.get(f"{small.url}/openapi.json", timeout=10).json()["paths"]
    shown = window.page.locator(".opblock-summary-path").all_inner_texts()
    assert sorted(text.replace("\u200b", "") for text in shown) == sorted(paths)
    assert window.console == []
    assert {urlsplit(url).netloc for url in window.asked} == {urlsplit(small.url).netloc}
    assert not window.page.locator("#ask").is_visible()
    assert window.page.locator(".authorize").count() == 0, "there is nothing to authorize with"


@NEEDS_CHROMIUM
@pytest.mark.parametrize("path", ["docs", pytest.param("", marks=pytest.mark.long)])
def test_the_pages_fit_a_narrow_window_and_follow_the_dark_scheme(small: Platform, browser: Browser, path: str) -> None:
    with browser.new_context(viewport={"width": 400, "height": 900}, color_scheme="dark") as context:
        page = context.new_page()
        page.goto(f"{small.url}/{path}")
        page.locator(".opblock" if path else "h1").first.wait_for()
        if path:
            page.locator(".opblock-summary-control").first.click()
            page.locator("button.execute").first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") == 400
        for element in ("body", "documentElement"):
            colour = page.evaluate(f"getComputedStyle(document.{element}).backgroundColor")
            red, green, blue, *opacity = map(int, re.findall(r"\d+", colour))
            assert opacity == [0] or max(red, green, blue) < 60


@NEEDS_CHROMIUM
def test_the_echo_can_be_tried_as_it_stands(small: Platform, window: Window) -> None:
    window.page.goto(f"{small.url}/docs")
    status, text = execute(window.operation("predict_echo"))
    assert status == 200
    assert re.search(r'"output": "canary"', text)
    assert window.console == []


@pytest.mark.long
@NEEDS_CHROMIUM
def test_vectors_can_be_tried_as_they_stand(small: Platform, window: Window) -> None:
    window.page.goto(f"{small.url}/docs")
    status, text = execute(window.operation("create_embedding"))
    assert status == 200
    assert '"embedding": [' in text
    assert window.console == []


@pytest.mark.long
@NEEDS_CHROMIUM
def test_a_picture_can_be_chosen_and_sent(small: Platform, window: Window) -> None:
    window.page.goto(f"{small.url}/docs")
    block = window.operation("predict_efficientnet_lite0")
    block.locator("input[type=file]").set_input_files(CAT)
    status, text = execute(block)
    assert status == 200
    assert "tabby" in text
    assert window.console == []


@NEEDS_CHROMIUM
def test_a_wrong_key_is_told_in_words_and_the_right_one_opens_the_page_and_goes_along(
    keyed: Platform, window: Window
) -> None:
    page = window.page
    page.goto(f"{keyed.url}/docs")
    field = page.get_by_label("This server wants a key")
    assert field.get_attribute("type") == "password"
    assert not any("openapi.json" in url for url in window.asked), "it does not ask where it would be refused"
    for wrong, words in (("not-the-key", "the server does not know it"), ("käse", "only ASCII")):
        field.fill(wrong)
        page.get_by_role("button", name="Use it").click()
        page.get_by_text(words).wait_for()
    assert page.locator(".opblock").count() == 0
    window.console.clear()  # where the browser itself notes the 401

    field.fill(KEY)
    page.get_by_role("button", name="Use it").click()
    page.locator(".opblock").first.wait_for()
    assert not field.is_visible()
    assert not page.get_by_role("alert").is_visible()
    status, _ = execute(window.operation("predict_echo"))
    assert status == 200
    assert window.console == []
    assert not any(KEY in url for url in window.asked)
    assert "Bearer YOUR-KEY" in page.inner_text("body"), "in the command line to copy"
    assert KEY not in page.content()


@NEEDS_CHROMIUM
def test_a_key_is_kept_nowhere_but_in_the_page(keyed: Platform, window: Window) -> None:
    page = window.page
    page.goto(f"{keyed.url}/docs")
    page.get_by_label("This server wants a key").fill(KEY)
    page.get_by_role("button", name="Use it").click()
    page.locator(".opblock").first.wait_for()
    assert page.context.storage_state() == {"cookies": [], "origins": []}
    assert page.evaluate("[localStorage.length, sessionStorage.length]") == [0, 0]
    page.reload()
    assert page.get_by_label("This server wants a key").input_value() == ""
    assert page.locator(".opblock").count() == 0
