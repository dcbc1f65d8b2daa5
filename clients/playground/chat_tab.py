"""The tab for language models: a conversation with one, or with two side by side, and how quickly each answers."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import gradio as gr

from clients.playground import answer, live, parts
from clients.playground.form import Field
from clients.playground.platform import Platform, Problem
from clients.playground.visit import Visit

_PARAMETERS = (
    Field("temperature", "number"),
    Field("top_p", "number"),
    Field("max_tokens", "integer"),
    Field("seed", "integer"),
)


class ChatTab:
    """The tab, in the block that is open; `models` are its two choices."""

    def __init__(self, platform: Platform, key: gr.Textbox, visit: gr.State) -> None:
        self._platform = platform
        with gr.Row():
            self.models = models = [gr.Dropdown([], label="Model"), gr.Dropdown([], label="Side by side with")]
        with gr.Accordion("Parameters", open=False):
            mode = gr.Radio(
                ["Chat", "Completion"],
                value="Chat",
                label="Mode",
                info="A completion goes on with the prompt as it stands.",
            )
            system = gr.Textbox("", label="System message", lines=2)
            with gr.Row():
                numbers = [
                    gr.Textbox("", label=field.name, placeholder="default", min_width=120) for field in _PARAMETERS
                ]
            stop = gr.Textbox("", label="stop", info="Texts that end the answer, one a line.", lines=2, max_lines=4)
        with gr.Row():
            with gr.Column(min_width=300):
                left = _AnswerColumn("Answers", "left")
            with gr.Column(min_width=300, visible=False) as second:
                right = _AnswerColumn("Answers side by side", "right")
        with gr.Row(elem_id="ask"):
            hint = "Enter sends, Shift+Enter is a new line"
            prompt = gr.Textbox("", label="Prompt", placeholder=hint, scale=8, min_width=240)
            send = gr.Button("Send", variant="primary", scale=0, min_width=90)
            stop_button = gr.Button("Stop", scale=0, min_width=90)
            clear = gr.Button("Clear", scale=0, min_width=90)
        with gr.Row():
            with gr.Column(min_width=300):
                codes = [parts.codes()]
            with gr.Column(min_width=300, visible=False) as second_codes:
                codes.append(parts.codes())
        models[1].change(
            lambda model: [gr.Column(visible=bool(model))] * 2, models[1], [second, second_codes], **parts.UPDATE
        )
        both = [left.chat, right.chat, left.figures, right.figures]
        asked = gr.on(
            [send.click, prompt.submit],
            _asked,
            [visit, prompt, *models, left.chat, right.chat],
            [prompt, *both],
            trigger_mode="multiple",
            **parts.UPDATE,
        )
        for model, column, code in zip(models, (left, right), codes, strict=True):
            asked.then(
                self._answered,
                [visit, key, model, column.chat, mode, system, *numbers, stop],
                [column.chat, column.figures, *code],
                trigger_mode="multiple",  # the browser may not know yet that the answer before has ended
                **parts.UPDATE,
            )
        stop_button.click(Visit.stop, visit, None, **parts.UPDATE)
        clear.click(_cleared, visit, both, **parts.UPDATE)

    async def _answered(
        self,
        visit: Visit,
        key: str | None,
        model: str | None,
        chat: list[dict[str, Any]],
        mode: str,
        system: str | None,
        *parameters: Any,
    ) -> AsyncIterator[list[Any]]:
        """The chat with the answer to its last message as it grows, its figures, and the request as code."""
        if not model or not chat or chat[-1]["role"] != "user":
            yield [gr.skip()] * 4
            return
        messages = [{"role": message["role"], "content": _text(message["content"])} for message in chat]
        first = [{"role": "system", "content": system}] if system and system.strip() else []
        grown = answer.Answer()
        try:
            options = _options(parameters)
            if mode == "Completion":
                request = answer.completion(model, messages[-1]["content"], options)
            else:
                request = answer.chat(model, [*first, *messages], options)
            with visit.answering() as stop:
                yield [gr.skip(), parts.line("waiting for the first token…"), *parts.code(self._platform, request, key)]
                async for grown in stop.during(answer.stream(self._platform, request, key)):
                    yield [_with(chat, grown), parts.line(_figures(grown)), gr.skip(), gr.skip()]
            if stop.pressed.is_set():
                grown.finish_reason = "the stop button"
            yield [gr.skip(), parts.line(_figures(grown)), gr.skip(), gr.skip()]
        except Problem as problem:
            shown = _with(chat, grown) if grown.text else gr.skip()
            yield [shown, parts.line(str(problem), "problem"), gr.skip(), gr.skip()]


class _AnswerColumn:
    """One model's chat and the figures of its last answer."""

    def __init__(self, label: str, place: str) -> None:
        # Markdown is drawn, but no HTML of the model's and no formulas that a dollar begins.
        self.chat = gr.Chatbot(
            label=label,
            height=420,
            elem_id=f"chat-{place}",
            buttons=["copy"],
            feedback_options=None,
            latex_delimiters=[],
        )
        self.figures = gr.HTML("", elem_id=f"figures-{place}", elem_classes="told")


async def _asked(
    visit: Visit, prompt: str | None, model: str | None, other: str | None, left: list[Any], right: list[Any]
) -> list[Any]:
    """The prompt as a message in the chat of each model that is chosen; answers that still come are ended."""
    if not prompt or not prompt.strip() or not model:
        return [
            gr.skip(),
            gr.skip(),
            gr.skip(),
            gr.skip() if model else parts.line(parts.NO_MODEL, "problem"),
            gr.skip(),
        ]
    await visit.stop()
    message = {"role": "user", "content": prompt}
    return ["", [*left, message], [*right, message] if other else gr.skip(), "", ""]


async def _cleared(visit: Visit) -> list[Any]:
    await visit.stop()
    return [[], [], "", ""]


def _options(parameters: Sequence[Any]) -> dict[str, Any]:
    """The parameters that were given, by their names in the request. Raises Problem."""
    *texts, stop = parameters
    found = {field.name: field.read(text) for field, text in zip(_PARAMETERS, texts, strict=True)}
    found["stop"] = [line for line in (stop or "").splitlines() if line] or None
    return {name: value for name, value in found.items() if value is not None}


def _text(content: Any) -> str:
    """A message's text, which Gradio gives back in parts."""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content if isinstance(part, dict))


def _with(chat: list[dict[str, Any]], grown: answer.Answer) -> list[dict[str, Any]]:
    return [*chat, {"role": "assistant", "content": grown.text}]


def _figures(grown: answer.Answer) -> str:
    rate, first_s, counts = grown.tokens_per_s, grown.first_s, (grown.input_tokens, grown.output_tokens)
    tokens_in, tokens_out = ("-" if count is None else str(count) for count in counts)
    words = [
        f"ttft {'-' if first_s is None else live.seconds(first_s)}",
        f"{'-' if rate is None else f'{rate:,.1f}'} tokens/s",
        f"{tokens_in} tokens in, {tokens_out} out",
    ]
    return " · ".join([*words, f"ended by {grown.finish_reason}"] if grown.finish_reason else words)
