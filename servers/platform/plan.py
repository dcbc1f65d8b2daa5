"""The plan of a change: what the settings have other than the running platform, and what is done about it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from configs.difference import Change, Difference
from configs.settings import Limits, LitportSettings, ModelSettings
from servers.gateway.keys import Keyring
from servers.models.model import Model

# Settings outside of the models that a running platform takes over; the others need a restart.
_AT_ONCE = {
    "server": ("drain_timeout_s", "memory_budget_bytes"),
    "limits": tuple(Limits.model_fields.keys() - {"redis_url"}),
    "auth": None,
    "telemetry": (),
    "cluster": (),
}


@dataclass(frozen=True)
class Outcome:
    """What a change has come to: a line for each thing done, and one for each model that could not be started."""

    results: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """`settings` and `keyring` are in force afterwards, `lines` say in words what will be done.

    When the plan was made the platform had had `revision` changes, and had the settings `running`, which swaps and
    replicas change as well.
    """

    revision: int
    running: LitportSettings
    settings: LitportSettings
    keyring: Keyring
    difference: Difference
    key_changes: Mapping[str, str]
    lines: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing that can be done while the platform runs."""
        difference = self.difference
        models = (difference.added, difference.removed, difference.renamed, difference.changed)
        return not any((*models, self.key_changes, *map(is_at_once, difference.sections)))


def in_force(running: LitportSettings, update: LitportSettings) -> LitportSettings:
    """The settings of `update`, with those of `running` in the place of what needs a restart."""
    sections = {}
    for name, fields in _AT_ONCE.items():
        if fields is not None:
            section = getattr(update, name)
            sections[name] = getattr(running, name).model_copy(
                update={field: getattr(section, field) for field in fields}
            )
    return update.model_copy(update=sections)


def is_replaced(changes: Sequence[Change], model: Model, update: ModelSettings) -> bool:
    """Whether the changes to the settings `update` want new processes of the model."""
    return not is_in_place(changes, model) and model.adapted(update) is None


def is_in_place(changes: Sequence[Change], model: Model) -> bool:
    """Whether the model's processes need not know of the changes."""
    return all(change.path[2] in model.settings.in_place for change in changes)


def is_at_once(change: Change) -> bool:
    """Whether a change outside of the models needs no restart."""
    fields = _AT_ONCE[change.path[0]]
    return fields is None or change.path[1] in fields


def describe(
    difference: Difference, key_changes: Mapping[str, str], models: Mapping[str, Model], update: LitportSettings
) -> Iterator[str]:
    """Lines for a person: each change and what it does."""
    for name in difference.removed:
        yield f"remove   {name}: ends once its requests are answered"
    for old, new in difference.renamed.items():
        yield f"rename   {old} to {new}: {_gap(models[old])}"
    for name, changes in difference.changed.items():
        if is_replaced(changes, models[name], update.models[name]):
            yield f"replace  {name}: {_gap(models[name])}"
        else:
            yield f"change   {name}, while it runs"
        yield from (f"           {'.'.join(change.path[2:])}: {change.before} -> {change.after}" for change in changes)
    for name in difference.added:
        how = "starts" if update.models[name].load == "at_start" else "is loaded by the first request to it"
        yield f"add      {name}: {how}"
    for name, what in key_changes.items():
        yield f"key      {name}: {what}"
    for change in difference.sections:
        yield f"set      {change}" if is_at_once(change) else f"restart  {change}: needs a restart of the platform"


def _gap(model: Model) -> str:
    start_s = model.choose().start_s
    last = "" if start_s is None else f" (its last start took {start_s:.1f} s)"
    return f"a new one starts beside it{last} and takes over; where both do not fit, it ends first and requests wait"
