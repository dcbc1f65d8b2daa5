"""Completion for bash and zsh: a script with the commands, their options and the names of the settings."""

import argparse
from collections.abc import Iterator, Mapping, Sequence

from configs.arguments import commands, sub_commands
from configs.names import COMMAND_LINE
from configs.shape import tree, walk

_SCRIPT = """{start}_litport() {{
  local command=litport index words=
  for ((index = 1; index < COMP_CWORD; index++)); do
    case "$command ${{COMP_WORDS[index]}}" in
{steps}
    esac
  done
  case "$command" in
{cases}
  esac
  COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _litport litport
"""

# A zsh without a completion system, as one without a .zshrc, gets one; -D leaves no file in the home folder.
_ZSH_START = """(( $+functions[compdef] )) || { autoload -U +X compinit && compinit -i -D; }
autoload -U +X bashcompinit && bashcompinit
"""


def script(parser: argparse.ArgumentParser, shell: str, values: Mapping[str, Sequence[str]]) -> str:
    """The script for a shell; `values` are names that a command may get, by the command.

    Where no name fits, the shell completes files. zsh runs the same script through its own bashcompinit.
    """
    steps, cases = [], []
    values = {**values, "help": [*sub_commands(parser)]}
    for name, sub in commands(parser):
        command = f"litport {name}".strip()
        words = [*sub_commands(sub), *_options(sub), *values.get(name, ())]
        cases.append(f'    "{command}") words="{" ".join(words)}" ;;')
        # A word that is no command of this one is an argument, and changes nothing.
        steps += [f'      "{command} {word}") command="{command} {word}" ;;' for word in sub_commands(sub)]
    return _SCRIPT.format(start=_ZSH_START if shell == "zsh" else "", steps="\n".join(steps), cases="\n".join(cases))


def setting_options() -> list[str]:
    """The options of all settings but those of models, whose names only a recipe knows."""
    return [COMMAND_LINE.write(path) for path, _ in walk(tree()) if path[0] != "models"]


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from (option for option in action.option_strings if option.startswith("--"))
