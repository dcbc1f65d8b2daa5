"""The calls of an API's modules by which it answers the checks of its model, recorded for the proof."""

import inspect
import logging
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from servers.apis import exports

if TYPE_CHECKING:
    from torch import nn

_log = logging.getLogger("litport.worker")


@dataclass(frozen=True)
class ModuleCall:
    """A call of `module` for the check of this name; its answer has so many `rows`, those of all its tensors."""

    check: str
    module: "nn.Module"
    args: tuple[Any, ...]
    options: Mapping[str, Any]
    rows: int

    def repeat(self) -> Any:
        """What the module answers now."""
        return self.module(*self.args, **self.options)


def record(api: Any, modules: "Sequence[nn.Module]", checks: Sequence[Mapping[str, Any]]) -> list[ModuleCall]:
    """The calls of the modules by which the API, which is set up, answers the checks.

    A check that it cannot answer here, without a server, has none, and a line in the log; it is asked at the start.
    """
    calls: list[ModuleCall] = []
    for check in checks:
        count = len(calls)

        def note(module: "nn.Module", args: Any, options: Any, output: Any, name: str = check["name"]) -> None:
            rows = sum(len(tensor) for tensor in exports.flatten(output)[1])
            calls.append(ModuleCall(name, module, args, options, rows))

        hooks = [module.register_forward_hook(note, with_kwargs=True) for module in modules]
        try:
            _ask(api, check)
        except Exception as problem:  # whatever a plug-in raises
            del calls[count:]
            reason = f"{type(problem).__name__}: {problem}"
            _log.warning("check %r is no part of the proof, only asked at the start: %s", check["name"], reason)
        finally:
            for hook in hooks:
                hook.remove()
    return calls


def _ask(api: Any, check: Mapping[str, Any]) -> None:
    """Have the API predict, as its worker would for a plain JSON body."""
    if api.enable_async or check["file"] is not None:
        raise TypeError("an async API, or a file, needs a server")
    body = check["body"]
    kind = typing.get_type_hints(type(api).decode_request).get("request")
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        body = kind.model_validate(body)
    request = api.decode_request(body)
    answer = api.predict(api.batch([request]) if api.max_batch_size > 1 else request)
    if inspect.isgenerator(answer):
        list(answer)
