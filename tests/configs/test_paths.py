"""Where the paths of a recipe start."""

from pathlib import Path

import pytest

from configs.loading import load

RECIPE = """
auth: {keys_file: keys.yaml}
server: {tls_cert_file: /etc/cert.pem}
models:
  beside: {engine: litserve, api: "beside.py:MyAPI", init: {labels: ./labels.txt, name: labels.txt}}
  here: {engine: litserve, api: "./here.py:MyAPI"}
  nowhere: {engine: litserve, api: "./nowhere.py:MyAPI"}
  module: {engine: litserve, api: "package.module:MyAPI"}
  folder: {engine: vllm, source: ./folder, args: {chat-template: ../template.jinja}}
  hub: {engine: vllm, source: org/name}
"""


def test_they_start_at_its_folder_or_else_at_the_working_directory_which_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, recipes = tmp_path / "work", tmp_path / "recipes"
    for folder in (work, recipes / "folder", recipes / "org" / "name"):
        folder.mkdir(parents=True)
    for file in (recipes / "beside.py", work / "beside.py", work / "here.py", recipes / "labels.txt"):
        file.touch()
    (recipes / "keys.yaml").write_text("a: {key: 0123456789abcdef}")
    (tmp_path / "template.jinja").touch()
    (recipes / "recipe.yaml").write_text(RECIPE)
    monkeypatch.chdir(work)
    loaded = load([Path("../recipes/recipe.yaml")], environ={})
    models = {name: model.model_dump() for name, model in loaded.settings.models.items()}
    assert loaded.settings.auth.keys_file is not None
    assert loaded.settings.auth.keys_file.samefile(recipes / "keys.yaml")
    assert loaded.settings.server.tls_cert_file == Path("/etc/cert.pem")
    assert Path(models["beside"]["api"].removesuffix(":MyAPI")).samefile(recipes / "beside.py")
    assert Path(models["beside"]["init"]["labels"]).samefile(recipes / "labels.txt")
    assert models["beside"]["init"]["name"] == "labels.txt"
    assert models["here"]["api"] == f"{work}/here.py:MyAPI"
    assert models["nowhere"]["api"] == "./nowhere.py:MyAPI"
    assert models["module"]["api"] == "package.module:MyAPI"
    assert Path(models["folder"]["source"]).samefile(recipes / "folder")
    assert Path(models["folder"]["args"]["chat-template"]).samefile(tmp_path / "template.jinja")
    assert models["hub"]["source"] == "org/name", "a name of the hub, whatever lies here"
    [note] = loaded.notes
    assert note.startswith("models.here.api: ./here.py is not in ")
    assert note.endswith("and was taken from the working directory (from ../recipes/recipe.yaml:6)")
    monkeypatch.chdir(recipes)
    beside = load([Path("recipe.yaml")], environ={}).settings.models["beside"].model_dump()
    assert beside["api"] == "beside.py:MyAPI", "as it was written"
