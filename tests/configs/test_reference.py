"""What is generated from the models says what the models say."""

import json
from pathlib import Path

import pytest

from configs import reference
from configs.commands import listing
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
        name = path[-1] if path[-1] != "<name>" else path[-2]
        assert leaf.description.endswith("."), path
        section = ".".join(path[1:-1]) if path[0] == "bench" else ""
        assert f"| `{f'{section}.{name}'.lstrip('.')}` |" in page, path


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_recipe_loads_and_names_the_schema(load_two: Load, recipe: Path) -> None:
    first = recipe.read_text(encoding="utf-8").splitlines()[0]
    schema = recipe.parent / first.removeprefix("# yaml-language-server: $schema=")
    assert json.loads(schema.read_text(encoding="utf-8"))["title"] == "LitportSettings"
    assert load_two(recipes=[recipe]).settings.models


def test_show_prints_every_value_with_its_origin(load_two: Load) -> None:
    lines = listing(load_two("--server.port", "81")).splitlines()
    assert [line.split() for line in lines if line.startswith(("server.host", "server.port"))] == [
        ["server.host", "127.0.0.1", "default"],
        ["server.port", "81", "command", "line", "--server.port"],
    ]
    args = next(line for line in lines if ".args." in line)
    assert args.startswith("models.smollm2-135m-instruct.args.max-model-len")
    assert args.endswith("two.yaml:6")


def test_show_masks_secrets_and_what_is_named_like_one(load_two: Load) -> None:
    loaded = load_two(
        "--auth.api_keys=hunter2",
        "--models.org/v1.5-mini.env.HF_TOKEN=hunter2",
        "--models.smollm2-135m-instruct.args.hf-token=hunter2",
        "--models.org/v1.5-mini.init.password=hunter2",
        "--models.smollm2-135m-instruct.args.max-num-batched-tokens=512",
    )
    shown = listing(loaded)
    assert "hunter2" not in shown
    assert shown.count("**********") == 4
    assert " 512 " in shown


def test_only_on_a_terminal_defaults_are_dim(load_two: Load) -> None:
    loaded = load_two("--server.port", "81")
    assert "\x1b" not in listing(loaded)
    dim = [line for line in listing(loaded, colour=True).splitlines() if line.startswith("\x1b[2m")]
    assert dim
    assert all("  default" in line for line in dim)
