"""The checks of a part: what was expected, what was measured, and whether the part could look at all."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Outcome = Literal["passed", "failed", "not run"]


class NotRunError(Exception):
    """This machine lacks what a part needs; the message says what."""


@dataclass(frozen=True)
class Check:
    """One claim. `value` is None where nothing was measured, and `reason` then says why."""

    name: str
    outcome: Outcome
    value: Any = None
    expected: str = ""
    reason: str = ""


class Recorder:
    """Writes each check to a file at once, so that a part that is killed leaves those that it had."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def judge(self, name: str, value: Any, expected: str, passed: bool) -> None:
        """A figure, and whether it is as expected."""
        self._add(Check(name, "passed" if passed else "failed", value, expected))

    def within(self, name: str, value: float | None, low: float, high: float, unit: str, reason: str = "") -> None:
        """A figure that must lie between two limits; one that is None was not measured, for the `reason`."""
        expected = f"{low:g} to {high:g} {unit}".rstrip()
        if value is None:
            self._add(Check(name, "not run", None, expected, reason or "the card or its driver does not tell"))
        else:
            self.judge(name, round(value, 4), expected, low <= value <= high)

    def skip(self, name: str, reason: str) -> None:
        """A claim that cannot be checked here."""
        self._add(Check(name, "not run", reason=reason))

    def fail(self, name: str, reason: str) -> None:
        """A claim that could not be checked although it should have been possible."""
        self._add(Check(name, "failed", reason=reason))

    def _add(self, check: Check) -> None:
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(check)) + "\n")


def read_checks(file: Path) -> list[Check]:
    """The checks that a part wrote."""
    if not file.exists():
        return []
    return [Check(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]


def outcome_of(checks: list[Check]) -> Outcome:
    """That of a part: failed where a check failed, not run where none was run."""
    outcomes = {check.outcome for check in checks}
    return "failed" if "failed" in outcomes else "passed" if "passed" in outcomes else "not run"
