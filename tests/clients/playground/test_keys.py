"""Keys on the page: asked for, used, and nowhere to be found afterwards; and a platform that comes later."""

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from clients.ready import wait_until_ready
from tests.clients.playground.conftest import Playground, ask, playing, tab
from tests.conftest import LITPORT, REPOSITORY, Platform, serving
from tests.services.chromium import NEEDS_CHROMIUM
from tests.services.ports import free_port

pytestmark = [NEEDS_CHROMIUM, pytest.mark.long]
Visit = Callable[..., Page]
ALICE, HASTY, ROOT = "alice-0123456789", "hasty-0123456789", "root-01234567890"
KEYS = f"alice: {{key: {ALICE}}}\nhasty: {{key: {HASTY}, requests_per_minute: 1}}\nroot: {{key: {ROOT}, admin: true}}\n"
# Everything that a page keeps in the browser.
STORED = """async () => {
  const kept = [JSON.stringify(localStorage), JSON.stringify(sessionStorage), document.cookie, location.href];
  for (const {name} of await indexedDB.databases()) {
    const database = await new Promise((done) => indexedDB.open(name).onsuccess = (event) => done(event.target.result));
    for (const store of database.objectStoreNames) {
      const all = database.transaction(store).objectStore(store).getAll();
      kept.push(JSON.stringify(await new Promise((done) => all.onsuccess = () => done(all.result))));
    }
    database.close();
  }
  return kept.join(' ');
}"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("keys")
    keys = folder / "keys.yaml"
    keys.touch(mode=0o600)
    keys.write_text(KEYS)
    arguments = ["tests/clients/playground/parrot.py:ParrotAPI", "--auth.keys_file", str(keys)]
    quiet = ("--telemetry.metrics_port", "null", "--server.cache_dir", str(folder))
    with serving(folder, *arguments, *quiet) as platform:
        yield platform


@pytest.fixture(scope="module")
def playground(tmp_path_factory: pytest.TempPathFactory, served: Platform) -> Iterator[Playground]:
    """One that others can reach, started by Alice."""
    folder = tmp_path_factory.mktemp("playground")
    with playing(folder, served.url, "--host", "0.0.0.0", key=ALICE) as playground:
        yield playground


def enter(page: Page, key: str) -> None:
    box = page.get_by_label("API key")
    box.fill(key)
    box.press("Enter")


def test_the_key_is_asked_for_used_and_kept_nowhere(visit: Visit, playground: Playground) -> None:
    page = visit(playground.url)
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    expect(page.locator("#told")).to_contain_text("The platform wants a key.")
    assert page.get_by_label("API key").get_attribute("type") == "password"
    enter(page, "not-the-key-of-any")
    expect(page.locator("#told")).to_contain_text("does not know this key")
    enter(page, "schlüssel")
    expect(page.locator("#told")).to_contain_text("characters that no key has")
    enter(page, f" {ALICE} ")
    expect(page.locator("#told")).to_contain_text("1 of 1 models ready")
    ask(page, "hello")
    expect(page.locator("#figures-left")).to_contain_text("ended by stop")
    page.get_by_role("button", name="The request as code").first.click()
    expect(page.locator(".curl .cm-content").first).to_contain_text('"Authorization: Bearer $OPENAI_API_KEY"')
    expect(page.locator(".python .cm-content").first).to_contain_text("client = OpenAI(base_url=")
    page.get_by_role("tab", name="Similarity").click()
    expect(page.locator("#tab-similarity")).to_contain_text("No embedding model is served by this platform.")
    page.get_by_role("tab", name="Live").click()
    expect(page.locator("#live")).to_contain_text("parrot")
    assert ALICE not in page.content() + page.evaluate(STORED) + " ".join(urls)
    written = [file.read_bytes() for file in playground.temporary.rglob("*") if file.is_file()]
    assert [text for text in [*written, playground.log.read_bytes()] if ALICE.encode() in text] == []
    page.reload()
    expect(page.locator("#told")).to_contain_text("The platform wants a key.")


def test_too_many_requests_are_told_with_how_long_to_wait(visit: Visit, playground: Playground) -> None:
    page = visit(playground.url)
    expect(page.get_by_label("API key")).to_be_visible()
    enter(page, HASTY)
    expect(page.locator("#told")).to_contain_text("1 of 1 models ready")
    ask(page, "one")
    expect(page.locator("#figures-left")).to_contain_text("ended by stop")
    ask(page, "two")
    expect(page.locator("#figures-left")).to_contain_text(re.compile(r"Try again in \d+ s\."))


def test_the_key_of_who_started_it_is_not_for_visitors_from_elsewhere(visit: Visit, playground: Playground) -> None:
    page = visit(playground.url)
    expect(page.locator("#told")).to_contain_text("The platform wants a key.")
    assert "the API key is not used, as 0.0.0.0 lets others in" in playground.log.read_text()


def test_with_an_admin_key_a_model_is_changed_on_the_live_page(visit: Visit, playground: Playground) -> None:
    page = visit(playground.url)
    expect(page.get_by_label("API key")).to_be_visible()
    enter(page, ALICE)
    tab(page, "Live")
    page.get_by_role("button", name="Change a model").click()
    outcome, group = page.locator("#change-told"), page.locator("#live .group").first
    press = page.locator("#change").get_by_role("button", name="Unload")
    press.click()
    expect(outcome).to_contain_text("admin: true")
    enter(page, ROOT)
    press.click()
    expect(outcome).to_have_text("parrot is unloaded (before: ready).")
    expect(group).to_contain_text("unloaded")
    for button, text, answer in (
        ("Load", "", "parrot is ready (before: unloaded)."),
        ("Swap", "", "Enter what is to change"),
        ("Swap", "initial", "This is none: initial"),
        ("Swap", "no_such=1", "models.parrot.no_such"),
        ("Swap", "max_waiting=7", "v2 serves parrot, v1 is the way back"),
        ("Roll back", "", "v1 serves parrot, v2 is the way back"),
    ):
        page.get_by_label("Settings of a new version").fill(text)
        page.locator("#change").get_by_role("button", name=button, exact=True).click()
        expect(outcome).to_contain_text(answer)
    expect(group).to_contain_text("v1, v2 previous")


def test_the_key_of_who_started_it_is_used_on_their_own_machine(visit: Visit, served: Platform, tmp_path: Path) -> None:
    with playing(tmp_path, served.url, key=ALICE) as local:
        page = visit(local.url)
        expect(page.locator("#told")).to_contain_text("1 of 1 models ready")
        expect(page.get_by_label("API key")).to_be_hidden()
        ask(page, "hello")
        expect(page.locator("#figures-left")).to_contain_text("ended by stop")
        assert ALICE not in page.content()
        page.context.close()


def test_a_platform_that_starts_later_is_found(visit: Visit, tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with playing(tmp_path, url) as playground:
        page = visit(playground.url)
        expect(page.locator("#told")).to_contain_text(f"Nothing answers at {url}. Is `litport serve` running there?")
        ask(page, "hello")
        expect(page.locator("#figures-left")).to_contain_text("Choose a model first.")
        arguments = ["configs/recipes/echo.yaml", "--server.port", str(port), "--server.cache_dir", str(tmp_path)]
        command = [*LITPORT, "serve", *arguments, "--telemetry.metrics_port", "null"]
        log = tmp_path / "litport.log"
        with log.open("wb") as output, subprocess.Popen(command, cwd=REPOSITORY, stderr=output) as platform:
            try:
                wait_until_ready(url, 60)
            except TimeoutError as problem:
                raise TimeoutError(f"{problem}\n{log.read_text()}") from None
            else:
                page.get_by_role("button", name="Refresh").click()
                expect(page.locator("#told")).to_contain_text("1 of 1 models ready")
            finally:
                platform.terminate()
        page.get_by_role("tab", name="Live").click()
        expect(page.locator("#live [role=alert]")).to_contain_text("Nothing answers at")
        expect(page.locator("#live")).to_contain_text("echo")
        page.context.close()
