"""The workload of the bench section as requests that two versions are compared by."""

from typing import Any

import msgspec
import pytest

from configs.errors import UserError
from configs.settings import LitportSettings
from servers.platform.workload import questions

EMBED = {"engine": "litserve", "api": "embedding", "source": "all-minilm-l6-v2"}
ECHO = {"engine": "litserve", "api": "echo"}


@pytest.mark.parametrize(
    "tree",
    [
        {"models": {"one": EMBED}},
        {"models": {"one": EMBED}, "bench": {"passes": 1}},
        {"models": {"one": EMBED, "two": ECHO}, "bench": {"workload": {"seed": 1}}},
        {"models": {"one": EMBED, "two": ECHO}, "bench": {"model": "two", "workload": {"seed": 1}}},
    ],
    ids=["no section", "no workload", "of which model?", "of another model"],
)
def test_a_recipe_without_a_workload_for_the_model_has_none(tree: dict[str, Any]) -> None:
    assert questions(LitportSettings.from_layers([tree]), "one", 4) == ()


@pytest.mark.long
def test_they_are_what_the_model_takes_and_the_same_every_time() -> None:
    tree = {"models": {"one": EMBED, "two": ECHO}, "bench": {"model": "one", "workload": {"kind": "texts"}}}
    settings = LitportSettings.from_layers([tree])
    asked = questions(settings, "one", 3)
    assert asked == questions(settings, "one", 3)
    assert [question.path for question in asked] == ["/v1/embeddings"] * 3
    document = msgspec.json.decode(asked[0].body)
    assert (document["model"], len(document["input"][0].split())) == ("one", 64)
    tree["bench"] = {"model": "one", "workload": {"kind": "file"}}
    with pytest.raises(UserError, match=r"bench\.workload\.path: expected a JSONL file for kind file, got none"):
        questions(LitportSettings.from_layers([tree]), "one", 3)
