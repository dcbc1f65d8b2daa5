"""The similarity of sentences by an embedding model: the cosine of every pair, as a table with colours."""

import html
import json
import math
from collections.abc import Sequence
from typing import Any

import gradio as gr

from clients.playground import parts
from clients.playground.platform import Platform, Problem
from clients.playground.request import Request

_MAX_SENTENCES = 30


class SimilarityTab:
    """The tab for embedding models, in the current block; `model` is its choice, `absence` says that there is none."""

    def __init__(self, platform: Platform, key: gr.Textbox) -> None:
        self._platform = platform
        self.absence = gr.HTML(elem_classes="told")
        self.model = gr.Dropdown([], label="Model")
        text = gr.Textbox(
            "A cat sits on the mat.\nA kitten rests on a rug.\nShares fell on Monday.",
            label="Sentences",
            info="Two or more, one a line.",
            lines=4,
        )
        compare = gr.Button("Compare", variant="primary", elem_classes="go")
        table = gr.HTML(elem_id="similarity-told", elem_classes="told")
        gr.on(
            [compare.click, text.submit],
            self._compare,
            [key, self.model, text],
            [table, *parts.codes()],
            **parts.UPDATE,
        )

    async def _compare(self, key: str | None, model: str | None, text: str) -> list[Any]:
        codes = [gr.skip(), gr.skip()]
        try:
            if not model:
                raise Problem(parts.NO_MODEL)
            request = embedding_request(model, text)
            codes = parts.code(self._platform, request, key)
            values = cosines(await self._platform.answer(request, key))
            return [html_table(sentences(text), values), *codes]
        except Problem as problem:
            return [parts.line(str(problem), "problem"), *codes]


def embedding_request(model: str, text: str) -> Request:
    """The request for the vectors of a text's lines. Raises Problem when there are too few or too many."""
    lines = sentences(text)
    if not 2 <= len(lines) <= _MAX_SENTENCES:
        raise Problem(f"Enter 2 to {_MAX_SENTENCES} sentences, one a line; there are {len(lines)}.")
    return Request("/v1/embeddings", {"model": model, "input": lines, "encoding_format": "float"})


def sentences(text: str) -> list[str]:
    """The lines that are not empty."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def cosines(answer: bytes) -> list[list[float]]:
    """The cosine of every pair, (inputs, inputs), from an answer of /v1/embeddings. Raises Problem."""
    try:
        entries = sorted(json.loads(answer)["data"], key=lambda entry: entry["index"])
        vectors = [[float(number) for number in entry["embedding"]] for entry in entries]
    except (ValueError, KeyError, TypeError):
        raise Problem("The answer holds no embeddings.") from None
    lengths = [math.hypot(*vector) or 1.0 for vector in vectors]
    units = [[number / length for number in vector] for vector, length in zip(vectors, lengths, strict=True)]
    return [[math.fsum(map(float.__mul__, row, column)) for column in units] for row in units]


def html_table(lines: Sequence[str], values: Sequence[Sequence[float]]) -> str:
    """The table as HTML: a row and a column for each sentence; similar pairs are darker."""
    heads = "".join(
        f'<th scope="col" title="{html.escape(line)}">{number}</th>' for number, line in enumerate(lines, 1)
    )
    rows = "".join(
        f'<tr><th scope="row">{number}. {html.escape(line)}</th>'
        + "".join(f'<td style="--share:{max(0.0, value):.2f}">{value:.2f}</td>' for value in row)
        + "</tr>"
        for number, (line, row) in enumerate(zip(lines, values, strict=True), 1)
    )
    caption = "<caption>Cosine similarity</caption>"
    head = f"<thead><tr><td></td>{heads}</tr></thead>"
    return f'<div class="matrix"><table>{caption}{head}<tbody>{rows}</tbody></table></div>'
