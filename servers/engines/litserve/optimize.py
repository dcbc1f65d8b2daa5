"""`litport models optimize`: a model's export, proof and choice of a runtime ahead of its first start.

`python -m servers.engines.litserve.optimize SPEC.json` is the process that does it, as a worker would at its setup.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from configs.errors import UserError
from configs.settings import LitportSettings, LitServeModel
from servers.apis.exports import STEP, exports_dir
from servers.engines.kind import Site
from servers.engines.litserve.api import ApiSpec
from servers.engines.litserve.host.load import construct
from servers.engines.litserve.kind import LITSERVE
from servers.processes.interpreter import module_argv
from servers.store import Store


def optimize(settings: LitportSettings, name: str, runtime: str | None, precision: str | None) -> None:
    """Prepare the model `name` for its start and print what was measured; None is what the settings have.

    Raises UserError for what the model does not take, and for a model that is not proved.
    """
    model = settings.models[name]
    assert isinstance(model, LitServeModel)
    if precision == "int8":
        raise UserError(f"models.{name}: engine litserve takes --precision float32, bfloat16 or float16, got int8")
    changes = {"runtime": runtime, "precision": precision}
    model = model.model_copy(update={field: value for field, value in changes.items() if value is not None})
    if problems := [f"models.{name}.{field}: {problem}" for field, problem in LITSERVE.check_model(model)]:
        raise UserError("\n".join(problems))
    cache_dir = settings.server.cache_dir
    model_dir = Store(cache_dir).pull(model.source) if model.source is not None else None
    with tempfile.TemporaryDirectory(prefix="litport-") as folder:
        engine = LITSERVE.make(name, model, Site(settings, Path(folder, "model.sock"), frozenset()))
        command = engine.command(model_dir, Path(folder, "model.sock"))
        assert command is not None
        # Auto measures what all workers of a model do at the same time.
        count = (model.workers_per_device or 1) if model.runtime == "auto" else 1
        argv = module_argv("servers.engines.litserve.optimize", command.argv[-1])
        _run(argv, {**os.environ, **command.environ}, count)
    sys.stdout.write(f"kept in {exports_dir(cache_dir, name)}\n")


def _run(argv: list[str], environ: dict[str, str], count: int) -> None:
    """Run so many processes at once and show the first one's steps. Raises UserError with its last line."""
    children = [subprocess.Popen(argv, env=environ, stderr=subprocess.PIPE, text=True)]
    last = ""
    try:
        children += [
            subprocess.Popen(argv, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)
            for _ in range(count - 1)
        ]
        for line in children[0].stderr or ():
            last = line.strip() or last
            if line.startswith(STEP):
                sys.stderr.write(line.removeprefix(STEP))
        statuses = [child.wait() for child in children]
    finally:
        for child in children:
            child.kill()
            child.wait()
    if any(statuses):
        raise UserError(last or f"ended with status {max(statuses)}")


def main(spec_file: str) -> int:
    """Set the API up once; returns the exit status."""
    spec = ApiSpec(**json.loads(Path(spec_file).read_text()))
    api = construct(spec)
    try:
        api.setup("cpu")
    except UserError as problem:
        sys.stderr.write(f"api {spec.api!r}: {problem}\n")
        return 2
    proof = getattr(api, "equality", None)
    sys.stdout.write(f"{spec.name}: {proof.note if proof else 'eager float32, nothing to prepare'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
