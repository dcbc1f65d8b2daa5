"""The page on the demo's own models: a language model in vLLM, embeddings, pictures."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import skimage
from playwright.sync_api import Page, expect

from tests.clients.playground.conftest import Playground, ask, choose, open_parameters, playing, tab
from tests.conftest import Platform
from tests.services.chromium import NEEDS_CHROMIUM
from tests.services.polling import wait_until

pytestmark = NEEDS_CHROMIUM
CAT = Path(skimage.__file__).parent / "data" / "chelsea.png"
CHAT, PICTURES = "smollm2-135m-instruct", "efficientnet-lite0"
SLOW_MS = 60_000


@pytest.fixture(scope="module")
def playground(tmp_path_factory: pytest.TempPathFactory, platform: Platform) -> Iterator[Playground]:
    with playing(tmp_path_factory.mktemp("playground"), platform.url) as playground:
        yield playground


@pytest.fixture
def page(visit: Callable[..., Page], playground: Playground) -> Page:
    page = visit(playground.url)
    expect(page.locator("#told")).to_contain_text("models ready")
    open_parameters(page)
    return page


def test_a_language_model_streams_twice_at_once_and_its_figures_are_shown(page: Page) -> None:
    choose(page, "Side by side with", CHAT)
    page.get_by_label("max_tokens").fill("40")
    ask(page, "What is the capital of France?")
    figures = re.compile(r"ttft [\d.,]+ m?s · [\d.,]+ tokens/s · \d+ tokens in, \d+ out · ended by (stop|length)")
    for side in ("left", "right"):
        expect(page.locator(f"#figures-{side}")).to_have_text(figures, timeout=SLOW_MS)
        expect(page.locator(f"#chat-{side} .bot")).to_contain_text("Paris")
    ask(page, "And of Italy?")
    expect(page.locator("#chat-left .bot")).to_have_count(2, timeout=SLOW_MS)
    expect(page.locator("#figures-left")).to_have_text(figures, timeout=SLOW_MS)


def test_stop_ends_the_generation_in_vllm(page: Page, platform: Platform) -> None:
    page.get_by_label("max_tokens").fill("2000")
    ask(page, "Count from 1 to 1000, one number a line.")
    expect(page.locator("#chat-left .bot")).to_contain_text(re.compile(r"\w+"), timeout=SLOW_MS)
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#figures-left")).to_contain_text("ended by the stop button")
    wait_until(lambda: not platform.status()[CHAT]["running"], 10)


def test_a_text_is_completed(page: Page) -> None:
    page.get_by_label("Completion", exact=True).check()
    page.get_by_label("max_tokens").fill("5")
    ask(page, "One, two, three,")
    expect(page.locator("#figures-left")).to_contain_text("5 out · ended by length", timeout=SLOW_MS)


def test_what_is_refused_is_told_in_words(page: Page) -> None:
    page.get_by_label("max_tokens").fill("1000000")
    ask(page, "hello")
    told = page.locator("#figures-left .problem")
    expect(told).to_contain_text(re.compile("token"), timeout=SLOW_MS)
    expect(told).not_to_contain_text("Traceback")


def test_a_picture_is_classified_and_the_live_page_moves(page: Page) -> None:
    tab(page, "Predict")
    choose(page, "Model", PICTURES, "#tab-predict")
    page.locator("#tab-predict input[type=file]").set_input_files(CAT)
    expect(page.locator("#tab-predict img[alt]").first).to_be_visible()
    page.locator("#tab-predict").get_by_role("button", name="Send").click()
    expect(page.locator("#bars")).to_contain_text(re.compile("cat|tabby"))
    tab(page, "Live")
    chart = page.locator("#live .tile path").first
    expect(chart).to_be_attached()
    before = chart.get_attribute("d")
    wait_until(lambda: chart.get_attribute("d") != before)
    expect(page.locator("#live")).to_contain_text(CHAT)
    expect(page.locator("#live h3", has_text="host")).to_be_visible()
