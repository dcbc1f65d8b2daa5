"""Parts of several tabs: a line of text, and a request as code."""

import html
from collections.abc import Sequence
from typing import Any

import gradio as gr

from clients.playground.platform import Platform
from clients.playground.request import Request

# For every event of the page: no spinner over its outputs, and no public endpoint.
UPDATE: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
NO_MODEL = "Choose a model first."


def line(text: str, kind: str = "figures") -> str:
    """A line of HTML that a screen reader announces; `kind` is figures or problem."""
    role = "alert" if kind == "problem" else "status"
    return f'<p class="{kind}" role="{role}">{html.escape(text)}</p>' if text else ""


def absence(kind: str, choices: Sequence[object]) -> str:
    """What a tab says of a kind of model that is not served; "" where there is one."""
    return "" if choices else line(f"No {kind} is served by this platform.", "problem")


def codes() -> list[gr.Code]:
    """The components of a request as code: curl and Python."""
    with gr.Accordion("The request as code", open=False):
        options: dict[str, Any] = {"interactive": False, "wrap_lines": True, "lines": 1, "show_line_numbers": False}
        return [
            gr.Code(label="curl", language="shell", elem_classes="curl", **options),
            gr.Code(label="Python", language="python", elem_classes="python", **options),
        ]


def code(platform: Platform, request: Request, key: str | None) -> list[str]:
    """The values of `codes` for a request."""
    with_key = platform.has_key(key)
    return [request.curl(platform.url, with_key), request.python(platform.url, with_key)]
