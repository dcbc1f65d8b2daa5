"""The page in a real browser, on a real platform without vLLM."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import skimage
from playwright.sync_api import Page, expect

from tests.clients.playground.conftest import Playground, ask, choose, open_parameters, playing, tab
from tests.conftest import Platform, serving
from tests.services.chromium import NEEDS_CHROMIUM
from tests.services.polling import wait_until

pytestmark = NEEDS_CHROMIUM
Visit = Callable[..., Page]
CAT = Path(skimage.__file__).parent / "data" / "chelsea.png"
MANY_WORDS = " ".join(f"word{number}" for number in range(200))
LONG_ANSWER = "word0 word1" + 60 * " pause"  # still under way on a slow machine when a test looks
RECIPE = """
models:
  parrot: {engine: litserve, api: "tests/clients/playground/parrot.py:ParrotAPI"}
  second: {engine: litserve, api: "tests/clients/playground/parrot.py:ParrotAPI", init: {says: "I say:"}}
  echo: {engine: litserve, api: echo}
  broken: {engine: litserve, api: "tests/services/strangers/broken.py:BrokenAPI", required: false}
  all-minilm-l6-v2: {engine: litserve, api: embedding, source: all-minilm-l6-v2}
  efficientnet-lite0: {engine: litserve, api: image_classification, source: efficientnet-lite0}
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, model_cache: Path) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("served")
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE)
    quiet = ("--telemetry.metrics_port", "null")
    with serving(folder, str(recipe), "--server.cache_dir", str(model_cache), *quiet) as platform:
        yield platform


@pytest.fixture(scope="module")
def playground(tmp_path_factory: pytest.TempPathFactory, served: Platform) -> Iterator[Playground]:
    with playing(tmp_path_factory.mktemp("playground"), served.url) as playground:
        yield playground


@pytest.fixture
def page(visit: Visit, playground: Playground) -> Page:
    page = visit(playground.url)
    expect(page.locator("#told")).to_contain_text("5 of 6 models ready")
    return page


def test_an_answer_streams_and_its_figures_are_shown(page: Page) -> None:
    ask(page, MANY_WORDS)
    expect(page.locator("#chat-left .bot")).to_contain_text("word3 ")
    expect(page.locator("#chat-left .bot")).not_to_contain_text("word199")
    figures = re.compile(r"ttft \d+ ms · [\d.]+ tokens/s · 1 tokens in, 200 out · ended by stop")
    expect(page.locator("#figures-left")).to_have_text(figures)
    expect(page.locator("#chat-left .bot")).to_contain_text("word199")


def test_two_models_answer_at_the_same_time_until_they_are_stopped(page: Page, served: Platform) -> None:
    choose(page, "Side by side with", "second")
    ask(page, LONG_ANSWER)
    expect(page.locator("#chat-right .bot")).to_contain_text("I say: word0 word1 ")
    expect(page.locator("#chat-left .bot")).to_contain_text("word1 ")
    running = {name: model["running"] for name, model in served.status().items()}
    assert (running["parrot"], running["second"]) == (1, 1)
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#figures-left")).to_contain_text("ended by the stop button")
    expect(page.locator("#figures-right")).to_contain_text("ended by the stop button")
    wait_until(lambda: all(model["running"] == 0 for model in served.status().values()))
    expect(page.locator("#chat-left .bot")).to_contain_text("word1 ")


def test_a_conversation_goes_on_and_is_sent_whole(page: Page) -> None:
    ask(page, "one")
    expect(page.locator("#figures-left")).to_contain_text("ended by stop")
    ask(page, "two")
    expect(page.locator("#figures-left")).to_contain_text("3 tokens in")  # the parrot counts messages


@pytest.mark.long
def test_a_new_question_ends_the_answer_before(page: Page, served: Platform) -> None:
    ask(page, LONG_ANSWER)
    expect(page.locator("#chat-left .bot")).to_contain_text("word1 ")
    ask(page, "short")
    expect(page.locator("#figures-left")).to_contain_text("3 tokens in, 1 out · ended by stop")
    wait_until(lambda: served.status()["parrot"]["running"] == 0)


