"""The proof that a faster variant of a model answers as the eager float32 model does, before it takes traffic.

Both answer the same fixed inputs. A variant within the limits serves; one that is not is an error with the figures, or
the eager float32 model serves in its place. The inputs are made here, so that the proof needs no data and no network;
those of the model's checks come after them.
"""

import json
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from configs.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

EAGER = "float32"
_LONGEST_ERROR = 300
_LARGEST_SCALE_ERROR = 0.1  # of the length of an answer
_log = logging.getLogger("litport.worker")

_Model = TypeVar("_Model")


@dataclass(frozen=True)
class Variant:
    """How a model should compute; `cosine` and `top1` are the least that the proof accepts, both from 0 to 1.

    With `falls_back` a variant below them is replaced by the eager float32 model. `exports` is the folder that keeps
    the exports for other runtimes (`exports`), and `options` are further options of the runtime's session
    (`session_options`). `checks` are requests whose inputs are part of the proof: mappings of `name`, `body` (JSON) and
    `file` (the path of an upload, or None).
    """

    precision: str = EAGER
    cosine: float = 0.999
    top1: float = 1.0
    falls_back: bool = False
    runtime: str = "eager"
    exports: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    checks: Sequence[Mapping[str, Any]] = field(default=(), hash=False)

    @property
    def name(self) -> str:
        """What is compared with eager float32, such as "bfloat16" or "openvino float32"."""
        return self.precision if self.runtime == "eager" else f"{self.runtime} {self.precision}"


@dataclass(frozen=True)
class Equality:
    """What was measured of `variant`, and the `precision` and `runtime` in which the model computes because of it.

    `cosine` is the least over the inputs and `top1` the share of inputs with the same best class, None for vectors,
    which have none. Both are None where the variant's answers are not finite, or where it raised. `note` has all of it
    in one line.
    """

    variant: str
    precision: str
    inputs: int
    cosine: float | None
    top1: float | None
    note: str
    runtime: str = "eager"


def prove(
    variant: Variant,
    gate: Literal["cosine", "top1"],
    load: Callable[[], _Model],
    expected: "Tensor",
    answer: "Callable[[_Model], Tensor]",
    check_rows: Sequence[str] = (),
) -> tuple[_Model | None, Equality]:
    """The variant and what was measured of it, None for one that gives way to eager float32; raises as
    `selection.select` does.

    `expected` is what eager float32 has answered. Its last rows are of checks: `check_rows` has their names.
    """
    try:
        model = load()
        proof, problem = _judge(variant, gate, expected, answer(model), check_rows)
        if problem is None:
            _log.info("%s", proof.note)
            return model, proof
    except UserError:
        raise
    except Exception as error:  # a runtime raises what it likes, at an export as well as at an answer
        _log.debug("%s", variant.name, exc_info=True)
        problem = f"{variant.name} failed: {type(error).__name__}: {' '.join(str(error).split())[:_LONGEST_ERROR]}"
        proof = Equality(variant.name, EAGER, len(expected), None, None, "")
    if not variant.falls_back:
        way_back = "precision: float32" if variant.runtime == "eager" else "runtime: eager"
        raise UserError(f"{problem}. Set {way_back}, on_failed_proof: eager, or a lower accept.{gate}")
    note = f"float32, since {problem}"
    _log.warning("%s", note)
    return None, replace(proof, precision=EAGER, runtime="eager", note=note)


def _judge(
    variant: Variant,
    gate: Literal["cosine", "top1"],
    expected: "Tensor",
    answers: "Tensor",
    check_rows: Sequence[str],
) -> tuple[Equality, str | None]:
    """What is measured of the answers, and what is wrong with them, if anything."""
    cosine, top1 = compare(expected, answers, surest=len(expected) - len(check_rows) if gate == "top1" else 0)
    value, limit, figures = top1, variant.top1, f"same top-1 {_text(top1)}, cosine {_text(cosine)}"
    if gate == "cosine":
        value, limit, figures, top1 = cosine, variant.cosine, f"cosine {_text(cosine)}", None
    inputs = f"{len(expected)} inputs" + (f", {len(check_rows)} of them of checks" if check_rows else "")
    measured = f"{variant.name} against float32 on {inputs}: {figures}"
    proof = Equality(variant.name, variant.precision, len(expected), cosine, top1, measured, variant.runtime)
    if value is None or value < limit:
        return proof, f"{measured}; expected {gate} >= {limit:g}{_failed(gate, limit, expected, answers, check_rows)}"
    # Neither figure sees a factor.
    factor = _scale_errors(expected, answers).max().item()
    most = max(_LARGEST_SCALE_ERROR, math.sqrt(2 - 2 * variant.cosine))  # the distance of unit vectors at that cosine
    if factor > most:
        return proof, f"{measured}, answers up to {factor:.0%} too large or small, expected {most:.0%}"
    return proof, None


