"""What the command line adds to argparse: the nearest command, an example below each help, texts of several options."""

import argparse
import contextlib
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from configs.errors import UserError

TARGET = "a recipe (.yaml), a model (catalog name, org/name, path, pypi:name==version), or an API (./file.py:Class)"
SETTINGS = (
    "Any setting can follow as --section.name VALUE, as in --server.port 18080; `litport config show` lists them."
)

EXAMPLES = {
    "": "litport run smollm2-135m-instruct",
    "serve": "litport serve configs/recipes/demo.yaml ./my_api.py --server.port 18080",
    "run": "litport run smollm2-135m-instruct",
    "replica": "litport replica configs/recipes/demo.yaml all-minilm-l6-v2 --host 0.0.0.0 --port 8100",
    "deploy": "litport deploy recipe.yaml --ray http://10.0.0.7:8265",
    "gateway": "litport gateway recipe.yaml --ray http://10.0.0.7:8265",
    "undeploy": "litport undeploy recipe.yaml --ray http://10.0.0.7:8265",
    "ray": "litport ray start --head --token-file token",
    "ray start": "litport ray start --head --token-file token",
    "status": "litport status --watch",
    "ps": "litport ps",
    "apply": "litport apply configs/recipes/demo.yaml",
    "load": "litport load smollm2-135m-instruct",
    "unload": "litport unload smollm2-135m-instruct --port 18080",
    "swap": "litport swap chat --source ./chat-2 --compare 100 --steps 5,25,100 --every 60s",
    "rollback": "litport rollback chat",
    "scale": "litport scale embed 2",
    "logs": "litport logs smollm2-135m-instruct --follow",
    "chat": 'litport chat smollm2-135m-instruct "What is the capital of France?"',
    "predict": "litport predict efficientnet-lite0 docs/cat.jpg",
    "playground": "litport playground --url http://gpu-box:8000",
    "models optimize": "litport models optimize all-minilm-l6-v2 configs/recipes/demo.yaml --runtime auto",
    "bench": "litport bench run configs/recipes/bench-image.yaml --out results/image",
    "bench run": "litport bench run configs/recipes/bench-image.yaml --out results/image",
    "bench load": "litport bench load http://127.0.0.1:8000 --model smollm2-135m-instruct --bench.load.users 8",
    "bench compare": "litport bench compare results/before results/after --fail-below 0.9",
    "models": "litport models list",
    "models list": "litport models list",
    "models pull": "litport models pull HuggingFaceTB/SmolLM2-360M-Instruct",
    "models rm": "litport models rm smollm2-135m-instruct",
    "models path": "litport models path smollm2-135m-instruct",
    "apis": "litport apis",
    "keys": "litport keys new alice",
    "keys new": "litport keys new alice --file keys.yaml",
    "config": "litport config check configs/recipes/demo.yaml",
    "config check": "litport config check configs/recipes/demo.yaml",
    "config show": "litport config show configs/recipes/demo.yaml --server.port 18080",
    "config schema": "litport config schema > litport.schema.json",
    "doctor": "litport doctor",
    "completion": "source <(litport completion bash)",
    "help": "litport help bench run",
    "version": "litport version",
}
"""A command line for each command, as its help shows it."""

# What users of `vllm serve` and of Ollama write, and the setting or the command here.
_HABITS = {"--host": "--server.host", "--port": "--server.port", "--api-key": "--auth.api_keys"}
_OTHER_NAMES = {"pull": "models pull", "list": "models list", "ls": "models list", "rm": "models rm"}


_OPTIONS_OF_CHATS = ("--system", "--max-tokens", "--temperature")


class Parser(argparse.ArgumentParser):
    """Names the nearest command or option where there is none of the name that came."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As of argparse, which would leave the error to the parser of all commands."""
        options, extras = super().parse_known_args(args, namespace)
        if extras:
            from configs.names import nearest

            name = extras[0].partition("=")[0]
            suggestion = nearest(name, self._option_string_actions, 0.75) if name.startswith("--") else None
            hint = f"{name}: no such option; did you mean {suggestion}?" if suggestion else None
            self.error(hint or f"unrecognized arguments: {' '.join(extras)}")
        return options, extras

    def error(self, message: str) -> NoReturn:
        """Print the mistake and exit with status 2."""
        from configs.names import nearest  # a third of a second, which the help need not take

        if match := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message):
            name, names = match[1], re.findall(r"[\w-]+", match[2])
            is_top = "serve" in names
            if suggestion := (_OTHER_NAMES.get(name) if is_top else None) or nearest(name, names):
                message = f"{name}: no such command; did you mean {suggestion}?"
        super().error(message)


def refuse_habits(arguments: Sequence[str]) -> None:
    """Raises UserError for an option of `vllm serve` that is a setting here."""
    if arguments[:1] not in (["serve"], ["run"]):
        return
    options = {"--help", "--watch"} if arguments[0] == "serve" else {"--help", *_OPTIONS_OF_CHATS}
    for name in (argument.partition("=")[0] for argument in arguments if argument.startswith("--")):
        if name not in options:
            setting = _HABITS.get(name, f"--models.NAME.args.{name.removeprefix('--')}")
            raise UserError(f"{name}: no such option; did you mean {setting}?")


def add_chat_options(parser: argparse.ArgumentParser) -> None:
    """Add the question and what `clients.chat.Options` has."""
    parser.add_argument("prompt", nargs="?", metavar="PROMPT", help="one question; without it, a conversation")
    parser.add_argument("--system", help="the system message")
    parser.add_argument("--max-tokens", type=int, help="the longest answer, in tokens")
    parser.add_argument("--temperature", type=float)


def add_examples(parser: argparse.ArgumentParser) -> None:
    """Put the example of each command below its help."""
    for command, sub in commands(parser):
        if example := EXAMPLES.get(command):
            sub.formatter_class = argparse.RawDescriptionHelpFormatter
            sub.epilog = "\n\n".join(filter(None, (textwrap.fill(sub.epilog or "", 100), f"example:\n  {example}")))


def commands(parser: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command with its parser, by the name without `litport`, the parser itself first; without aliases."""
    yield name, parser
    parsers: set[int] = set()
    for word, sub in sub_commands(parser).items():
        if id(sub) not in parsers:
            parsers.add(id(sub))
            yield from commands(sub, f"{name} {word}".strip())


def sub_commands(parser: argparse.ArgumentParser) -> dict[str, Any]:
    """The parsers of a command's own commands, by name; aliases are names, too."""
    actions = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return next((dict(action.choices) for action in actions), {})


def seconds(text: str) -> float:
    """A duration for an option. Raises argparse.ArgumentTypeError."""
    with contextlib.suppress(ValueError):
        if 0.1 <= (duration_s := float(text.removesuffix("s"))) <= 86400:
            return duration_s
    raise argparse.ArgumentTypeError(f"expected seconds from 0.1 to 86400, got {text!r}")