def test_parameters_are_sent_and_shown_as_code(page: Page) -> None:
    open_parameters(page)
    for label, value in {"temperature": "0.5", "max_tokens": "7", "seed": "9007199254740993", "stop": "a\nb"}.items():
        page.get_by_role("textbox", name=re.compile(f"^{label}")).fill(value)
    page.get_by_label("System message").fill("You're a parrot.")
    ask(page, 'it\'s "me"')
    expect(page.locator("#figures-left")).to_contain_text("2 tokens in")
    page.get_by_role("button", name="The request as code").first.click()
    curl, python = page.locator(".curl .cm-content").first, page.locator(".python .cm-content").first
    for part in ('"temperature": 0.5', '"max_tokens": 7', '"seed": 9007199254740993', 'it\'"\'"\'s \\"me\\"'):
        expect(curl).to_contain_text(part)
    expect(python).to_contain_text("stop=['a', 'b']")
    page.get_by_label("temperature").fill("warm")
    ask(page, "again")
    expect(page.locator("#figures-left")).to_have_text("temperature: expected a number, got 'warm'.")


def test_a_broken_answer_is_told_in_words_and_keeps_what_came(page: Page) -> None:
    ask(page, "so far fail and on")
    expect(page.locator("#figures-left")).to_contain_text("The answer broke off")
    expect(page.locator("#chat-left .bot")).to_contain_text("so far")


@pytest.mark.long
def test_a_route_that_a_model_does_not_have_is_told_in_words(page: Page) -> None:
    open_parameters(page)
    page.get_by_label("Completion", exact=True).check()
    ask(page, "once upon")
    expect(page.locator("#figures-left")).to_contain_text("does not serve /v1/completions")


def test_a_visitor_who_leaves_ends_the_request(visit: Visit, playground: Playground, served: Platform) -> None:
    page = visit(playground.url)
    expect(page.locator("#told")).to_contain_text("models ready")
    ask(page, LONG_ANSWER)
    wait_until(lambda: served.status()["parrot"]["running"] == 1)
    page.close()
    wait_until(lambda: served.status()["parrot"]["running"] == 0, timeout_s=3)


@pytest.mark.long
def test_visitors_do_not_wait_for_each_other(page: Page, visit: Visit, playground: Playground) -> None:
    others = [visit(playground.url) for _ in range(2)]
    for other in (page, *others):
        expect(other.locator("#told")).to_contain_text("models ready")
    choose(page, "Model", "second", "#tab-chat")
    ask(page, LONG_ANSWER)
    expect(page.locator("#chat-left .bot")).to_contain_text("word1 ")
    for other in others:
        ask(other, "quick")
        expect(other.locator("#figures-left")).to_contain_text("ended by stop")
    expect(page.locator("#figures-left")).not_to_contain_text("ended by")
    page.get_by_role("button", name="Stop").click()


def test_a_picture_is_classified_and_its_labels_are_bars(page: Page, tmp_path: Path) -> None:
    picture = tmp_path / 'my "cat".png'
    shutil.copy(CAT, picture)
    tab(page, "Predict")
    choose(page, "Model", "efficientnet-lite0", "#tab-predict")
    page.locator("#tab-predict input[type=file]").set_input_files(picture)
    expect(page.locator("#tab-predict img[alt]").first).to_be_visible()
    page.locator("#tab-predict").get_by_role("button", name="Send").click()
    expect(page.locator("#bars")).to_contain_text("tiger cat")
    expect(page.locator("#predict-figures").filter(has_text="answered in")).to_be_visible()
    page.locator("#tab-predict").get_by_role("button", name="The request as code").click()
    expect(page.locator("#tab-predict .curl .cm-content")).to_contain_text("-F 'image=@\"")
    choose(page, "Model", "echo", "#tab-predict")
    expect(page.locator("#bars")).not_to_be_visible()
    expect(page.locator("#predict-figures")).to_have_text("")


def test_a_form_follows_the_schema_and_its_mistakes_are_told(page: Page) -> None:
    tab(page, "Predict")
    choose(page, "Model", "echo", "#tab-predict")
    box = page.get_by_role("textbox", name="input")
    expect(box).to_have_value("canary")
    box.fill('{"deep": [1, "ü"]}')
    box.press("Enter")
    answer = page.locator("#tab-predict .cm-content").first
    expect(answer).to_contain_text('"deep"')
    page.get_by_label("as JSON").check()
    whole = page.get_by_role("textbox", name="JSON")
    expect(whole).to_have_value(re.compile('"input": "canary"'))
    whole.fill('{"input"')
    page.locator("#tab-predict").get_by_role("button", name="Send").click()
    expect(page.locator("#predict-figures")).to_contain_text("expected JSON")


@pytest.mark.long
def test_lines_of_a_streamed_prediction_come_one_by_one(page: Page) -> None:
    tab(page, "Predict")
    choose(page, "Model", "second", "#tab-predict")
    page.get_by_label("as JSON").check()
    body = {"messages": [{"role": "user", "content": MANY_WORDS[:500]}], "stream": True}
    box = page.get_by_role("textbox", name="JSON")
    expect(box).to_have_value(re.compile('"messages"'))  # what is entered before would be replaced by it
    box.fill(json.dumps(body))
    page.locator("#tab-predict").get_by_role("button", name="Send").click()
    answer = page.locator("#tab-predict .cm-content").first
    expect(answer).to_contain_text("word0")
    expect(page.locator("#predict-figures")).to_have_text("waiting for the answer…")
    expect(page.locator("#predict-figures")).to_contain_text("answered in")


