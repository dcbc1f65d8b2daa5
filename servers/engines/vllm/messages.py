"""vLLM's error messages, in words that its callers can follow.

Options of vLLM's command line are named by their place in the settings. The problems of a field that may be one of many
types, which vLLM lists for each type ("241 validation errors"), are cut to those of the type that was meant.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from typing import Any

_OPTION = re.compile(r"(?<![\w-])--([a-z][a-z0-9-]*[a-z0-9])")
_VALIDATION = re.compile(r"(\d+) validation errors?:\n")
# pydantic names the alternatives of a union in the path of a field.
_ALTERNATIVE = re.compile(r"[A-Z]\w*")
# Fields that say which alternative is meant.
_KINDS = ("role", "type")
_MOST_FIELDS = 3
_MOST_LISTED = 10


def explain(error: Mapping[str, Any], model: str) -> Mapping[str, Any]:
    """The `error` object with the problems that matter, or the settings of this model that it speaks of."""
    message = str(error.get("message", ""))
    if match := _VALIDATION.match(message):
        texts = _summary(list(_problems(message[match.end() :])))
        if texts:
            lines = [f"{path or 'the body'}: {_join(texts[path])}" for path in list(texts)[:_MOST_FIELDS]]
            count = "" if match[1] == "1" else f" (of {match[1]} validation errors)"
            return {**error, "message": "; ".join(lines) + count, "param": next(iter(texts)) or None}
    names = dict.fromkeys(name.removeprefix("no-") for name in _OPTION.findall(message))
    settings = ", ".join(f"models.{model}.args.{name}" for name in names)
    return {**error, "message": f"{message} (in the settings: {settings})"} if names else error


def whole(error: Mapping[str, Any]) -> str:
    """All validation errors that vLLM lists, in one line without the values of the request; "" where there are none."""
    message = str(error.get("message", ""))
    match = _VALIDATION.match(message)
    problems = list(_problems(message[match.end() :])) if match else []
    lines = [f"{problem.location}: {problem.text}" for problem in problems]
    return ascii(f"{match[1]} validation errors: {'; '.join(lines)}")[1:-1] if match and lines else ""


class _Problem:
    """One of pydantic's errors. `alternatives` are the prefixes of its path that end in an alternative of a union."""

    def __init__(self, location: str, kind: str, text: str) -> None:
        self.location = location
        parts = location.split(".")[1:]  # without `body`
        self.path = ".".join(part for part in parts if not _ALTERNATIVE.fullmatch(part))
        self.alternatives = [
            tuple(parts[: number + 1]) for number, part in enumerate(parts) if _ALTERNATIVE.fullmatch(part)
        ]
        self.says_which = bool(self.alternatives) and parts[-1] in _KINDS and kind == "literal_error"
        self.text = text


def _problems(lines: str) -> Iterator[_Problem]:
    for line in lines.splitlines():
        try:
            error: Any = ast.literal_eval(line.strip())
            yield _Problem(error["loc"], error["type"], error["msg"].removeprefix("Value error, "))
        except (ValueError, SyntaxError, KeyError, TypeError):
            continue  # "...and 12 more errors", or cut


def _summary(problems: list[_Problem]) -> dict[str, list[str]]:
    """The texts of the problems that matter, by the path of their field."""
    plain = [problem for problem in problems if not problem.alternatives]
    problems = [*plain, *_nearest_alternative(problems)]
    mismatches = {problem.alternatives[-1] for problem in problems if problem.says_which}
    paths = {problem.path for problem in problems}
    matches = [
        problem
        for problem in problems
        if not mismatches.intersection(problem.alternatives)
        and not any(path.startswith(f"{problem.path}.") for path in paths)
    ]
    texts: dict[str, list[str]] = {}
    for problem in matches or [problem for problem in problems if problem.says_which]:
        if problem.text not in texts.setdefault(problem.path, []):
            texts[problem.path].append(problem.text)
    return texts


def _join(texts: list[str]) -> str:
    return ", or ".join([texts[0], *(text.removeprefix("Input should be ") for text in texts[1:])])


def _nearest_alternative(problems: list[_Problem]) -> list[_Problem]:
    """The problems of the outermost alternative that has the fewest, of those whose role and type fit; else of all."""
    groups: dict[tuple[str, ...], list[_Problem]] = {}
    for problem in problems:
        if problem.alternatives:
            groups.setdefault(problem.alternatives[0], []).append(problem)
    fitting = [
        group for group in groups.values() if not any(item.says_which and len(item.alternatives) == 1 for item in group)
    ]
    if not fitting:
        return [problem for group in groups.values() for problem in group]
    # vLLM lists ten problems: those of the last alternative may not be all.
    return min(fitting[:-1] or fitting, key=len) if len(problems) == _MOST_LISTED else min(fitting, key=len)
