"""The APIs by name: built-in ones, those of installed packages, and any other by import path or file.

`check` and `describe` only read sources. `load` imports an API's code; only the model's own process calls it.
"""

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from configs.errors import UserError
from servers.apis import reference
from servers.apis.reference import ASYNC_RULE, STREAM_RULE, Reference

ENTRY_POINT_GROUP = "litport.apis"
BUILT_IN = {
    "causal_lm": "servers.apis.causal_lm:CausalLMAPI",
    "echo": "servers.apis.echo:EchoAPI",
    "embedding": "servers.apis.embedding:EmbeddingAPI",
    "image_classification": "servers.apis.image_classification:ImageClassificationAPI",
    "pipeline": "servers.apis.pipeline:PipelineAPI",
}
PROVED = ("embedding", "image_classification")
"""The built-in APIs that prove a variant themselves (`equality`), and take bfloat16 without another runtime."""

# The folders that were put on the import path for an API.
_folders: set[str] = set()
# Litport's own, which lie on the import path of every model's process, before the folder of the API.
_PACKAGES = frozenset({"benchmarks", "clients", "configs", "litport", "servers"})


@dataclass(frozen=True)
class ApiDescription:
    """One row of `litport apis`. `origin` is "built in" or the name of the distribution; "" means not declared."""

    name: str
    import_path: str
    origin: str
    summary: str
    input: str
    output: str


def check(name: str, init: Mapping[str, Any], has_source: bool) -> None:
    """Check that the API exists and takes these constructor arguments, without importing it.

    `name` is a built-in name, an entry point, `package.module:Class` or `./file.py:Class`; `has_source` says whether
    `model_dir` is passed as well. Raises UserError.
    """
    target = _resolve(name)
    _check_names(target)
    constructor = reference.read(target).constructor
    arguments = [*init, *(["model_dir"] if has_source else [])]
    if not constructor.is_open:
        for argument in arguments:
            if argument == "model_dir" and "model_dir" not in constructor.names:
                raise UserError(f"api {name!r}: its constructor takes no model_dir; remove `source`")
            if argument not in constructor.names:
                near = reference.nearest(argument, constructor.names)
                raise UserError(f"api {name!r}: its constructor takes no argument {argument!r}{near}")
    for argument in constructor.required:
        if argument not in arguments:
            remedy = "set `source`" if argument == "model_dir" else f"set it under `init`, as {argument}: ..."
            raise UserError(f"api {name!r}: its constructor needs {argument!r}; {remedy}")


def obstacle(name: str) -> str | None:
    """What the API's source shows that the worker host cannot run; None where it shows nothing. Raises UserError."""
    return reference.read(_resolve(name)).obstacle


def has_method(name: str, method: str) -> bool:
    """Whether the API has this method, or its source does not show all that it has. Raises UserError."""
    return reference.has_method(_resolve(name), method)


def missing_settings(name: str) -> Mapping[str, str]:
    """The settings that the API needs by its source and does not set itself, each with the rule. Raises UserError."""
    source = reference.read(_resolve(name))
    rules = {"stream": (source.needs_stream, STREAM_RULE), "enable_async": (source.needs_async, ASYNC_RULE)}
    return {setting: rule for setting, (is_missing, rule) in rules.items() if is_missing}


def load(name: str) -> type[Any]:
    """Import the API's class, a subclass of litserve.LitAPI. Raises UserError, or whatever its module raises."""
    import litserve

    return load_class(name, litserve.LitAPI)


def load_class(name: str, base: type[Any]) -> type[Any]:
    """Import a class that is a subclass of `base`, one of LitServe's. Raises as `load` does."""
    target = _resolve(name)
    if target.file is not None:
        _make_importable(target)
    elif str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # last, where it shadows no other module
    module = importlib.import_module(target.module)
    if not hasattr(module, target.class_name):
        classes = [key for key, value in vars(module).items() if isinstance(value, type)]
        near = reference.nearest(target.class_name, classes)
        raise UserError(f"api {name!r}: {target.module} has no class {target.class_name}{near}")
    found = getattr(module, target.class_name)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UserError(f"api {name!r}: expected a subclass of litserve.{base.__name__}, got {found!r}")
    return found


def describe() -> list[ApiDescription]:
    """All APIs that have a name, built-in ones first, with the input and output that their source declares."""
    built_in = [(name, path, "built in") for name, path in sorted(BUILT_IN.items())]
    installed = [(point.name, point.value, _origin(point)) for point in _entry_points() if point.name not in BUILT_IN]
    return [_describe(*api) for api in built_in + sorted(installed)]


def _resolve(name: str) -> Reference:
    if ":" in name:
        target = reference.parse(name)
        if target.file is not None and not target.file.is_file():
            raise UserError(f"api {name!r}: there is no file {target.file}")
        return target
    if name in BUILT_IN:
        return reference.parse(BUILT_IN[name])
    points = {point.name: point for point in _entry_points()}
    if name in points:
        return reference.parse(points[name].value)
    if name.endswith(".py"):
        raise UserError(f"api {name!r}: expected the class behind the file, as in {name}:MyAPI")
    near = reference.nearest(name, {*BUILT_IN, *points})
    raise UserError(f"api {name!r}: no built-in API or entry point of {ENTRY_POINT_GROUP} has this name{near}")


def _check_names(target: Reference) -> None:
    """Raises UserError where a file, or what it imports from beside it, is hidden by another module of the name."""
    if target.file is None:
        return
    if not target.file.stem.replace("-", "_").isidentifier():
        raise UserError(f"api {target.text!r}: expected a file with a module's name, such as my_api.py; rename it")
    path = [folder for folder in sys.path if folder not in _folders]
    spec = PathFinder.find_spec(target.module, path)
    _refuse_twin(target, target.file, spec.origin if spec else None, target.module in sys.builtin_module_names)
    for name in sorted(reference.imports(target) & _PACKAGES):
        beside = target.file.parent / name
        if beside.is_dir() or (beside := beside.with_suffix(".py")).is_file():
            raise UserError(
                f"api {target.text!r}: it imports {name}, and would get Litport's own package of that name; rename "
                f"{beside}"
            )


def _refuse_twin(target: Reference, file: Path, origin: str | None, is_built_in: bool = False) -> None:
    if is_built_in or (origin is not None and not (Path(origin).exists() and Path(origin).samefile(file))):
        place = "built into Python" if is_built_in else origin
        raise UserError(f"api {target.text!r}: another module is called {target.module!r} ({place}); rename the file")


def _make_importable(target: Reference) -> None:
    # LitServe's workers get our sys.path and import the class by its module's name, so that name must lead to this
    # file. Its folder comes last, where it shadows no other module.
    assert target.file is not None
    folder = str(target.file.parent)
    if folder not in sys.path:
        sys.path.append(folder)
        _folders.add(folder)
    spec = importlib.util.find_spec(target.module)
    _refuse_twin(target, target.file, (spec and spec.origin) or "without a file")


def _entry_points() -> list[EntryPoint]:
    return list(entry_points(group=ENTRY_POINT_GROUP))


def _origin(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "unknown"


def _describe(name: str, path: str, origin: str) -> ApiDescription:
    try:
        source = reference.read(reference.parse(path))
    except UserError as error:
        return ApiDescription(name, path, origin, f"cannot be read: {error}", "", "")
    texts = source.texts
    return ApiDescription(
        name, path, origin, source.summary, texts.get("input_description", ""), texts.get("output_description", "")
    )
