"""The address and the key of a running platform, for the commands that ask one."""

import argparse
import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from configs.settings import LitportSettings


def add_connection(parser: argparse.ArgumentParser) -> None:
    """The options that `connection` reads."""
    parser.add_argument("--url", help="the platform's address (default: from server.host and server.port)")
    parser.add_argument("--key", help="the API key (default: the environment's OPENAI_API_KEY)")


def settings_without_models() -> "LitportSettings":
    """The settings without the models that the environment configures for `serve`."""
    from configs.loading import load

    environ = {name: value for name, value in os.environ.items() if not name.upper().startswith("LITPORT_MODELS__")}
    return load(environ=environ).settings


def connection(arguments: argparse.Namespace) -> tuple[str, str | None]:
    """The address, without a path, and the key, of the options or else of the settings. Raises UserError."""
    from configs.errors import UserError
    from servers.gateway import address

    server = settings_without_models().server
    url = arguments.url or address.url_of(server.host, server.port, server.tls_cert_file is not None)
    url = url if "://" in url else f"http://{url}"
    key = arguments.key or os.environ.get("OPENAI_API_KEY")
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        raise UserError(f"--url: expected an address such as http://127.0.0.1:8000, got {url!r}")
    if key and not (key.isascii() and key.isprintable()):
        raise UserError("--key, or OPENAI_API_KEY: expected ASCII without line ends")
    return url.rstrip("/").removesuffix("/v1"), key
