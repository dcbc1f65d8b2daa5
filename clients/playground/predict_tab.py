"""The tab for any other API: a form from the platform's OpenAPI document, and the answer, with labels as bars."""

import json
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import gradio as gr

from clients.playground import live, parts
from clients.playground.form import Field, Form, form_of
from clients.playground.platform import Platform, Problem

_UPDATE_EVERY_S = 0.2
# The line, the labels, the answer and the request as code, as they are before a model has answered.
_NOTHING = ("", gr.Label(visible=False), gr.Code(visible=False), "", "")


class PredictTab:
    """The tab, in the current block; `model` is its choice, and `absence` says that there is none.

    When `state_line` changes, the form is made again.
    """

    def __init__(self, platform: Platform, key: gr.Textbox, state_line: gr.HTML) -> None:
        self._platform = platform
        self.absence = gr.HTML(elem_classes="told")
        with gr.Row():
            self.model = gr.Dropdown([], label="Model", scale=4)
            as_json = gr.Checkbox(label="as JSON", scale=0, min_width=130)
        form = gr.State(None)

        def fields(form: Form | None, as_json: bool) -> None:
            if form is None:
                return
            layout = form.as_json() if as_json else form
            boxes = [_box(field, f"{layout.path} {field.name}") for field in layout.fields]
            send = gr.Button("Send", variant="primary", elem_classes="go")
            triggers = [send.click, *(box.submit for box in boxes if isinstance(box, gr.Textbox))]

            async def predict(key: str | None, *values: Any) -> AsyncIterator[list[Any]]:
                async for update in self._predict(layout, key, values):
                    yield update

            gr.on(triggers, predict, [key, *boxes], [line, bars, text, *codes], **parts.UPDATE)

        # Gradio fails when two renders run at the same time.
        changes = [form.change, as_json.change]
        gr.render([form, as_json], changes, concurrency_limit=1, show_progress="hidden")(fields)
        line = gr.HTML(elem_id="predict-figures", elem_classes="told")
        bars = gr.Label(label="Labels", visible=False, show_heading=False, elem_id="bars")
        text = gr.Code(
            label="Answer",
            language="json",
            interactive=False,
            visible=False,
            wrap_lines=True,
            lines=3,
            show_line_numbers=False,
        )
        codes = parts.codes()
        gr.on(
            [self.model.change, state_line.change],
            self._make_form,
            [key, self.model, form],
            [form, line, bars, text, *codes],
            trigger_mode="always_last",
            **parts.UPDATE,
        )

    async def _make_form(self, key: str | None, model: str | None, before: Form | None) -> list[Any]:
        """The model's form; an equal one keeps its inputs."""
        if not model:
            return [None, *_NOTHING]
        path = f"/predict/{model}"
        # What another model answered goes.
        shown = [gr.skip()] * len(_NOTHING) if before is not None and before.path == path else list(_NOTHING)
        try:
            form = form_of(await self._platform.openapi(key), path)
        except Problem as problem:
            return [gr.skip(), parts.line(str(problem), "problem"), *shown[1:]]
        same = before is not None and (before.path, before.fields) == (form.path, form.fields)
        return [gr.skip() if same else form, *shown]

    async def _predict(self, form: Form, key: str | None, values: Sequence[Any]) -> AsyncIterator[list[Any]]:
        """The duration, the labels as bars, the answer as it arrives, and the request as code."""
        no_answer = [gr.Label(visible=False), gr.Code(visible=False)]
        begin_s = time.perf_counter()
        try:
            request = form.request(values)
            codes = parts.code(self._platform, request, key)
            yield [parts.line("waiting for the answer…"), *no_answer, *codes]
            text, update_s = "", begin_s
            async with self._platform.open(request, key) as response:
                async for piece in response.aiter_text():
                    text += piece
                    if "\n" in text and time.perf_counter() - update_s > _UPDATE_EVERY_S:  # a stream of lines
                        update_s = time.perf_counter()
                        yield [gr.skip(), gr.skip(), gr.Code(text, visible=True), gr.skip(), gr.skip()]
            labels = _labels(text)
            line = parts.line(f"answered in {live.seconds(time.perf_counter() - begin_s)}")
            bars = gr.Label(labels, visible=True) if labels else no_answer[0]
            yield [line, bars, gr.Code(_pretty(text), visible=True), gr.skip(), gr.skip()]
        except Problem as problem:
            yield [parts.line(str(problem), "problem"), *no_answer, gr.skip(), gr.skip()]


def _box(field: Field, name: str) -> gr.components.Component:
    """The component for a field's input; one of the same `name` keeps its input when it is rendered again."""
    label = f"{field.name or 'JSON'}{' *' if field.required and field.name else ''}"
    common: dict[str, Any] = {"label": label, "interactive": True, "key": name}
    if field.kind == "picture":
        return gr.Image(type="filepath", image_mode=None, sources=["upload", "clipboard"], height=260, **common)
    if field.kind == "file":
        return gr.File(**common)
    common["info"] = field.description or None
    match field.kind:
        case "boolean":
            return gr.Checkbox(bool(field.default), **common)
        case "choice":
            return gr.Dropdown(list(field.choices), value=field.default, **common)
        case "text" | "number" | "integer":
            return gr.Textbox("" if field.default is None else str(field.default), **common)
        case _:
            text = field.default if field.may_be_text and isinstance(field.default, str) else _json(field.default)
            return gr.Textbox(text, lines=1 if field.may_be_text else 3, placeholder="JSON", **common)


def _json(value: Any) -> str:
    return "" if value is None else json.dumps(value, ensure_ascii=False, indent=2)


def _pretty(text: str) -> str:
    try:
        return json.dumps(json.loads(text), ensure_ascii=False, indent=2)
    except ValueError:
        return text


def _labels(text: str) -> dict[str, float]:
    """Label and score of a classification's answer; empty for any other answer."""
    try:
        predictions = json.loads(text)["predictions"]
        return {str(entry["label"]): float(entry["score"]) for entry in reversed(predictions)}
    except (ValueError, KeyError, TypeError):
        return {}
