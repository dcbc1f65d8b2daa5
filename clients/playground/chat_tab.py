"""The tab for language models: a conversation with one, or with two side by side, and the speed of each answer."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import gradio as gr

from clients.playground import answer, live, markdown, parts
from clients.playground.form import Field
from clients.playground.platform import Platform, Problem
from clients.playground.request import Request
from clients.playground.visit import Visit

_PARAMETERS = (
    Field("temperature", "number"),
    Field("top_p", "number"),
    Field("max_tokens", "integer"),
    Field("seed", "integer"),
)


class ChatTab:
    """The tab, in the current block; `models` are its two choices, and `absence` says that there is none."""

    def __init__(self, platform: Platform, key: gr.Textbox, visit: gr.State) -> None:
        self._platform = platform
        self.absence = gr.HTML(elem_classes="told")
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
                first = _AnswerColumn("left")
            with gr.Column(min_width=300, visible=False) as second_column:
                second = _AnswerColumn("right")
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
        for model, column in zip(models, (first, second), strict=True):
            model.change(lambda model: gr.Chatbot(label=model or "Answers"), model, column.chat, **parts.UPDATE)
        models[1].change(
            lambda model: [gr.Column(visible=bool(model))] * 2, models[1], [second_column, second_codes], **parts.UPDATE
        )
        outputs = [first.chat, second.chat, first.figures, second.figures]
        question = gr.on(
            [send.click, prompt.submit],
            _ask,
            [visit, prompt, *models, first.chat, second.chat],
            [prompt, *outputs],
            trigger_mode="multiple",
            **parts.UPDATE,
        )
        for model, column, code in zip(models, (first, second), codes, strict=True):
            question.then(
                self._answer,
                [visit, key, model, column.chat, mode, system, *numbers, stop],
                [column.chat, column.figures, *code],
                trigger_mode="multiple",  # the browser may not know yet that the last answer has ended
                **parts.UPDATE,
            )
        stop_button.click(Visit.stop, visit, None, **parts.UPDATE)
        clear.click(_clear, visit, outputs, **parts.UPDATE)

    async def _answer(
        self,
        visit: Visit,
        key: str | None,
        model: str | None,
        chat: list[dict[str, Any]],
        mode: str,
        system: str | None,
        *parameters: Any,
    ) -> AsyncIterator[list[Any]]:
        """The chat with the growing answer to its last message, its figures, and the request as code."""
        if not model or not chat or chat[-1]["role"] != "user":
            yield [gr.skip()] * 4
            return
        code = [gr.skip(), gr.skip()]
        reply = answer.Answer()
        try:
            request = _request(model, chat, mode, system, parameters)
            with visit.answering() as stop:
                yield [gr.skip(), parts.line("waiting for the first token…"), *parts.code(self._platform, request, key)]
                async for reply in stop.during(answer.stream(self._platform, request, key)):
                    yield [_append(chat, reply), parts.line(_figures(reply)), *code]
            if stop.pressed.is_set():
                reply.finish_reason = "the stop button"
            yield [gr.skip(), parts.line(_figures(reply)), *code]
        except Problem as problem:
            yield [_append(chat, reply) if reply.text else gr.skip(), parts.line(str(problem), "problem"), *code]


class _AnswerColumn:
    """One model's chat and the figures of its last answer."""

    def __init__(self, side: str) -> None:
        # Markdown is rendered, but no HTML (see `markdown`) and no formulas in dollar signs.
        self.chat = gr.Chatbot(
            label="Answers",
            height=420,
            elem_id=f"chat-{side}",
            buttons=["copy"],
            feedback_options=None,
            latex_delimiters=[],
        )
        self.figures = gr.HTML("", elem_id=f"figures-{side}", elem_classes="told")


async def _ask(
    visit: Visit, prompt: str | None, model: str | None, second: str | None, chat: list[Any], second_chat: list[Any]
) -> list[Any]:
    """The prompt as a message in the chat of each chosen model; stops the answers that are still coming."""
    if not prompt or not prompt.strip() or not model:
        figures = gr.skip() if model else parts.line(parts.NO_MODEL, "problem")
        return [gr.skip(), gr.skip(), gr.skip(), figures, gr.skip()]
    await visit.stop()
    message = {"role": "user", "content": markdown.without_html(prompt)}
    return ["", [*chat, message], [*second_chat, message] if second else gr.skip(), "", ""]


async def _clear(visit: Visit) -> list[Any]:
    await visit.stop()
    return [[], [], "", ""]


def _request(
    model: str, chat: list[dict[str, Any]], mode: str, system: str | None, parameters: Sequence[Any]
) -> Request:
    """The request for the answer to the last message. Raises Problem."""
    options = _options(parameters)
    messages = [{"role": message["role"], "content": _text(message["content"])} for message in chat]
    if mode == "Completion":
        return answer.completion(model, messages[-1]["content"], options)
    if system and system.strip():
        messages.insert(0, {"role": "system", "content": system})
    return answer.chat(model, messages, options)


def _options(parameters: Sequence[Any]) -> dict[str, Any]:
    """The parameters that have a value, by their names in the request. Raises Problem."""
    *texts, stop = parameters
    options = {field.name: field.read(text) for field, text in zip(_PARAMETERS, texts, strict=True)}
    options["stop"] = [line for line in (stop or "").splitlines() if line] or None
    return {name: value for name, value in options.items() if value is not None}


def _text(content: Any) -> str:
    """A message's text as it was, which Gradio returns in parts."""
    parts = [{"text": content}] if isinstance(content, str) else content
    return markdown.original("".join(part.get("text", "") for part in parts if isinstance(part, dict)))


def _append(chat: list[dict[str, Any]], reply: answer.Answer) -> list[dict[str, Any]]:
    return [*chat, {"role": "assistant", "content": markdown.without_html(reply.text)}]


def _figures(reply: answer.Answer) -> str:
    rate, first_s, counts = reply.tokens_per_s, reply.first_s, (reply.input_tokens, reply.output_tokens)
    tokens_in, tokens_out = ("-" if count is None else str(count) for count in counts)
    figures = [
        f"ttft {'-' if first_s is None else live.seconds(first_s)}",
        f"{'-' if rate is None else f'{rate:,.1f}'} tokens/s",
        f"{tokens_in} tokens in, {tokens_out} out",
    ]
    return " · ".join([*figures, f"ended by {reply.finish_reason}"] if reply.finish_reason else figures)
