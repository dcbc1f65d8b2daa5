"""What a gateway and a replica say to each other beside callers' requests: the card, the state, how a request ended.

Callers' requests and answers pass as they are. A replica adds a header to each answer, which says how the request
ended. Of an answer without a length, it is the trailers that say whether it is whole, and how many tokens it took.
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from enum import StrEnum
from typing import Any
from urllib.parse import quote, unquote

import msgspec

from servers.apis.equality import Equality
from servers.engines.base import Card, Rules
from servers.engines.connection import TokenCount

VERSION = 2
"""Of this protocol; both sides must have the same."""

SECRET = "x-litport-secret"  # noqa: S105 # the name of a header
OUTCOME = b"x-litport-outcome"
COUNT = b"x-litport-count"
CARD_PATH = "/litport/card"
STATE_PATH = "/litport/state"
IDENTITY_PATH = "/litport/identity"

Headers = Sequence[tuple[bytes, bytes]]
_MESSAGE_CHARS = 500
_COUNT = re.compile(rb"(\d+|-) (\d+|-) (\d+|-)")


class Outcome(StrEnum):
    """How a request ended at a replica.

    `ANSWERED`: the model's own answer. `ABSENT`: no process has taken it. `DIED`: the process that had it ended.
    `BROKEN`: its answer broke off although the process lives. `REFUSED`: the engine's rules refuse it.
    """

    ANSWERED = "answered"
    ABSENT = "absent"
    DIED = "died"
    BROKEN = "broken"
    REFUSED = "refused"


_OUTCOMES = {outcome.value: outcome for outcome in Outcome}


class Identity(msgspec.Struct):
    """Which replica listens, and the proof that it knows the secret, so that a gateway may send it there."""

    replica: str
    proof: str


class State(msgspec.Struct):
    """The state of a replica's model, and its current step."""

    state: str
    detail: str = ""


class Description(msgspec.Struct):
    """What a replica says of itself: the protocol, the model, its engine, and the model's card without its rules."""

    protocol: int
    model: str
    engine: str
    routes: list[str]
    predict_path: str | None
    listing: list[dict[str, Any]]
    openapi: dict[str, Any]
    max_running: int
    example: Any
    serving: str | None
    note: str
    equality: dict[str, Any] | None
    tensors: dict[str, Any] | None
    knows_aliases: bool
    counts_one_choice: bool


def describe(model: str, engine: str, card: Card) -> Description:
    """The card of a model, to be sent."""
    return Description(
        protocol=VERSION,
        model=model,
        engine=engine,
        routes=sorted(card.routes),
        predict_path=card.predict_path,
        listing=[dict(entry) for entry in card.listing],
        openapi=dict(card.openapi),
        max_running=card.max_running,
        example=card.example,
        serving=card.serving,
        note=card.note,
        equality=None if card.equality is None else asdict(card.equality),
        tensors=None if card.tensors is None else dict(card.tensors),
        knows_aliases=card.knows_aliases,
        counts_one_choice=card.counts_one_choice,
    )


def card_of(description: Description, rules: Callable[[Card], Rules | None]) -> Card:
    """The card that was described; `rules` makes its rules."""
    card = Card(
        routes=frozenset(description.routes),
        predict_path=description.predict_path,
        listing=tuple(description.listing),
        openapi=description.openapi,
        max_running=description.max_running,
        example=description.example,
        serving=description.serving,
        note=description.note,
        equality=None if description.equality is None else Equality(**description.equality),
        tensors=description.tensors,
        knows_aliases=description.knows_aliases,
        counts_one_choice=description.counts_one_choice,
    )
    return replace(card, rules=rules(card))


def write_count(tokens: TokenCount) -> bytes:
    """The value of COUNT."""
    numbers = (tokens.input_tokens, tokens.output_tokens, tokens.cut_at)
    return b" ".join(b"-" if number is None else b"%d" % number for number in numbers)


def read_count(text: bytes, tokens: TokenCount) -> None:
    """Fill in what COUNT says."""
    if match := _COUNT.fullmatch(text):
        tokens.input_tokens, tokens.output_tokens, tokens.cut_at = (
            None if number == b"-" else int(number) for number in match.groups()
        )


def write_outcome(outcome: Outcome, message: str = "") -> tuple[bytes, bytes]:
    """The field OUTCOME, with a message of one line."""
    return OUTCOME, f"{outcome.value} {quote(message[:_MESSAGE_CHARS])}".rstrip().encode()


def read_outcome(fields: Headers) -> tuple[Outcome | None, str]:
    """The last outcome in these fields, and its message; None where there is none, or one of another protocol."""
    text = next((value for name, value in reversed(fields) if name == OUTCOME), b"").decode("latin-1")
    name, _, message = text.partition(" ")
    return _OUTCOMES.get(name), unquote(message)


def prove(secret: str, nonce: str, replica: str) -> str:
    """The proof of an identity to whoever chose the nonce and knows the secret."""
    return hmac.new(secret.encode(), f"{nonce} {replica}".encode(), hashlib.sha256).hexdigest()


def knows(secret: str, text: str) -> bool:
    """Whether this text is the secret, in a time that tells nothing of it."""
    return hmac.compare_digest(secret.encode(), text.encode("latin-1", errors="replace"))
