"""Finds damage in a folder of weights, in most cases without reading the weights.

An engine's own error about a cut file often does not name the file. Checking sizes and the headers of safetensors takes
milliseconds, whatever the size of the model.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from servers.store import disk
from servers.store.manifest import StoredFile

_HEADER_BYTES_MAX = 100_000_000  # safetensors' own limit
_WHOLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")


def in_folder(folder: Path) -> str | None:
    """The first damage in this folder, in words that name the file; None when there is none.

    It checks `config.json`, the list of shards and the header of each safetensors file, in the folder itself, and that
    transformers and vLLM would read the same weights from it.
    """
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        return f"{folder} cannot be read: {error.strerror}"
    for name in names:
        try:
            if name.endswith(".safetensors"):
                _check_safetensors(folder / name)
            elif name == "config.json":
                _read_object(folder / name)
            elif name == _INDEX:
                _check_shards(folder)
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
        except ValueError as problem:
            return f"{name} is damaged: {problem}"
    return two_models(folder)


def two_models(folder: Path) -> str | None:
    """What makes transformers and vLLM read other weights from this folder, or the index name others than both read.

    None where there is nothing, and where the folder is damaged otherwise.
    """
    try:
        shards = _read_shards(folder)
        whole = folder / _WHOLE
        others = {path.name for path in folder.iterdir() if _SHARD.fullmatch(path.name)} | set(shards.values())
        if others - {_WHOLE} and whole.exists():
            first = min(others - {_WHOLE})
            return f"{_WHOLE} and {first} are two models: transformers reads the one, vLLM the other; remove one"
        for name in sorted(set(shards.values())):
            for tensor in read_header(folder / name)[2]:
                if shards.get(tensor, name) != name:  # both take the last one that they read
                    return f"{name} has {tensor}, for which {_INDEX} names {shards[tensor]}; remove one of the two"
    except (OSError, ValueError):
        return None
    return None


def in_stored(folder: Path, files: Mapping[str, StoredFile]) -> str | None:
    """As `in_folder`, after comparing sizes with those in the manifest."""
    for name, file in files.items():
        try:
            size_bytes = (folder / name).stat().st_size
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
        if size_bytes != file.size_bytes:
            return f"{name} is damaged: expected {file.size_bytes} bytes, it has {size_bytes}"
    return in_folder(folder)


def in_content(folder: Path, files: Mapping[str, StoredFile]) -> str | None:
    """As `in_stored`, and then compares the hashes of all files, which takes seconds a gigabyte."""
    if problem := in_stored(folder, files):
        return problem
    for name, file in files.items():
        try:
            if disk.sha256(folder / name) != file.sha256:
                return f"{name} is damaged: it has the right size, and another sha256 than when it was pulled"
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
    return None


def _check_safetensors(path: Path) -> None:
    """Raise ValueError unless header and size fit: 8 bytes with the header's length, JSON, then the tensors."""
    size_bytes, header_bytes, header = read_header(path)
    try:
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        expected_bytes = 8 + header_bytes + max(ends, default=0)
    except (KeyError, IndexError, TypeError):
        raise ValueError("its header is not one of safetensors") from None
    if size_bytes != expected_bytes:
        raise ValueError(f"expected {expected_bytes} bytes by its own header, it has {size_bytes}")


def _check_shards(folder: Path) -> None:
    for name in sorted(set(_read_shards(folder).values())):
        if not (folder / name).is_file():
            raise ValueError(f"it lists {name}, which is missing")


def _read_shards(folder: Path) -> dict[str, str]:
    """The file of each tensor by the index; empty without one. Raises ValueError for an index without files."""
    if not (folder / _INDEX).exists():
        return {}
    shards = _read_object(folder / _INDEX).get("weight_map")
    if not isinstance(shards, dict):
        raise ValueError("it has no weight_map")
    return {str(tensor): str(name) for tensor, name in shards.items()}


def read_header(path: Path) -> tuple[int, int, dict[str, Any]]:
    """The size of a safetensors file, that of its header, and the header. Raises ValueError where it has none."""
    with path.open("rb") as stream:
        size_bytes = os.fstat(stream.fileno()).st_size
        header_bytes = int.from_bytes(stream.read(8), "little")
        if size_bytes < 8 or header_bytes > min(size_bytes - 8, _HEADER_BYTES_MAX):
            raise ValueError(f"it is cut short or not safetensors ({size_bytes} bytes)")
        return size_bytes, header_bytes, _object(stream.read(header_bytes))


def _read_object(path: Path) -> dict[str, Any]:
    return _object(path.read_bytes())


def _object(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is cut short or not JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError("expected a JSON object")
    return value
