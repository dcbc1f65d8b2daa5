"""The directory: which model a name stands for, and whether it can take a request now.

It reads models and never changes them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from servers.engines.base import Card
from servers.errors import ApiError, UnservedError
from servers.models.instance import Instance, State
from servers.models.model import Model


class UnknownOfferError(ApiError):
    """What the model offers is not known, since it was never loaded; the request can be judged after its load."""

    def __init__(self, model: Model) -> None:
        super().__init__(503, f"model '{model.name}' is not loaded", code="model_not_ready", param="model")
        self.model = model


class Directory:
    """The models of a platform by their names."""

    def __init__(self, models: Mapping[str, Model]) -> None:
        self.models = models
        self._by_alias: dict[str, Model] = {}  # as they were found last, which saves a search of all models

    def find(self, name: str) -> Model:
        """The model of this name or alias, or the one whose process lists it (an adapter). Raises ApiError 404."""
        namesake = self.models.get(name)
        if namesake is not None and not namesake.is_leaving:
            return namesake
        if (model := self._by_alias.get(name)) and self.models.get(model.name) is model and _is_called(model, name):
            return model
        for model in self.models.values():
            if _is_called(model, name):
                self._by_alias[name] = model
                return model
        if namesake is not None:
            return namesake
        for model in self.models.values():
            if model.card and any(entry["id"] == name for entry in model.card.listing):
                return model
        message = f"The model '{name[:128]}' does not exist; there are: {', '.join(self.models) or 'none'}"
        raise ApiError(404, message, code="model_not_found", param="model")

    def serving(self, path: str, name: str | None) -> Model:
        """The model of this name, which must offer `path`; without a name, the only model that offers it.

        It is ready, or is loaded on demand, or one that it falls back on is ready. Raises ApiError: 404 for a model
        that does not exist, 400 for one that is not named or does not offer the path, 503 for one that is not ready,
        UnknownOfferError for one that was never loaded.
        """
        model = self._only_one(path) if name is None else self.find(name)
        if self.has_stand_in(model, path):
            return model
        offering_card(model, path)
        return model

    def predicting(self) -> Model:
        """The only model that predicts. Raises ApiError 400 where there is none, or more than one."""
        models = [model for model in self.models.values() if model.card and model.card.predict_path]
        if len(models) == 1:
            return models[0]
        self._check_known(models)
        paths = ", ".join(f"/predict/{model.name}" for model in models) or "none is up"
        raise ApiError(400, f"name a model in the path: {paths}", code="missing_model", param="model")

    def fallback(self, model: Model, path: str | None) -> Model | None:
        """The next model in its line that is ready and offers `path`; None where there is none.

        The path None is the one that predicts, whatever each model calls it.
        """
        while model.settings.fallback is not None:
            following = self.models.get(model.settings.fallback)
            if following is None:  # the models are being changed
                return None
            model = following
            card = model.card
            if card is None or model.state is not State.READY:
                continue
            if _offers(card, path):
                return model
        return None

    def has_stand_in(self, model: Model, path: str | None) -> bool:
        """Whether the model is not ready, and `fallback` is there for it."""
        return model.state is not State.READY and self.fallback(model, path) is not None

    def offers(self, path: str) -> bool:
        """Whether some model offers this path."""
        return any(model.card and path in model.card.routes for model in self.models.values())

    def _only_one(self, path: str) -> Model:
        models = [model for model in self.models.values() if model.card and path in model.card.routes]
        if len(models) != 1:
            self._check_known(models)
            names = ", ".join(model.name for model in models or self.models.values())
            raise ApiError(400, f"name a model: {names}", code="missing_model", param="model")
        return models[0]

    def _check_known(self, models: Sequence[Model]) -> None:
        """Raises UnknownOfferError where no model is known to fit, and one alone is unknown."""
        unknown = [model for model in self.models.values() if not model.card and not model.residence.is_open]
        if not models and len(unknown) == 1:
            raise UnknownOfferError(unknown[0])


def _is_called(model: Model, name: str) -> bool:
    """Whether this is an alias or an adapter of a model that takes requests."""
    return not model.is_leaving and (name in model.settings.aliases or name == model.granted_name(name))


def ready_card(model: Model) -> Card:
    """The card of a model that takes requests, be it after a load.

    Raises UnservedError 503 when none of its instances does, UnknownOfferError for a model that was never loaded.
    """
    instance = model.choose()
    if model.is_leaving:
        message = f"model '{model.name}' takes no new requests, as it is being removed"
        raise UnservedError(503, message, code="model_not_ready", param="model")
    if instance.state is State.READY:
        assert instance.card is not None
        return instance.card
    if model.residence.is_open:
        raise _not_ready(model, instance)
    if model.card is None:
        raise UnknownOfferError(model)
    return model.card


def offering_card(model: Model, path: str | None) -> Card:
    """The card of a model that takes requests and offers `path`; the path None is the one that predicts.

    Raises ApiError 400 for one that does not offer it, and what `ready_card` raises.
    """
    card = ready_card(model)
    if not _offers(card, path):
        raise not_offered(model, path or "/predict")
    return card


def _offers(card: Card, path: str | None) -> bool:
    return card.predict_path is not None if path is None else path in card.routes


def paths_of(model: Model) -> list[str]:
    """The paths at which the front door serves the model; empty while it is not up."""
    card = model.card
    if card is None:
        return []
    predict = [f"/predict/{model.name}"] if card.predict_path else []
    infer = [f"/v2/models/{model.name}/infer"] if card.tensors else []
    return sorted(card.routes) + predict + infer


def entries(model: Model) -> list[dict[str, Any]]:
    """The model's entries in OpenAI's list: its own, and one for each alias and each adapter.

    `kind` (the engine) and `state` stand beside OpenAI's fields, and beside those of the model's process.
    """
    card = model.card
    plain = {"id": model.name, "object": "model", "created": int(model.choose().since), "owned_by": "litport"}
    listing = [*card.listing] if card else [plain]
    ids = {entry["id"] for entry in listing}
    names = (*model.settings.aliases, *model.adapters)
    listing += [{**(listing or [plain])[0], "id": name} for name in names if name not in ids]
    return [{**entry, "kind": model.engine.kind, "state": model.state.value} for entry in listing]


def not_offered(model: Model, path: str) -> ApiError:
    """The error for a path that the model does not offer."""
    message = f"model '{model.name}' does not serve {path}; it serves {', '.join(paths_of(model))}"
    return ApiError(400, message, code="unsupported_route", param="model")


def _not_ready(model: Model, instance: Instance) -> ApiError:
    # The rest of `detail` may quote what a process said when it broke, and so a request: it is for /status only.
    step = instance.detail.partition(":")[0]
    message = f"model '{model.name}' is {instance.state.value}: {step}".rstrip(": ")
    headers = {} if instance.state is State.FAILED else {"retry-after": str(instance.ready_in_s)}
    return UnservedError(503, message, code="model_not_ready", param="model", headers=headers)
