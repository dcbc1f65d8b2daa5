"""The settings of models on other machines, and what several gateways share: the secret, the address of a store."""

from __future__ import annotations

import logging
import re
import stat
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from configs.errors import UserError
from configs.model import Section

_log = logging.getLogger("litport.configs")

SHORTEST_SECRET = 32
"""Characters of a secret at least: `openssl rand -hex 32` makes one of 64."""

_SETTING = "cluster.secret_file"
_File = Annotated[Path, AfterValidator(Path.expanduser)]


def _dashboard(text: str) -> str:
    if not re.fullmatch(r"https?://[^\s/@?#]+/?", text):
        raise ValueError("expected scheme, host and port alone, such as http://10.0.0.7:8265")
    return text.rstrip("/")


def _redis_url(url: SecretStr) -> SecretStr:
    text = url.get_secret_value()
    try:
        port = urlsplit(text).port
    except ValueError:  # its message repeats the text
        port = 0
    if not re.fullmatch(r"(rediss?://[^\s/?#]+(/\d*)?|unix://(\S*@)?/[^\s?#]+)", text) or port == 0:
        raise ValueError("expected redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], rediss:// for TLS, or unix:///PATH")
    return url


RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]


class Cluster(Section):
    """Replicas of models on other machines (`models.NAME.instances`, `litport replica`), and the Ray cluster."""

    secret_file: _File | None = Field(
        None,
        description=f"File with the secret that a gateway and its replicas share, of {SHORTEST_SECRET} or more "
        "characters; replicas answer nobody else.",
    )
    dashboard: Annotated[str, AfterValidator(_dashboard)] | None = Field(
        None,
        description="Address of the Ray cluster's dashboard, such as `http://10.0.0.7:8265`, for `litport deploy`, "
        "`gateway` and `undeploy`; their option --ray names another.",
    )
    token_file: _File | None = Field(
        None, description="File with the token of the Ray cluster; null: $RAY_AUTH_TOKEN_PATH or $RAY_AUTH_TOKEN."
    )
    replica_port: int = Field(
        8100,
        ge=1024,
        le=65436,
        description="Port of the first replica on each node of the Ray cluster; the next ones take the free ones above "
        "it, up to 99.",
    )


def read_secret(cluster: Cluster) -> str:
    """The secret. Raises UserError where there is none that may be used; no message repeats it."""
    path = cluster.secret_file
    if path is None:
        raise UserError(f"{_SETTING}: expected the file of the secret that gateway and replicas share, got none")
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):  # opening a pipe can block
            raise UserError(f"{_SETTING}: expected a file at {path}, got a folder, device, pipe or socket")
        secret = path.read_text(encoding="utf-8").strip()
    except OSError as problem:
        raise UserError(f"{_SETTING}: expected a file that can be read at {path}, got {problem.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{_SETTING}: expected text in {path}, got other bytes") from None
    if mode & 0o022:
        raise UserError(
            f"{_SETTING}: expected a file that only its owner may write to, got mode {mode & 0o777:o}; "
            f"chmod go-w {path}"
        )
    if not re.fullmatch(rf"[!-~]{{{SHORTEST_SECRET},}}", secret):
        raise UserError(
            f"{_SETTING}: expected one line of {SHORTEST_SECRET} or more visible ASCII characters without spaces in "
            f"{path}; openssl rand -hex 32 makes one"
        )
    if mode & 0o044:
        _log.warning("%s: not only its owner may read this secret (mode %o); chmod go-r it", path, mode & 0o777)
    return secret
