"""What is generated from the models says what the models say."""

import json
from pathlib import Path

import pytest

from configs import reference
from configs.shape import tree, walk
from tests.configs.conftest import Load

RECIPES = sorted((reference.ROOT / "configs" / "recipes").glob("*.yaml"))


def test_the_reference_page_is_up_to_date() -> None:
    assert reference.PAGE.read_text(encoding="utf-8") == reference.page(), "run python -m configs.reference"


def test_the_schema_is_up_to_date() -> None:
    assert reference.SCHEMA.read_text(encoding="utf-8") == reference.schema_text(), "run python -m configs.reference"


def test_every_setting_is_described_and_on_the_page() -> None:
    page = reference.page()
    for path, leaf in walk(tree()):
        assert leaf.description.endswith("."), path
        parts = path[:-1] if path[-1] == "<name>" else path
        depth = 2 if path[0] == "models" else 1 if path[0] == "bench" else len(parts) - 1
        assert f"| `{'.'.join(parts[depth:])}` |" in page, path


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_recipe_loads_and_names_the_schema(load_two: Load, recipe: Path) -> None:
    first = recipe.read_text(encoding="utf-8").splitlines()[0]
    schema = recipe.parent / first.removeprefix("# yaml-language-server: $schema=")
    assert json.loads(schema.read_text(encoding="utf-8"))["title"] == "LitportSettings"
    assert load_two(recipes=[recipe]).settings.models
