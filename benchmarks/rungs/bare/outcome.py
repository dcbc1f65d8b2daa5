"""What a bare model gives back: records with the time of each step, and answers to compare."""

import msgspec

from clients.record import RequestRecord


class Answer(msgspec.Struct, frozen=True):
    """One greedy answer: generated tokens with their log-probabilities, vectors, or labels; None for what it is not."""

    token_ids: list[int] | None = None
    logprobs: list[float] | None = None
    vectors: list[list[float]] | None = None
    labels: list[str] | None = None


class Outcome(msgspec.Struct, frozen=True):
    """`steps` are seconds of all requests together, by name; `series` what vLLM's own series gained, if it is vLLM."""

    records: list[RequestRecord] = []
    steps: list[tuple[str, float]] = []
    series: dict[str, float] = {}
    answers: list[Answer] = []
