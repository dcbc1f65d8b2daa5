"""A LitAPI as one writes it for Ray Serve: called within the replica, with Ray's batches, behind Ray's own HTTP.

Ray imports `build` on each node. The API, its batches and workers are those of the recipe.
"""

from pathlib import Path
from typing import Any


def build(arguments: dict[str, Any]) -> Any:
    """The application of a LitAPI; Ray Serve calls it."""
    from ray import serve

    spec: dict[str, Any] = arguments["spec"]

    class Api:
        """A worker of the API."""

        def __init__(self) -> None:
            from benchmarks.rungs.bare.api_model import ApiModel
            from servers.store import Store

            found = dict(spec["arguments"])
            if spec["source"]:
                found["model_dir"] = str(Store(Path(spec["cache_dir"])).pull(spec["source"]))
            self._model = ApiModel(spec["api"], found, spec["device"], spec["variant"])
            self._model.batch_size = spec["batch_size"]

        @serve.batch(max_batch_size=spec["batch_size"], batch_wait_timeout_s=spec["wait_s"])  # type: ignore[untyped-decorator] # Ray's
        async def answer(self, items: list[Any]) -> list[Any]:
            """The answers of one batch."""
            return self._model.predict_all(items)

        async def __call__(self, request: Any) -> Any:
            from benchmarks.rungs.server.naive import document_of, item_of

            return document_of(await self.answer(await item_of(request, spec["form"])))

    return serve.deployment(Api, name=arguments["deployment"]).bind()
