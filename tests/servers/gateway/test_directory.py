"""Names of models, also of those that are not up."""

from types import SimpleNamespace
from typing import Any

import pytest

from servers.errors import ApiError
from servers.gateway.directory import Directory, entries
from servers.models.instance import State


def _model(name: str, *aliases: str) -> Any:
    return SimpleNamespace(
        name=name,
        card=None,
        is_leaving=False,
        settings=SimpleNamespace(aliases=[*aliases]),
        adapters=["tuned"],
        engine=SimpleNamespace(kind="vllm"),
        state=State.STARTING,
        choose=lambda: SimpleNamespace(since=1.5),
        granted_name=lambda alias: alias if alias == "tuned" else name,
    )


def test_a_model_that_is_not_up_is_listed_and_found_by_each_of_its_names() -> None:
    model = _model("chat", "gpt-4o-mini")
    assert [(entry["id"], entry["state"]) for entry in entries(model)] == [
        ("chat", "starting"),
        ("gpt-4o-mini", "starting"),
        ("tuned", "starting"),
    ]
    assert Directory({"chat": model}).find("gpt-4o-mini") is model
    assert Directory({"chat": model}).find("tuned") is model, "its adapter"


def test_an_alias_leads_to_the_model_that_has_it_now() -> None:
    one, two, successor = _model("one", "gpt"), _model("two"), _model("one", "gpt")
    directory = Directory({"one": one, "two": two})
    assert directory.find("gpt") is one
    directory.models = {"one": successor, "two": two}
    assert directory.find("gpt") is successor, "a new version"
    successor.settings, two.settings = two.settings, successor.settings
    assert directory.find("gpt") is two, "it has moved"
    two.is_leaving = True
    with pytest.raises(ApiError, match="does not exist"):
        directory.find("gpt")
