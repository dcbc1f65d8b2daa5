"""The settings of a model that another server serves."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator

from configs.model import ModelSettings, Seconds, Text, different


def _sent_key(key: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[!-~]+", key.get_secret_value()):
        raise ValueError("expected a key of visible ASCII without spaces")
    return key


def _base_url(text: str) -> str:
    """The address without a slash or `/v1` at its end."""
    parts = urlsplit(text)
    try:
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_whole = False
    if not is_whole or parts.query or parts.fragment or not re.fullmatch(r"[!-~]+", text):
        raise ValueError("expected an address such as http://box:8000 or https://api.example.com/v1")
    return text.rstrip("/").removesuffix("/v1")


Address = Annotated[str, AfterValidator(_base_url)]


class RemoteModel(ModelSettings):
    """A model that another OpenAI-compatible server serves: a neighbour's Litport or vLLM, or a provider."""

    caches_prefixes = True
    engine: Literal["remote"] = Field(description="What runs the model.")
    url: Address | None = Field(
        None,
        validate_default=True,
        description="The server's address, `http://box:8000` or with the path before its routes; a `/v1` behind it is "
        "left out.",
    )
    instances: Annotated[list[Address], AfterValidator(different)] = Field(
        [],
        description="In the place of `url`, the addresses of several servers of the model; a prompt goes to the one "
        "whose prefix cache likely has it, any other request to the one with the fewest.",
    )
    model: Text | None = Field(None, description="The model's name there; null for the same name.")
    api_key: Annotated[SecretStr, AfterValidator(_sent_key)] | None = Field(
        None, description="The key that this server asks for; it gets no key of a caller's."
    )
    routes: list[Annotated[str, Field(pattern="^/")]] | None = Field(
        None,
        description="The routes that lead to it, such as `/v1/chat/completions`; null for those that its "
        "`/openapi.json` has, or `/v1/chat/completions` where there is none.",
    )
    start_timeout_s: Seconds = Field(
        120, description="How long a required model may be out of reach at the start, in seconds."
    )
    canary_timeout_s: Seconds = Field(
        30, description="How long the server may give no answer before its connections are closed, in seconds."
    )

    @field_validator("url")
    @classmethod
    def _has_addresses(cls, url: str | None, info: ValidationInfo) -> str | None:
        if "instances" in info.data and (url is None) == (not info.data["instances"]):
            actual = "neither" if url is None else "both"
            raise ValueError(f"expected url, or instances with an address or more, got {actual}")
        return url

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it runs, one address or more."""
        return (*self.instances,) if self.url is None else (self.url,)