def _failed(
    gate: Literal["cosine", "top1"], limit: float, expected: "Tensor", answers: "Tensor", check_rows: Sequence[str]
) -> str:
    """The names of the checks whose answers alone are below the limit, as the end of a sentence."""
    names: dict[str, None] = {}
    for row, name in enumerate(check_rows, len(expected) - len(check_rows)):
        figures = compare(expected[row : row + 1], answers[row : row + 1])
        value = figures[gate == "top1"]
        if value is None or value < limit:
            names[name] = None
    return f" (not so for the checks: {', '.join(names)})" if names else ""


def compare(expected: "Tensor", answers: "Tensor", *, surest: int = 0) -> tuple[float | None, float | None]:
    """The least cosine of the rows, and the share of rows with the same largest number; None where one is not finite.

    Two rows of zeros have cosine 1, one of them 0.
    Of the first `surest` rows only the half counts for the second whose largest number stands out most in `expected`:
    a near tie falls either way by rounding alone, also from one batch size to another.
    """
    import torch

    if not bool(torch.isfinite(answers).all()):
        return None, None
    cosines = torch.nn.functional.cosine_similarity(expected, answers, dim=-1)
    cosine = cosines.masked_fill(~(expected.any(dim=-1) | answers.any(dim=-1)), 1).min().item()
    same = (expected.argmax(dim=-1) == answers.argmax(dim=-1)).float()
    if surest:
        best = expected[:surest].topk(2, dim=-1).values
        order = (best[:, 0] - best[:, 1]).argsort(descending=True)
        same = torch.cat([same[order[: math.ceil(surest / 2)]], same[surest:]])
    return cosine, same.mean().item()


def _scale_errors(expected: "Tensor", answers: "Tensor") -> "Tensor":
    """The share by which each row is too long or short; 0 for two rows of zeros, infinite for one in place of zeros."""
    sizes, lengths = expected.norm(dim=-1), answers.norm(dim=-1)
    errors: Tensor = (lengths / sizes).sub(1).abs()
    return errors.masked_fill((sizes == 0) & (lengths == 0), 0)


def _text(value: float | None) -> str:
    # Rounded down: 0.99997 is not 1.
    return "not finite" if value is None else f"{math.floor(value * 1e5 + 1e-3) / 1e5:.5f}"


def write(equality: Equality, card_file: Path) -> None:
    """Put it beside the card of its model, so that a reader finds all of it or no file; workers may write at once."""
    part = card_file.with_suffix(f".equality.{os.getpid()}")
    part.write_text(json.dumps(asdict(equality)))
    part.replace(_file(card_file))


def read(card_file: Path) -> Equality | None:
    """What `write` has written; None if nothing."""
    file = _file(card_file)
    return Equality(**json.loads(file.read_text())) if file.exists() else None


def remove(card_file: Path) -> None:
    """Forget what an earlier process has written."""
    _file(card_file).unlink(missing_ok=True)


def _file(card_file: Path) -> Path:
    return card_file.with_suffix(".equality")


TEXTS = (
    "A cat sat on the mat.",
    "Le chat dort sur le canapé, et il pleut.",
    "Wie viel kostet eine Fahrkarte nach Hamburg?",
    "!",
    "12.50 + 7.25 = 19.75",
    "The central bank left its interest rate unchanged on Thursday, citing slower growth and stable prices.",
    "def add(a, b): return a + b",
    "東京は日本の首都です。",
    "How do I reset my password? I have tried the link twice and no mail arrives.",
    "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen. " * 4,
    "The engine stalls when it is cold; the mechanic replaced the plugs, the filter and the battery. " * 8,
    "x " * 400,
)
"""From one token to more than most encoders read; the API cuts them to what its model takes."""


def make_pictures() -> "list[Image]":
    """24 pictures of 320 x 240: noise from coarse to fine, sharp or soft, the same on every machine."""
    import numpy as np
    from PIL import Image
    from PIL.Image import Resampling

    random = np.random.default_rng(0)
    pictures = []
    for index in range(24):
        side = 3 + 2 * index
        small = Image.fromarray(random.integers(0, 256, (side, side, 3), dtype=np.uint8))
        pictures.append(small.resize((320, 240), Resampling.BICUBIC if index % 2 else Resampling.NEAREST))
    return pictures
