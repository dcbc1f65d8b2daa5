"""The workshop: makes versions of models from the settings in force, and puts them in place."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from configs.errors import SettingsError, UserError
from configs.loading import revise
from configs.settings import LitportSettings
from servers.engines import registry
from servers.engines.replica import awaited
from servers.models.model import Model
from servers.models.replicas import Replicas
from servers.models.versions import Plan, Tell, Versions
from servers.platform.factory import ModelFactory
from servers.platform.workload import questions


class Workshop:
    """Makes versions with `factory`; `settings` gives those of the platform, with each model's as it serves."""

    def __init__(
        self, settings: Callable[[], LitportSettings], factory: ModelFactory, versions: Versions, replicas: Replicas
    ) -> None:
        self._settings = settings
        self._factory = factory
        self._versions = versions
        self._replicas = replicas

    async def swap(self, model: Model, changes: Mapping[str, Any], plan: Plan, tell: Tell) -> None:
        """See `servers.gateway.revisions.Workshop`."""
        _refuse_ray(model)
        settings = await asyncio.to_thread(_check, revise(self._settings(), model.name, changes), model.name)
        if plan.compare:
            workload = await asyncio.to_thread(questions, self._settings(), model.name, plan.compare)
            plan = replace(plan, questions=workload)
        await self._versions.swap(model, self._factory.make(settings, model.name), plan, tell)

    async def rollback(self, model: Model, tell: Tell) -> None:
        """See `servers.gateway.revisions.Workshop`."""
        await self._versions.rollback(model, tell)

    async def scale(self, model: Model, replicas: int, tell: Tell) -> None:
        """See `servers.gateway.revisions.Workshop`."""
        _refuse_ray(model)
        if model.instances[0].address is not None:
            raise UserError(f"{model.name} runs elsewhere; its addresses are set by models.{model.name}.instances")
        settings = revise(self._settings(), model.name, {"replicas": replicas})
        if replicas > len(model.instances):
            # Those that are left of more need not be the first ones, and each has a log, and devices, of its own.
            taken = {instance.log_file for instance in model.instances}
            offered = self._factory.make(settings, model.name).instances
            additions = [instance for instance in offered if instance.log_file not in taken]
            additions = additions[: replicas - len(model.instances)]
            await self._replicas.add(model, additions)
        else:
            await self._replicas.keep(model, replicas)
        model.settings = settings.models[model.name]
        tell("ok", model, model, f"{model.name}: replicas: {len(model.instances)}")


def _refuse_ray(model: Model) -> None:
    if awaited.ADDRESS in model.settings.instances:
        raise UserError(f"{model.name} runs on Ray: change the recipe, and `litport deploy` it")


def _check(settings: LitportSettings, name: str) -> LitportSettings:
    """Settings whose model of this name can be started, as far as that is seen without. Raises SettingsError."""
    model = settings.models[name]
    kind = registry.kind_of(model)
    problems = [f"models.{name}.{field}: {problem}" for field, problem in kind.check_model(model)]
    problems += kind.check_all({name: model}, settings.server.cache_dir, {})
    if problems:
        raise SettingsError(tuple(problems))
    return settings
