"""Which variant of a model serves: the one of the settings once it is proved, or, of `runtime: auto`, the fastest."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from configs.errors import UserError
from servers.apis import runtime_choice, runtimes
from servers.apis.equality import EAGER, Equality, Variant, prove
from servers.apis.runtime_choice import Choice

if TYPE_CHECKING:
    from torch import Tensor

AUTO = "auto"
_log = logging.getLogger("litport.worker")
_Model = TypeVar("_Model")


def select(
    variant: Variant,
    gate: Literal["cosine", "top1"],
    load: Callable[[Variant], _Model],
    answer: "Callable[[_Model, int | None], Tensor]",
    batch_size: int = 1,
    check_rows: Sequence[str] = (),
) -> tuple[_Model, Equality | None]:
    """The model to serve, and what was measured of it (None for eager float32).

    `answer` gives the answers (inputs, numbers) of a model to the inputs of the proof, or to so many inputs at once.
    The last ones are of checks, one for each of their names in `check_rows`. `gate` is the figure that decides. Of
    `runtime: auto` the fastest at 1 and at `batch_size` inputs is taken. Raises UserError for a variant below its
    limit, or one that raises, unless it falls back; always for one that cannot run here.
    """
    eager = load(Variant())
    if variant.name == EAGER:
        return eager, None
    expected = answer(eager, None)
    trials: dict[str, tuple[_Model, Equality]] = {}

    def prove_variant(candidate: Variant) -> tuple[_Model | None, Equality]:
        return prove(candidate, gate, lambda: load(candidate), expected, lambda model: answer(model, None), check_rows)

    def attempt(runtime: str) -> Callable[[int], object] | str:
        candidate = replace(variant, runtime=runtime, falls_back=False)
        if candidate.name == EAGER:
            return lambda size: answer(eager, size)
        try:
            model, proof = prove_variant(candidate)
        except UserError as problem:
            return str(problem).partition(". Set ")[0]
        assert model is not None
        trials[runtime] = model, proof
        return lambda size: answer(model, size)

    note = ""
    if variant.runtime == AUTO:
        choice = _choose(variant, expected, batch_size, attempt)
        variant, note = replace(variant, runtime=choice.runtime), f"; {choice.note}"
        _log.info("%s", choice.note)
        if variant.name == EAGER:
            return eager, Equality(EAGER, EAGER, len(expected), None, None, choice.note)
    model, proof = trials.get(variant.runtime) or prove_variant(variant)
    return (eager if model is None else model), replace(proof, note=proof.note + note)


def _choose(
    variant: Variant, expected: "Tensor", batch_size: int, attempt: Callable[[str], Callable[[int], object] | str]
) -> Choice:
    """The choice of `auto`, kept by the eager answers, and so the weights, and by what decides about speed."""
    import torch

    names = ["eager", *runtimes.usable(variant.precision)]
    versions = [f"{name} {version(name)}" for name in ("torch", *names[1:])]
    settings = [variant.precision, variant.cosine, variant.top1, batch_size, torch.get_num_threads(), _processor()]
    digest = hashlib.sha256("\n".join([*versions, *map(str, settings)]).encode())
    digest.update(expected.float().numpy().tobytes())
    record = Path(variant.exports, f"auto-{digest.hexdigest()[:16]}.json") if variant.exports else None
    try:
        return runtime_choice.choose(names, batch_size, attempt, record)
    except ValueError as problem:
        raise UserError(f"runtime: none is proved equal: {problem}. Set precision: float32") from None


def _processor() -> str:
    """The name and the instructions of the first processor."""
    first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    return "\n".join(line for line in first.splitlines() if line.startswith(("model name", "flags", "Features")))
