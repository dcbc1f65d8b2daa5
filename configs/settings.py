"""The settings tree: every setting Litport has, its type, its bounds and its description, in one place.

The command line, the environment, the recipes, the JSON schema and the reference page all come from this declaration.
Of the machine it checks paths only; whether a model loads is checked elsewhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from configs.bench import Bench
from configs.cluster import Cluster, RedisUrl
from configs.litserve import LitServeModel
from configs.llamacpp import LlamaCppModel
from configs.model import SHORTEST_KEY, ModelName, ModelSettings, Seconds, Section
from configs.remote import RemoteModel
from configs.vllm import VllmModel

__all__ = [
    "Auth",
    "Bench",
    "Cluster",
    "Limits",
    "LitServeModel",
    "LitportSettings",
    "LlamaCppModel",
    "Model",
    "ModelName",
    "ModelSettings",
    "RemoteModel",
    "Server",
    "Telemetry",
    "VllmModel",
]

LOOPBACK = "127.0.0.1"


# `configs.engines.register` adds the settings of further engines.
Model = Annotated[VllmModel | LitServeModel | LlamaCppModel | RemoteModel, Field(discriminator="engine")]
File = Annotated[Path, AfterValidator(Path.expanduser)]


class Server(Section):
    """Where Litport listens and keeps its files."""

    host: str = Field(LOOPBACK, description="Address the front door listens on; 0.0.0.0 for every network.")
    port: int = Field(8000, ge=0, le=65535, description="Port the front door listens on; 0 takes any free one.")
    cache_dir: Path = Field(
        default_factory=lambda: Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "litport",
        description="Folder for pulled models and logs; by default $XDG_CACHE_HOME/litport or ~/.cache/litport.",
    )
    memory_budget_bytes: int | None = Field(
        None,
        ge=1,
        description="Most memory of all models together while models are loaded on demand, in bytes; null for what the "
        "machine has available.",
    )
    drain_timeout_s: float = Field(
        30, ge=0, description="How long requests in flight may take to finish when Litport stops, in seconds."
    )
    tls_cert_file: File | None = Field(
        None, description="Certificate chain (PEM); with it and its key the port speaks HTTPS."
    )
    tls_key_file: File | None = Field(None, description="Private key of the certificate (PEM).")
    cors_origins: list[str] = Field(
        [], description="Origins of web pages whose scripts may call, such as https://example.org; * for any."
    )

    @field_validator("host")
    @classmethod
    def _is_a_host(cls, host: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9.:_-]+", host) or re.fullmatch(r"[^:]+:\d*", host):
            raise ValueError("expected a host name or address with no scheme or port, such as 127.0.0.1")
        return host

    @field_validator("cache_dir")
    @classmethod
    def _can_be_a_folder(cls, cache_dir: Path) -> Path:
        try:
            cache_dir = cache_dir.expanduser().absolute()
            nearest = next((path for path in (cache_dir, *cache_dir.parents) if path.exists()), None)
        except (OSError, RuntimeError) as error:  # no permission, too long, no such user's home
            raise ValueError(f"expected the path of a folder: {error}") from error
        if nearest and not nearest.is_dir():
            raise ValueError(f"expected a folder, or a path where one can be made, but {nearest} is a file")
        return cache_dir


class Limits(Section):
    """What one request, and one connection, may cost."""

    max_body_bytes: int = Field(64 * 2**20, ge=1, description="Largest request body, in bytes.")
    max_json_depth: int = Field(64, ge=1, le=500, description="Deepest nesting of a JSON body.")
    max_choices: int = Field(128, ge=1, description="Largest `n` and `best_of` of a request to an LLM.")
    max_stop_sequences: int = Field(64, ge=1, description="Longest list of `stop` sequences of a request.")
    unknown_fields: Literal["tell", "refuse"] = Field(
        "tell",
        description="What happens to a request with a field that vLLM, or a spec of LitServe, does not read: the "
        "answer names it in its header X-Litport-Ignored-Fields, or the request is a 400. Fields whose loss changes "
        "the answer are always a 400.",
    )
    request_timeout_s: Seconds | None = Field(
        600,
        description="Longest a whole request may take, in seconds; null for no limit. A request may ask for less in "
        "its header X-Request-Timeout, and a model may have a limit of its own.",
    )
    max_connections: int = Field(
        4096, ge=1, description="Most connections at a time; beyond them the one that is idle the longest is closed."
    )
    max_header_bytes: int = Field(
        32 * 2**10, ge=1024, description="Largest head of a request (its path and headers), in bytes."
    )
    max_header_fields: int = Field(100, ge=1, description="Most header fields of a request.")
    header_timeout_s: Seconds = Field(
        10, description="How long a request's head may take to arrive, and a new connection to begin one, in seconds."
    )
    body_timeout_s: Seconds = Field(
        60,
        description="How long a request's body may pause between two pieces, in seconds; as a whole it may take this "
        "and one more second for each 500 bytes.",
    )
    write_timeout_s: Seconds = Field(
        60, description="How long a client may leave an answer unread before it is cut off, in seconds."
    )
    keep_alive_timeout_s: Seconds = Field(
        75, description="How long a connection may be idle between two requests, in seconds."
    )
    redis_url: RedisUrl | None = Field(
        None,
        description="Redis or Valkey in which several gateways count the limits of keys together, such as "
        "`redis://:PASSWORD@10.0.0.7:6379/0` (needs `make redis`); null: each counts by itself.",
    )


class Auth(Section):
    """Who may call."""

    api_keys: list[SecretStr] = Field(
        [],
        description="Keys that callers send as `Authorization: Bearer KEY` or `X-API-Key: KEY`, of 16 or more "
        "characters; with none here and no keys_file, anybody may call.",
    )
    keys_file: File | None = Field(
        None,
        description="YAML file of named keys, each with its own rights and limits; read again on SIGHUP.",
    )
    open_to_network: bool = Field(
        False, description="Whether Litport may listen on an address that others reach while no key is needed."
    )

    @field_validator("api_keys")
    @classmethod
    def _are_keys(cls, api_keys: list[SecretStr]) -> list[SecretStr]:
        keys = [key.get_secret_value() for key in api_keys]
        for number, key in enumerate(keys, start=1):
            if not re.fullmatch(r"[!-~]+", key):
                raise ValueError(f"expected keys of visible ASCII without spaces, and number {number} is not one")
            if len(key) < SHORTEST_KEY:
                expected = f"expected keys of {SHORTEST_KEY} or more characters"
                raise ValueError(f"{expected}, and number {number} has {len(key)}")
            if key in keys[: number - 1]:
                raise ValueError(f"expected different keys, and number {number} was there before")
        return api_keys


class Telemetry(Section):
    """Logs, metrics and hardware samples."""

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe message logged.")
    log_format: Literal["auto", "text", "json"] = Field(
        "auto", description="Form of log lines; auto is text on a terminal and JSON elsewhere."
    )
    metrics_host: str = Field(
        LOOPBACK,
        description="Address of the Prometheus metrics; they need no key, so open it to Prometheus only.",
    )
    metrics_port: int | None = Field(
        9464, ge=0, le=65535, description="Port of the Prometheus metrics; 0 takes any free one, null for none."
    )
    sample_interval_s: Seconds | None = Field(
        2, description="Time between two samples of processes, host and GPUs, in seconds; null for none."
    )
    audit_file: File | None = Field(
        None, description="File for one JSON line a request: who, which model, tokens, status; never its content."
    )


class LitportSettings(BaseSettings):
    """Litport: every model on one port."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix="LITPORT_", env_nested_delimiter="__", hide_input_in_errors=True
    )

    server: Server = Field(default_factory=Server, description=str(Server.__doc__))
    models: dict[ModelName, Model] = Field({}, description="The models, each under the name that requests call it by.")
    limits: Limits = Field(default_factory=Limits, description=str(Limits.__doc__))
    auth: Auth = Field(default_factory=Auth, description=str(Auth.__doc__))
    cluster: Cluster = Field(default_factory=Cluster, description=str(Cluster.__doc__))
    telemetry: Telemetry = Field(default_factory=Telemetry, description=str(Telemetry.__doc__))
    bench: Bench = Field(default_factory=Bench, description=str(Bench.__doc__))

    @field_validator("models")
    @classmethod
    def _have_names_of_their_own(cls, models: dict[str, ModelSettings]) -> dict[str, ModelSettings]:
        owners = dict.fromkeys(models, "the name of a model")
        for name, model in models.items():
            for field, noun in (("aliases", "an alias"), ("adapters", "an adapter")):
                for own_name in getattr(model, field, ()):
                    if own_name in owners:
                        owner = owners[own_name]
                        raise ValueError(f"{name}.{field}: expected new names, got {own_name!r}, {owner}")
                    owners[own_name] = f"{noun} of models.{name} already"
        return models

    @field_validator("models")
    @classmethod
    def _fall_back_on_each_other(cls, models: dict[str, ModelSettings]) -> dict[str, ModelSettings]:
        for name, model in models.items():
            if model.fallback is not None and model.fallback not in models:
                names = ", ".join(models)
                raise ValueError(
                    f"{name}.fallback: expected the name of a model, got {model.fallback!r}; there are {names}"
                )
            line = [name]
            while (following := models[line[-1]].fallback) in models:
                if following in line:
                    circle = " -> ".join((*line, following))
                    raise ValueError(f"{name}.fallback: expected a line that ends, got the circle {circle}")
                line.append(following)
            if model.embeds_token_ids and not all(models[other].embeds_token_ids for other in line):
                raise ValueError(f"{name}.fallback: expected models that take token ids too (embeds_token_ids)")
        return models

    @property
    def granted_names(self) -> list[str]:
        """The names that keys may grant: those of the models and of their adapters."""
        adapters = (name for model in self.models.values() for name in getattr(model, "adapters", ()))
        return list(dict.fromkeys((*self.models, *adapters)))

    _layers: ClassVar[ContextVar[Sequence[Mapping[str, Any]]]] = ContextVar("layers", default=())

    @classmethod
    def from_layers(cls, layers: Sequence[Mapping[str, Any]]) -> Self:
        """Merge nested mappings, the strongest first, and validate the result; raises pydantic's ValidationError."""
        token = cls._layers.set(layers)
        try:
            return cls()
        finally:
            cls._layers.reset(token)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Replace pydantic-settings' own sources, which let misspelt variables pass, by the layers being loaded."""
        del env_settings, dotenv_settings, file_secret_settings
        return (init_settings, *(_LayerSource(settings_cls, layer) for layer in cls._layers.get()))


class _LayerSource(PydanticBaseSettingsSource):
    def __init__(self, settings_cls: type[BaseSettings], layer: Mapping[str, Any]) -> None:
        super().__init__(settings_cls)
        self._layer = layer

    def get_field_value(
        self,
        field: FieldInfo,  # noqa: ARG002  # the base class asks for it
        field_name: str,
    ) -> tuple[Any, str, bool]:
        return self._layer.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return dict(self._layer)
