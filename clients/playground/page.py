"""The page: its tabs, the key, and what they share.

The key is only in its field and is sent with every call. The handlers wait only for the network, so visitors do not
wait for each other.
"""

import time
from collections.abc import Sequence
from typing import Any

import gradio as gr

from clients.documents import TAKES_REQUESTS, ModelStatus, Status
from clients.playground import live, parts
from clients.playground.change_panel import ChangePanel
from clients.playground.chat_tab import ChatTab
from clients.playground.platform import Platform, Problem
from clients.playground.predict_tab import PredictTab
from clients.playground.similarity_tab import SimilarityTab
from clients.playground.visit import Visit

TITLE = "Litport playground"
_EMBEDDINGS = "/v1/embeddings"
_KINDS = ("chat model", "model with a route /predict/", "embedding model")
_REFRESH_S = 2.0


class Page:
    """The page for a platform; `blocks` is what Gradio serves."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True, delete_cache=(600, 3600)) as self.blocks:
            with gr.Row(elem_id="top"):
                gr.Markdown(f"# {TITLE}", elem_id="title")
                state_line = gr.HTML(parts.line("Asking the platform…"), elem_id="told")
                refresh = gr.Button("Refresh", size="sm", scale=0, min_width=90, elem_id="refresh")
            hint = gr.InputHTMLAttributes(autocomplete="off", spellcheck=False)
            with gr.Row(visible=False, elem_id="key-row") as key_row:
                key = gr.Textbox(
                    "",
                    label="API key",
                    type="password",
                    info="Stays in this page; Enter takes it.",
                    html_attributes=hint,
                )
            visit = gr.State(Visit())
            timer = gr.Timer(_REFRESH_S)  # outside its tab, so that it runs before the tab is opened
            with gr.Tab("Chat", elem_id="tab-chat"):
                chat = ChatTab(platform, key, visit)
            with gr.Tab("Predict", elem_id="tab-predict"):
                predict = PredictTab(platform, key, state_line)
            with gr.Tab("Similarity", elem_id="tab-similarity"):
                similarity = SimilarityTab(platform, key)
            with gr.Tab("Live", elem_id="tab-live"):
                changes = ChangePanel(platform, key)
                tiles = gr.HTML(live.draw([]), elem_id="live")
            timer.tick(self._sample, [visit, key], [state_line, tiles], **parts.UPDATE)
            choices = [*chat.models, predict.model, similarity.model, changes.model]
            absences = [chat.absence, predict.absence, similarity.absence]
            gr.on(
                [self.blocks.load, refresh.click, key.submit],
                self._refresh,
                [key, *choices],
                [state_line, key_row, *absences, *choices],
                **parts.UPDATE,
            )

    async def _refresh(self, key: str | None, *selection: str | None) -> list[Any]:
        """The state of the platform, and the models to choose from in each tab."""
        try:
            status = await self._platform.status(key)
        except Problem as problem:
            key_row = gr.Row(visible=True) if problem.status == 401 else gr.skip()
            return [parts.line(str(problem), "problem"), key_row, *(gr.skip() for _ in (*_KINDS, *selection))]
        models = status.models
        chats = [_choice(model) for model in models if live.writes_text(model)]
        predicts, embeddings = _choices(models, ("/predict/",), "litserve"), _choices(models, (_EMBEDDINGS,), "")
        lists = [chats, [("none", ""), *chats], predicts, embeddings, [(model.name, model.name) for model in models]]
        absences = [parts.absence(*pair) for pair in zip(_KINDS, (chats, predicts, embeddings), strict=True)]
        updates = [
            gr.Dropdown(choices=choices, value=_still(before, choices))
            for before, choices in zip(selection, lists, strict=True)
        ]
        return [self._state_line(status), gr.skip(), *absences, *updates]

    def _state_line(self, status: Status) -> str:
        ready = sum(model.state in TAKES_REQUESTS for model in status.models)
        return parts.line(f"{ready} of {len(status.models)} models ready at {self._platform.url}")

    async def _sample(self, visit: Visit, key: str | None) -> list[str]:
        """How many models are ready, and the tiles; where the platform does not answer, both say so."""
        try:
            status = await self._platform.status(key)
        except Problem as problem:
            return [parts.line(str(problem), "problem"), live.draw(visit.samples, str(problem))]
        now_s = time.monotonic()
        visit.samples = [sample for sample in visit.samples if now_s - sample.at_s < live.HISTORY_S]
        visit.samples.append(live.Sample(now_s, status))
        return [self._state_line(status), live.draw(visit.samples)]


def _choice(model: ModelStatus) -> tuple[str, str]:
    """Label and name."""
    return model.name if model.state == "ready" else f"{model.name} ({model.state})", model.name


def _choices(models: Sequence[ModelStatus], routes: tuple[str, ...], kind: str) -> list[tuple[str, str]]:
    """Label and name of the models with one of the routes; a model without routes, not being up, goes by its kind."""
    return [
        _choice(model)
        for model in models
        if any(path.startswith(routes) for path in model.paths) or (not model.paths and model.kind == kind)
    ]


def _still(before: str | None, choices: Sequence[tuple[str, str]]) -> str | None:
    """The model that was chosen before, or the first one if it is gone."""
    names = [name for _, name in choices]
    return before if before in names else names[0] if names else None
