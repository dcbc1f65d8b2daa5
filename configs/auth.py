"""The keys file: the callers by name, each with a key, rights and limits, read into checked entries.

One entry names, limits or shuts out one caller. An entry may hold the hash of a key in place of the key. No message
repeats a key, nor any text that is long enough to be one.
"""

import hashlib
import logging
import re
import stat
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import yaml
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from configs import document
from configs.document import MalformedError, Node
from configs.model import SHORTEST_KEY, Count, Section, Text
from configs.names import nearest

_log = logging.getLogger("litport.configs")

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SECRETS = frozenset({"key", "key_sha256"})
_NUMBER = "expected a whole number of 1 or more"
_EXPECTED = {
    "key": "expected text",
    "key_sha256": "expected the SHA-256 of a key, 64 hexadecimal digits",
    "models": "expected a list of names of models, or no such line for all of them",
    "requests_per_minute": _NUMBER,
    "tokens_per_minute": _NUMBER,
    "max_in_flight": _NUMBER,
    "admin": "expected true or false",
}


class Grant(Section):
    """The entry of one caller: its key, in clear or as a hash, the models that it may call, and its limits."""

    key: SecretStr | None = Field(None, description="The key, 16 or more visible ASCII characters.")
    key_sha256: Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{64}$")] | None = Field(
        None, description="The key's SHA-256 in its place: printf %s KEY | sha256sum."
    )
    models: Annotated[list[Text], Field(min_length=1)] | None = Field(
        None, description="The models that it may call; null for all."
    )
    requests_per_minute: Count | None = Field(None, description="Most requests a minute; null for no limit.")
    tokens_per_minute: Count | None = Field(None, description="Most tokens a minute; null for no limit.")
    max_in_flight: Count | None = Field(
        None, description="Most requests at a time, running and waiting; null for no limit."
    )

    admin: bool = Field(False, description="Whether it may load, unload, swap, roll back and scale models.")

    @field_validator("key")
    @classmethod
    def _is_a_key(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and not re.fullmatch(r"[!-~]*", key.get_secret_value()):
            raise ValueError("expected a key of visible ASCII without spaces, got other characters")
        if key is not None and len(key) < SHORTEST_KEY:
            raise ValueError(f"expected a key of {SHORTEST_KEY} or more characters, got {len(key)}")
        return key

    @field_validator("key_sha256")
    @classmethod
    def _is_not_of_empty_text(cls, key_sha256: str | None) -> str | None:
        # A script that hashes a variable that is not set writes these; callers without a key would match the first.
        texts = {b"": "no text at all", b"\n": "an empty line"}
        for text, name in texts.items():
            if key_sha256 is not None and bytes.fromhex(key_sha256) == hashlib.sha256(text).digest():
                raise ValueError(f"expected the SHA-256 of a key, got that of {name}")
        return key_sha256

    @model_validator(mode="after")
    def _has_one_key(self) -> "Grant":
        if (self.key is None) == (self.key_sha256 is None):
            actual = "neither" if self.key is None else "both"
            raise ValueError(f"expected a key or a key_sha256, got {actual}")
        return self

    @property
    def digest(self) -> bytes:
        """The SHA-256 of the key."""
        if self.key is not None:
            return digest_of(self.key.get_secret_value())
        assert self.key_sha256 is not None
        return bytes.fromhex(self.key_sha256)


class Entry(NamedTuple):
    """One name of the file, its place there (`keys.yaml:3`), and what it grants."""

    name: str
    origin: str
    grant: Grant


class KeysFile:
    """The content of a keys file: its valid entries, and one line for each problem."""

    def __init__(self, path: Path) -> None:
        self.entries: list[Entry] = []
        self.problems: list[str] = []
        self._path = path
        text = self._read_text()
        if text is not None:
            self._parse(text)

    def _read_text(self) -> str | None:
        """The text of the file, if it may be used. The kind of file is checked first: opening a pipe can block."""
        try:
            mode = self._path.stat().st_mode
            if not stat.S_ISREG(mode):
                actual = "a folder" if stat.S_ISDIR(mode) else "a device, pipe or socket"
                self._problem(f"expected a file of keys (auth.keys_file), got {actual}; give the path of a YAML file")
                return None
            text = self._path.read_text(encoding="utf-8")
        except OSError as error:
            self._problem(
                f"expected a file of keys that can be read (auth.keys_file), got {error.strerror}; give the path of one"
            )
            return None
        except UnicodeDecodeError:
            self._problem("expected text in UTF-8, got other bytes; save it as UTF-8")
            return None
        if mode & 0o022:
            self._problem(f"expected a file that only its owner may write to, got mode {mode & 0o777:o}; chmod go-w it")
        if mode & 0o044:
            _log.warning(
                "%s: not only its owner may read these keys (mode %o); chmod go-r it", self._path, mode & 0o777
            )
        return text

    def _parse(self, text: str) -> None:
        try:
            node = document.compose(text)
        except MalformedError as error:
            # An unquoted secret that begins with ! reads as a tag.
            problem = re.sub(r"(tag handle) .*", r"\1", str(error))
            self._problem(f"expected YAML: {problem}; check indentation, and quote keys", error.line)
            return
        if node is None or (isinstance(node, yaml.MappingNode) and not node.value):
            self._problem("expected at least one name with its key, got an empty file; unset auth.keys_file for none")
        elif not isinstance(node, yaml.MappingNode):
            actual = _describe(document.text_value(node), secret=True)
            self._problem(f"expected a mapping of names to keys, got {actual}", document.line_of(node))
        else:
            for name, (line, value) in self._fields(node, "").items():
                if not _NAME.fullmatch(name):
                    actual = repr(name) if len(name) <= 64 else f"{len(name)} characters"
                    expected = "expected a name of 1 to 64 letters, digits, '.', '_' and '-'"
                    self._problem(f"{expected}, got {actual}", line)
                else:
                    self._entry(name, line, value)

    def _fields(self, node: yaml.MappingNode, within: str) -> dict[str, tuple[int, Node]]:
        """The values of a mapping, each with the line of its key; a repeated key is a problem."""
        fields: dict[str, tuple[int, Node]] = {}
        for key, value in node.value:
            line = document.line_of(key)
            if not isinstance(key, yaml.ScalarNode) or key.tag == document.MERGE:
                self._problem(f"{within}expected a name before the colon, got a merge or a compound key", line)
            elif key.value in fields:
                name = key.value if len(key.value) <= 64 else f"a name of {len(key.value)} characters"
                self._problem(f"{within}{name}: set before, on line {fields[key.value][0]}; keep one of the two", line)
            else:
                fields[key.value] = line, value
        return fields

    def _entry(self, name: str, line: int, node: Node) -> None:
        if not isinstance(node, yaml.MappingNode):
            actual = _describe(document.text_value(node), secret=True)
            label = f"{name}: " if len(name) < SHORTEST_KEY else ""  # somebody may write `KEY: name`
            self._problem(f"{label}expected a mapping with a key or a key_sha256, got {actual}", line)
            return
        problem_count = len(self.problems)
        fields = self._fields(node, f"{name}.")
        unknown = [field for field in fields if field not in Grant.model_fields]
        for field in unknown:
            suggestion = nearest(field, Grant.model_fields)
            advice = f"did you mean {suggestion}?" if suggestion else f"there are {', '.join(Grant.model_fields)}"
            label = field if len(field) < SHORTEST_KEY or suggestion else f"a name of {len(field)} characters"
            self._problem(f"{name}.{label}: no such setting of a key; {advice}", fields[field][0])
        values = {field: document.text_value(value) for field, (_, value) in fields.items() if field not in unknown}
        try:
            grant = Grant.model_validate(values)
        except ValidationError as error:
            for details in {details["loc"][:1]: details for details in error.errors(include_url=False)}.values():
                if details["loc"]:
                    field = str(details["loc"][0])
                    self._problem(f"{name}.{field}: {_explain(details, field)}", fields[field][0])
                elif not unknown:  # the missing key may be the one with the unknown name
                    self._problem(f"{name}: {details['ctx']['error']}", line)
        else:
            if len(self.problems) == problem_count:
                self.entries.append(Entry(name, f"{self._path}:{line}", grant))

    def _problem(self, text: str, line: int | None = None) -> None:
        self.problems.append(f"{self._path}{f':{line}' if line else ''}: {text}")


def digest_of(key: str) -> bytes:
    """The SHA-256 of a key, the only form in which Litport keeps keys: all have one length."""
    return hashlib.sha256(key.encode()).digest()


def _explain(details: ErrorDetails, field: str) -> str:
    if details["type"] == "value_error":
        return str(details["ctx"]["error"])
    return f"{_EXPECTED[field]}, got {_describe(details['input'], secret=field in _SECRETS)}"


def _describe(value: Any, secret: bool) -> str:
    """A value for a message; text that is secret, or as long as a key, is described by its length only."""
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return f"{len(value)} characters" if secret or len(value) >= SHORTEST_KEY else repr(value)
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    return "a mapping"
