"""The hook `export_modules()`, by which a LitAPI lets another runtime compute its torch modules.

It is called after `setup` and returns pairs: a module, and examples of the tensors that it is called with by the names
of its parameters, with two rows. The proof gives each module numbers of rows, and lengths of token ids, that the export
did not see, and compares its answers with those of eager float32. So it does with the calls of the modules by which the
API answers the checks of its model.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from configs.errors import UserError
from servers.apis import check_calls, exports, runtimes
from servers.apis.check_calls import ModuleCall
from servers.apis.equality import Variant
from servers.apis.runtimes import Replacement
from servers.apis.selection import select

if TYPE_CHECKING:
    from torch import Tensor, nn

HOOK = "export_modules"
_ROWS = (1, 3, 5)
_MOST_LEFT_OUT = 3
_Modules: TypeAlias = "list[tuple[nn.Module, dict[str, Tensor]]]"


def attach(api: Any, variant: Variant) -> None:
    """Have the API's setup end with the variant, proved. The built-in ones that know variants prove it themselves."""
    if isinstance(getattr(api, "variant", None), Variant):
        api.variant = variant
    elif variant.runtime != "eager":
        api.setup = partial(_set_up, api, variant)


def _set_up(api: Any, variant: Variant, device: str) -> None:
    type(api).setup(api, device)
    if not hasattr(api, HOOK):
        raise UserError(f"runtime: {type(api).__name__} has no {HOOK}(), which hands its modules over")
    modules: _Modules = list(api.export_modules())

    def load(variant: Variant) -> list[Replacement]:
        if variant.runtime == "eager":
            return []
        return [
            runtimes.prepare(variant, module, inputs, device, str(number))
            for number, (module, inputs) in enumerate(modules)
        ]

    calls = check_calls.record(api, [module for module, _ in modules], variant.checks)
    answer = partial(_answer, modules, calls)
    check_rows = [call.check for call in calls for _ in range(call.rows)]
    replacements, api.equality = select(variant, "cosine", load, answer, api.max_batch_size, check_rows)
    for replacement in replacements:
        replacement.enable()
        replacement.release()


def _answer(
    modules: _Modules, calls: Sequence[ModuleCall], replacements: Sequence[Replacement], size: int | None
) -> "Tensor":
    """The answers to all inputs of the proof, a row for each, filled up with zeros to one width.

    With a `size`, to the example in so many rows. Raises UserError where torch does not take other numbers of rows.
    """
    import torch

    rows: list[Tensor] = []
    for replacement in replacements:
        replacement.enable()
    try:
        with torch.inference_mode():
            for module, inputs in modules:
                for variation in _vary(inputs) if size is None else [_resize(inputs, size)]:
                    for tensor in exports.flatten(module(**variation))[1]:
                        rows += tensor.reshape(len(tensor), -1).float().cpu()
            for call in calls if size is None else ():
                for tensor in exports.flatten(call.repeat())[1]:
                    rows += tensor.reshape(len(tensor), -1).float().cpu()
    except Exception as error:  # whatever a plug-in's module raises
        if replacements:
            raise
        raise UserError(
            f"runtime: a module of {HOOK}() does not take its example inputs in {_ROWS} rows: "
            f"{type(error).__name__}: {error}"
        ) from error
    finally:
        for replacement in replacements:
            replacement.undo()
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def _vary(inputs: "Mapping[str, Tensor]") -> "Iterator[dict[str, Tensor]]":
    """The examples in other numbers of rows, and of token ids in other lengths.

    Tokens are left out behind the first one: longer might be more than the model reads, and the last may be one that a
    model looks for.
    """
    import torch

    for count in _ROWS:
        resized = _resize(inputs, count)
        for name, tensor in inputs.items():
            if 1 in exports.dynamic_dimensions(tensor):
                left_out = min(count, _MOST_LEFT_OUT, max(0, tensor.shape[1] - 2))
                resized[name] = torch.cat([resized[name][:, :1], resized[name][:, 1 + left_out :]], dim=1)
        yield resized


def _resize(inputs: "Mapping[str, Tensor]", count: int) -> "dict[str, Tensor]":
    """The examples in so many rows, each of numbers with a fraction turned by another number of places.

    Token ids stay, as a mask that is turned and cut might hide a whole row, whose answer nothing defines.
    """
    import torch

    def turn(tensor: "Tensor") -> "Tensor":
        rows = [tensor[row % len(tensor)] for row in range(count)]
        if tensor.is_floating_point():
            rows = [torch.roll(values, row, dims=-1) for row, values in enumerate(rows)]
        return torch.stack(rows)

    return {name: turn(tensor) for name, tensor in inputs.items()}
