"""The LitAPI that a child process serves: its specification, its construction, and the card that describes it."""

import inspect
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import UserError
from servers.apis import registry
from servers.engines.litserve.refusals import refuse

OUT_OF_MEMORY = "the model's device is out of memory; try again later, or send less at a time"
"""What a client is told with status 503: another moment, or a smaller request, may find room."""


@dataclass(frozen=True, kw_only=True)
class ApiSpec:
    """What to serve, as the parent wrote it. None means LitServe's own default; times are in seconds."""

    name: str
    api: str
    uds: str
    card: str
    model_dir: str | None = None
    init: dict[str, Any] | None = None
    accelerator: str | None = None
    devices: int | str | list[int] | None = None
    workers_per_device: int | None = None
    max_batch_size: int | None = None
    batch_timeout: float | None = None
    stream: bool | None = None
    timeout: float | None = None
    traces: bool = False


def construct_api(spec: ApiSpec) -> Any:
    """The LitAPI, with the settings that its constructor names as arguments and the others set on the object.

    Raises UserError; what the plug-in's module or constructor raises comes through.
    """
    api_class = registry.load(spec.api)
    settings = without_none(max_batch_size=spec.max_batch_size, batch_timeout=spec.batch_timeout, stream=spec.stream)
    names = inspect.signature(api_class.__init__).parameters
    arguments = {name: value for name, value in settings.items() if name in names}
    api = api_class(**without_none(model_dir=spec.model_dir), **{**(spec.init or {}), **arguments})
    if api.spec is not None and spec.stream not in (None, api.spec.stream):
        raise UserError(f"api {spec.api!r}: {type(api.spec).__name__} decides about streaming; remove `stream`")
    for name in settings.keys() - arguments.keys():
        # LitServe reads these, and makes its loop from them, only once the server is built.
        setattr(api, name, settings[name])
    refuse(api, spec.api, spec.name)
    return api


def without_none(**options: Any) -> dict[str, Any]:
    """The options that are set; None is LitServe's own default and is not passed on."""
    return {name: value for name, value in options.items() if value is not None}


def write_card(file: Path, card: Mapping[str, Any]) -> None:
    """Write the card so that a reader finds all of it or no file."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps(card))
    part.replace(file)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether torch found no room on the device."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.OutOfMemoryError)


def first_paragraph(error: BaseException) -> str:
    """An error in one line: LitServe explains over many lines, and its first paragraph names the problem."""
    return " ".join(str(error).strip().partition("\n\n")[0].split())
