"""A kind of engine: all that the platform needs to offer `engine: NAME` in the settings, in one object.

A package of its own can bring a kind, as an entry point of the group `litport.engines`; see docs/plugins.md.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.settings import LitportSettings, ModelSettings
from configs.shape import TreePath
from servers.engines.base import Card, Engine, Rules
from servers.store import damage, sources, weights


@dataclass(frozen=True)
class Site:
    """What surrounds an instance: the settings of the platform, and the socket that the instance listens on.

    An instance elsewhere has an `address` in its place. `number` counts the instances of the model from 0.

    Files beside the socket, of the same stem, belong to the instance too; they go when the platform ends. `paths` are
    those at which the front door serves every model that offers them.
    """

    settings: LitportSettings
    socket: Path
    paths: frozenset[str]
    address: str | None = None
    number: int = 0


@dataclass(frozen=True)
class EngineKind:
    """An engine as the settings name it.

    `settings` is the class of `models.NAME`; its field `engine` is a Literal of the name. `make` builds the engine of
    one instance from the model's name, its settings and the site. `check_model` yields a field and a sentence for each
    problem of one model's settings, without loading a model, and `describe_model` says of valid ones what a person
    should know of how the model will run. `check_all` returns whole lines for the problems that are found for all
    models of the kind together; it gets them by name, the cache folder, and the origins of settings. `harness` is the
    import path of what the benchmarks know of the engine, since servers do not import benchmarks; None: its models
    are measured through Litport only. `optimize` is the import path of what `litport models optimize` calls with the
    settings, the model's name, a runtime and a precision. `addresses` are those of the instances of a model that is not
    started here, none for one that is: such an engine has no command, and its `connect` leads to the address of its
    site. `derive` are the models that the settings of one stand for, by name: itself, and maybe further ones. `rules`
    makes the rules for the card of a model that a replica serves, from its name, its settings and the card. `gpus` is
    how many GPUs an instance needs that the settings do not say it of.
    """

    settings: type[ModelSettings]
    make: Callable[[str, Any, Site], Engine]
    check_model: Callable[[Any], Iterable[tuple[str, str]]] = lambda _: ()
    check_all: Callable[[Mapping[str, Any], Path, Mapping[TreePath, str]], Sequence[str]] = lambda *_: ()
    describe_model: Callable[[Any], str] = lambda _: ""
    harness: str | None = None
    optimize: str | None = None
    addresses: Callable[[Any], Sequence[str]] = lambda _: ()
    derive: Callable[[str, Any], Mapping[str, ModelSettings]] = lambda name, settings: {name: settings}
    rules: Callable[[str, Any, Card], Rules | None] = lambda *_: None
    gpus: Callable[[Any], int] = lambda _: 0


def check_source(text: str | None, *, needs_config: bool, refuses_pickled: bool) -> Iterable[tuple[str, str]]:
    """The problems of `source` that can be seen without a pull; for `check_model`.

    `needs_config` asks a folder for transformers' config.json; `refuses_pickled` rejects weights that run code.
    """
    try:
        if text is not None:
            _check_source(sources.parse(text), needs_config, refuses_pickled)
    except UserError as problem:
        yield "source", str(problem)


def _check_source(source: sources.Source, needs_config: bool, refuses_pickled: bool) -> None:
    if isinstance(source, sources.MergedSource):
        _check_source(source.base, needs_config, refuses_pickled)
    elif isinstance(source, sources.FolderSource):
        if not source.path.is_dir():
            raise UserError(f"expected a folder with a model at {source.path}, there is none")
        if needs_config and not (source.path / "config.json").is_file():
            raise UserError(f"expected a model that vLLM can load, but {source.path} has no config.json")
        if refuses_pickled:
            _refuse_pickled(source.path)
        if problem := damage.two_models(source.path):
            raise UserError(f"{source.path}: {problem}")
    elif isinstance(source, sources.GgufSource) and not source.path.is_file():
        raise UserError(f"expected a GGUF file at {source.path}, there is none")


def _refuse_pickled(folder: Path) -> None:
    try:
        weights.refuse_pickled(path.name for path in folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}") from None
    except UserError as problem:
        raise UserError(f"{folder}: {problem}") from None