@pytest.mark.long
def test_a_model_that_is_not_ready_is_told_with_its_state_and_detail(page: Page) -> None:
    tab(page, "Predict")
    choose(page, "Model", "broken", "#tab-predict")
    page.get_by_role("textbox", name="JSON").fill("{}")
    page.locator("#tab-predict").get_by_role("button", name="Send").click()
    expect(page.locator("#predict-figures")).to_contain_text("model 'broken' is")
    expect(page.locator("#predict-figures")).to_contain_text("weights.bin")


def test_sentences_are_compared(page: Page) -> None:
    tab(page, "Similarity")
    page.get_by_label("Sentences").fill("a cat\na kitten\nthe stock market")
    page.get_by_role("button", name="Compare").click()
    cells = page.locator(".matrix tbody td")
    expect(cells).to_have_count(9)
    expect(cells.first).to_be_visible()
    values = [float(text) for text in cells.all_inner_texts()]
    assert values[0] == values[4] == values[8] == 1
    assert values[1] > values[2]
    page.get_by_label("Sentences").fill("alone")
    page.get_by_role("button", name="Compare").click()
    expect(page.locator("#similarity-told")).to_contain_text("Enter 2 to 30 sentences")


@pytest.mark.long
def test_the_live_page_moves_and_what_is_unknown_is_a_dash(page: Page) -> None:
    ask(page, MANY_WORDS)
    tab(page, "Live")
    groups = page.locator("#live .group")
    parrot = groups.filter(has=page.get_by_role("heading", name="parrot"))
    expect(parrot.locator(".tile", has_text="running")).to_contain_text("1 / 0")
    expect(parrot.locator(".tile", has_text="running")).to_contain_text("0 / 0")
    chart = parrot.locator(".tile path").first
    before = chart.get_attribute("d")
    wait_until(lambda: chart.get_attribute("d") != before)
    expect(groups.filter(has=page.get_by_role("heading", name="broken")).locator("b").first).to_be_visible()
    expect(groups.filter(has=page.get_by_role("heading", name="broken"))).to_contain_text("duration p50 / p95- / -")


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_is_wider_than_the_window_and_every_input_has_a_name(
    visit: Visit, playground: Playground, width: int
) -> None:
    page = visit(playground.url, width)
    expect(page.locator("#told")).to_contain_text("models ready")
    open_parameters(page)
    for name in ("Chat", "Predict", "Similarity", "Live"):
        tab(page, name)
        expect(page.locator(f"#tab-{name.lower()}")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == width
        boxes = page.locator(f"#tab-{name.lower()}").locator("input:visible, textarea:visible")
        nameless = "boxes => boxes.filter(box => !box.labels?.length && !box.ariaLabel).map(box => box.outerHTML)"
        assert boxes.evaluate_all(nameless) == []


def test_the_keyboard_is_enough(page: Page) -> None:
    page.get_by_label("Prompt").focus()
    page.keyboard.type("typed")
    reached = []
    for _ in range(3):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent.trim()"))
    assert reached == ["Send", "Stop", "Clear"]
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    expect(page.locator("#chat-left .bot")).to_contain_text("typed")


def test_markdown_of_an_answer_is_drawn_and_html_is_text(page: Page) -> None:
    text = "**bold** ![](http://127.0.0.1:9/a.png) <img src='b.png'> <b>thin</b> <script>alert(1)</script> end"
    ask(page, text)
    expect(page.locator("#figures-left")).to_contain_text("ended by stop")
    answer = page.locator("#chat-left .bot")
    expect(answer).to_contain_text(text.replace("**", ""))
    expect(answer.locator("strong")).to_have_text("bold")
    expect(answer.locator("img, b, script")).to_have_count(0)
    expect(page.locator("#chat-left label")).to_contain_text("parrot")
    ask(page, "again")
    expect(page.locator("#figures-left")).to_contain_text("3 tokens in")


@pytest.mark.long
def test_a_model_that_dies_is_told_in_words(page: Page) -> None:
    choose(page, "Model", "second", "#tab-chat")
    ask(page, "a b c die")
    expect(page.locator("#figures-left")).to_contain_text("The answer broke off")
    ask(page, "again")
    expect(page.locator("#figures-left")).to_contain_text("ended by stop")  # by the worker that takes its place
