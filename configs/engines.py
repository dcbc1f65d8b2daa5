"""The engines that a model may name, each with its settings class; plug-ins add theirs before settings are loaded."""

from __future__ import annotations

import typing
from typing import Annotated, Any, Union

from pydantic import Field

from configs import bench, shape
from configs.settings import (
    LitportSettings,
    LitServeModel,
    LlamaCppModel,
    ModelName,
    ModelSettings,
    RemoteModel,
    VllmModel,
)

_CLASSES: dict[str, type[ModelSettings]] = {
    "vllm": VllmModel,
    "litserve": LitServeModel,
    "llamacpp": LlamaCppModel,
    "remote": RemoteModel,
}


def names() -> tuple[str, ...]:
    """The names of the engines, as `models.NAME.engine` takes them."""
    return tuple(_CLASSES)


def register(settings_class: type[ModelSettings]) -> None:
    """Accept models whose `engine` is the Literal of this class, in every source of settings and in the schema."""
    (name,) = typing.get_args(settings_class.model_fields["engine"].annotation)
    if _CLASSES.get(name) is settings_class:
        return
    _CLASSES[name] = settings_class
    bench.RUNGS.extend(rung for rung in settings_class.rungs if rung not in bench.RUNGS)
    union: Any = Union[tuple(_CLASSES.values())]  # noqa: UP007 # made at run time
    model: Any = Annotated[union, Field(discriminator="engine")]
    LitportSettings.model_fields["models"].annotation = dict[ModelName, model]
    LitportSettings.model_rebuild(force=True)
    shape.tree.cache_clear()
