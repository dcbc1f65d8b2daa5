"""Names of models, also of those that are not up."""

from types import SimpleNamespace
from typing import Any

from servers.gateway.directory import Directory, entries
from servers.models.instance import State


def test_a_model_that_is_not_up_is_listed_and_found_by_each_of_its_names() -> None:
    model: Any = SimpleNamespace(
        name="chat",
        card=None,
        is_leaving=False,
        settings=SimpleNamespace(aliases=["gpt-4o-mini"]),
        engine=SimpleNamespace(kind="vllm"),
        state=State.STARTING,
        choose=lambda: SimpleNamespace(since=1.5),
        granted_name=lambda name: name if name == "tuned" else "chat",
    )
    assert [(entry["id"], entry["state"]) for entry in entries(model)] == [
        ("chat", "starting"),
        ("gpt-4o-mini", "starting"),
    ]
    assert Directory({"chat": model}).find("gpt-4o-mini") is model
    assert Directory({"chat": model}).find("tuned") is model, "its adapter"
