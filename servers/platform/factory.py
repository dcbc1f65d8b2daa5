"""The factory: makes models from settings, at the start of a platform and while it runs."""

import itertools
from collections.abc import Sequence
from pathlib import Path

from configs.settings import LitportSettings
from servers.engines import registry
from servers.engines.kind import Site
from servers.gateway.routes import openai
from servers.models.instance import Instance
from servers.models.model import Model
from servers.models.size_record import SizeRecord


class ModelFactory:
    """Makes models whose instances have their sockets in `run_dir`, each a path of its own."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        # Numbers, because a name may contain slashes and the path of a socket is limited to 107 bytes.
        self._numbers = itertools.count()

    def make(self, settings: LitportSettings, name: str) -> Model:
        """The model of this name in the settings, without processes yet."""
        model_settings = settings.models[name]
        addresses = registry.addresses_of(model_settings)
        places: Sequence[str | None] = addresses or [None] * model_settings.replica_count
        model_number = next(self._numbers)
        stems = [f"{model_number}" if number == 0 else f"{model_number}-{number}" for number in range(len(places))]
        instances = [
            _instance(settings, name, self._run_dir / f"{stem}.sock", number, address)
            for number, (stem, address) in enumerate(zip(stems, places, strict=True))
        ]
        engine = instances[0].engine
        assert engine is not None
        model = Model(name, model_settings, engine, instances)
        model.residence.record = SizeRecord(settings.server.cache_dir / "sizes.json", name, model_settings)
        return model


def _instance(settings: LitportSettings, name: str, socket_path: Path, number: int, address: str | None) -> Instance:
    model_settings = settings.models[name]
    site = Site(settings, socket_path, openai.PATHS, address, number)
    engine = registry.make_engine(name, model_settings, site)
    suffix = f".{number + 1}" if number else ""
    log_file = settings.server.cache_dir / "logs" / f"{name.replace('/', '--')}{suffix}.log"
    return Instance(socket_path, log_file, address, engine)
