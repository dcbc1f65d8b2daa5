"""The panel that changes models of the running platform: loads, unloads, swaps and rolls back, with an admin key."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import gradio as gr
import msgspec

from clients.documents import Change
from clients.playground import parts
from clients.playground.platform import Platform, Problem
from clients.version import VersionChange

_PROGRESS = {
    "load": "{} is being loaded…",
    "unload": "{} is unloaded as soon as its requests have ended…",
    "swap": "A new version of {} starts beside the old one…",
    "rollback": "{} goes back to the version before…",
}
_NO_SETTINGS = "Enter what is to change, as KEY=VALUE, one a line."


class ChangePanel:
    """The panel, in the current block; `model` is its choice."""

    def __init__(self, platform: Platform, key: gr.Textbox) -> None:
        self._platform = platform
        with gr.Accordion("Change a model", open=False, elem_id="change"):
            self.model = gr.Dropdown([], label="Model", info="A change takes a key with `admin: true`.")
            with gr.Row():
                buttons = {
                    action: gr.Button(label, min_width=110)
                    for action, label in (("load", "Load"), ("unload", "Unload"), ("rollback", "Roll back"))
                }
            settings = gr.Textbox(
                "",
                label="Settings of a new version",
                info="KEY=VALUE, one a line, such as source=./chat-2 or args.max-model-len=4096.",
                lines=2,
            )
            buttons["swap"] = gr.Button("Swap", elem_classes="go")
            outcome = gr.HTML(elem_id="change-told", elem_classes="told")
            for action, button in buttons.items():
                button.click(
                    partial(self._change, action),
                    [key, self.model, settings],
                    outcome,
                    trigger_mode="once",
                    **parts.UPDATE,
                )

    async def _change(self, action: str, key: str | None, model: str | None, settings: str) -> AsyncIterator[str]:
        """What goes on, then what came of it."""
        try:
            if not model:
                raise Problem(parts.NO_MODEL)
            order = {"set": pairs(settings)} if action == "swap" else {}
            yield parts.line(_PROGRESS[action].format(model))
            yield parts.line(_describe(action, await self._platform.change(action, model, order, key)))
        except Problem as problem:
            yield parts.line(str(problem), "problem")


def pairs(text: str) -> dict[str, str]:
    """The settings of a text with KEY=VALUE in each line. Raises Problem."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise Problem(_NO_SETTINGS)
    for line in lines:
        if not line.partition("=")[0].strip() or "=" not in line:
            raise Problem(f"{_NO_SETTINGS} This is none: {line}")
    return {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}


def _describe(action: str, answer: bytes) -> str:
    if action in ("load", "unload"):
        change = msgspec.json.decode(answer, type=Change)
        return f"{change.model} is {change.state} (before: {change.before})."
    steps: Any = msgspec.json.decode(answer, type=VersionChange).steps
    return " · ".join(step.detail for step in steps)
