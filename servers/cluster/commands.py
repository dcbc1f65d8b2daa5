"""The commands of a Ray cluster: `ray start` for a node, and deploy, gateway and undeploy for a recipe on it."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.arguments import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from configs.loading import LoadedSettings


def add_commands(commands: "argparse._SubParsersAction[Any]", version: str) -> None:
    """Add the commands to the command line; a gateway tells this version."""
    deploy = commands.add_parser("deploy", help="run the models of a recipe on a Ray cluster", epilog=SETTINGS)
    deploy.add_argument(
        "--print",
        choices=("serve", "kuberay"),
        dest="form",
        help="deploy nothing, and print the configuration for Ray Serve, or a cluster with room for it for KubeRay",
    )
    gateway = commands.add_parser("gateway", help="serve the models that were deployed on Ray", epilog=SETTINGS)
    undeploy = commands.add_parser("undeploy", help="end the models of a recipe on Ray", epilog=SETTINGS)
    for parser, run in ((deploy, _deploy), (gateway, _gateway), (undeploy, _undeploy)):
        parser.add_argument("target", metavar="RECIPE")
        parser.add_argument("--ray", metavar="ADDRESS", help="of Ray's dashboard (default: cluster.dashboard)")
        parser.set_defaults(run=run, version=version)

    ray = commands.add_parser("ray", help="a node of a Ray cluster on this machine: start")
    node = ray.add_subparsers(metavar="ACTION", required=True).add_parser("start", help="run one, until a signal")
    node.add_argument("--head", action="store_true", help="the first of a cluster, which has its control plane")
    node.add_argument("--address", metavar="HOST:PORT", help="join the cluster of this head")
    node.add_argument("--token-file", type=Path, required=True, metavar="FILE", help="what all nodes share")
    node.add_argument("arguments", nargs="*", metavar="-- OPTION", help="more options of Ray's own `ray start`")
    node.set_defaults(run=_start_node)


def add_ray_options(status: argparse.ArgumentParser, form: "argparse._MutuallyExclusiveGroup") -> None:
    """What `show_ray` takes, for `litport status`; `form` is its choice of what is shown."""
    form.add_argument("--ray", metavar="ADDRESS", help="what is deployed on the Ray cluster of this dashboard")
    status.add_argument("--token-file", type=Path, metavar="FILE", help="for --ray (default: cluster.token_file)")


def show_ray(address: str, token_file: Path | None) -> int:
    """Print the state of each model on Ray; the token is of this file, or of the settings. Raises UserError."""
    from servers.cluster import dashboard, rollout
    from servers.platform.connection import settings_without_models

    cluster = settings_without_models().cluster
    if token_file is not None:
        cluster = cluster.model_copy(update={"token_file": token_file})
    with dashboard.connect(cluster, address) as ray:
        _say("\n".join(rollout.lines(ray)) or "nothing of Litport is deployed there")
    return 0


def _deploy(arguments: argparse.Namespace) -> int:
    import yaml

    from servers.cluster import application, dashboard, kuberay, rollout

    loaded = _load(arguments)
    applications = application.applications_of(loaded)
    if arguments.form == "kuberay":
        sys.stdout.write(kuberay.manifest(loaded))
        return 0
    if arguments.form:
        sys.stdout.write(yaml.safe_dump(rollout.document(applications), sort_keys=False))
        return 0
    with dashboard.connect(loaded.settings.cluster, arguments.ray) as ray:
        return 0 if rollout.deploy(ray, applications, _say) else 1


def _undeploy(arguments: argparse.Namespace) -> None:
    from servers.cluster import application, dashboard, rollout

    settings = _load(arguments).settings
    names = [application.application_name(name) for name in application.models_of(settings)]
    with dashboard.connect(settings.cluster, arguments.ray) as ray:
        rollout.undeploy(ray, names, _say)


def _gateway(arguments: argparse.Namespace) -> int:
    from servers.cluster import dashboard
    from servers.cluster.application import through_ray
    from servers.cluster.follower import Follower
    from servers.platform import logs, serve
    from servers.platform.platform import Platform

    def read(recipes: "Sequence[Path]" = ()) -> "LoadedSettings":
        return through_ray(_load(arguments, [str(recipe) for recipe in recipes]))

    loaded = read()
    logs.configure(loaded.settings.telemetry)
    with dashboard.connect(loaded.settings.cluster, arguments.ray) as ray:

        async def follow(platform: Platform) -> None:
            await Follower(platform.supervisor, loaded.settings, ray).run()

        return serve.serve(loaded, read, arguments.version, None, follow)


def _start_node(arguments: argparse.Namespace) -> int:
    from servers.cluster import node

    return node.start(arguments.head, arguments.address, arguments.token_file, arguments.arguments)


def _load(arguments: argparse.Namespace, recipes: "Sequence[str]" = ()) -> "LoadedSettings":
    from servers.platform.targets import load

    return load(recipes or [arguments.target], arguments.overrides)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
