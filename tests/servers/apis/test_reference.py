import io
import json
import subprocess
import sys
from inspect import signature
from pathlib import Path

import pytest
from rich.console import Console

from configs.errors import UserError
from servers.apis import reference, registry
from servers.apis.commands import print_apis
from tests.servers.engines.litserve.child import REPOSITORY, STRANGERS

PLUGIN = """
from litserve import LitAPI

class Plain(LitAPI):
    input_description = "text"

class Wanting(LitAPI):
    "Needs an argument."
    def __init__(self, size, *, colour="red"): ...

class Child(Wanting): ...

class Open(LitAPI):
    def __init__(self, **anything): ...

class NotOne: ...
"""


@pytest.fixture
def plugin(tmp_path: Path) -> str:
    file = tmp_path / "my_plugin.py"
    file.write_text(PLUGIN)
    return str(file)


@pytest.mark.parametrize("name", sorted(registry.BUILT_IN))
def test_the_source_tells_what_the_constructor_of_a_built_in_takes(name: str) -> None:
    parameters = list(signature(registry.load(name).__init__).parameters.values())[1:]
    read = reference.read(reference.parse(registry.BUILT_IN[name])).constructor
    assert read.names == tuple(parameter.name for parameter in parameters)
    assert read.required == tuple(p.name for p in parameters if p.default is p.empty)


def test_what_exists_and_fits_is_accepted(plugin: str) -> None:
    registry.check("echo", {}, has_source=False)
    registry.check("embedding", {"forward_size": 4}, has_source=True)
    registry.check("servers.apis.echo:EchoAPI", {"max_batch_size": 2}, has_source=False)
    registry.check(f"{plugin}:Plain", {"max_batch_size": 2}, has_source=False)
    registry.check(f"{plugin}:Child", {"size": 1}, has_source=False)
    registry.check(f"{plugin}:Open", {"whatever": 1}, has_source=True)


def test_paths_are_relative_to_the_working_directory(plugin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(plugin).parent)
    registry.check("./my_plugin.py:Plain", {}, has_source=False)
    registry.check("my_plugin:Plain", {}, has_source=False)


def test_a_file_may_be_in_the_home_folder(plugin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(Path(plugin).parent))
    registry.check("~/my_plugin.py:Plain", {}, has_source=False)
    assert registry.load("~/my_plugin.py:Plain").__name__ == "Plain"


def test_a_class_may_be_made_by_a_function(tmp_path: Path) -> None:
    text = "import litserve as ls\ndef make():\n    class Own(ls.LitAPI): ...\n    return Own\nAPI = make()\n"
    (tmp_path / "made_by_a_function.py").write_text(text)
    name = f"{tmp_path}/made_by_a_function.py:API"
    registry.check(name, {"any": 1}, has_source=False)
    assert registry.load(name).__name__ == "Own"


@pytest.mark.parametrize(
    ("name", "init", "has_source", "says"),
    [
        ("ecko", {}, False, "did you mean echo?"),
        ("{plugin}:Plane", {}, False, "has no class Plane; did you mean Plain?"),
        ("{plugin}", {}, False, "expected the class behind the file"),
        ("/nowhere/a.py:A", {}, False, "there is no file /nowhere/a.py"),
        ("no_such_package.mod:A", {}, False, "no module 'no_such_package'"),
        ("json.decoder.deeper:A", {}, False, "'json.decoder' is a module, not a package"),
        ("json.decode:A", {}, False, "no module 'json.decode'"),
        ("json.decoder:JSONDecoder", {}, False, "has no base class"),
        ("a b:C", {}, False, "neither a .py file nor a module's name"),
        ("mod:", {}, False, "expected ./file.py:Class or package.module:Class"),
        ("{plugin}:NotOne", {}, False, "expected a subclass of litserve.LitAPI"),
        ("{plugin}:Plain", {"max_batch_sise": 2}, False, "did you mean max_batch_size?"),
        ("{plugin}:Plain", {}, True, "takes no model_dir; remove `source`"),
        ("{plugin}:Wanting", {"colour": "blue"}, False, "needs 'size'; set it under `init`"),
        ("embedding", {}, False, "needs 'model_dir'; set `source`"),
        ("pipeline", {}, True, "needs 'task'"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(
    name: str, init: dict[str, object], has_source: bool, says: str, plugin: str
) -> None:
    with pytest.raises(UserError) as caught:
        registry.check(name.format(plugin=plugin), init, has_source)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_broken_source_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("class A(:\n")
    with pytest.raises(UserError, match=r"broken\.py is not valid Python: .*line 1"):
        registry.check(f"{tmp_path}/broken.py:A", {}, has_source=False)


def test_checking_and_listing_run_no_code_of_the_api(tmp_path: Path) -> None:
    package = tmp_path / "explosive"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "api.py").write_text("import litserve\nclass Bomb(litserve.LitAPI): ...\nraise SystemExit('imported')")
    program = (
        "import json, sys\nfrom servers.apis import registry\n"
        "registry.check('explosive.api:Bomb', {}, False)\n"
        f"registry.check('{package}/api.py:Bomb', {{}}, False)\n"
        "registry.check('causal_lm', {}, True)\nregistry.describe()\nprint(json.dumps(list(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert not {"torch", "litserve", "transformers"} & set(json.loads(done.stdout))


def test_an_api_that_a_distribution_brings_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = tmp_path / "shouting-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: shouting\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[litport.apis]\nshout = shouting_api:Wanting\ngone = no_such:A\n")
    (tmp_path / "shouting_api.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match="needs 'size'"):
        registry.check("shout", {}, has_source=False)
    described = {api.name: api for api in registry.describe()}
    assert described["shout"].origin == "shouting"
    assert described["shout"].summary == "Needs an argument."
    assert "no module 'no_such'" in described["gone"].summary


def test_a_file_whose_name_is_taken_must_be_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "colorsys.py").write_text(PLUGIN)  # the standard library's
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(UserError, match="another module is called 'colorsys'"):
        registry.load(f"{tmp_path}/colorsys.py:Plain")


def test_the_table_shows_every_built_in_with_input_and_output() -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    print_apis(console)
    table = console.export_text()
    assert all(f"│ {name} " in table for name in registry.BUILT_IN)
    assert '{"input": any JSON}' in table
    assert "not declared" not in table


def test_a_strangers_file_passes_the_check_as_it_is() -> None:
    registry.check(f"{STRANGERS}/squares.py:SquaresAPI", {"power": 3}, has_source=False)
    registry.check(f"{STRANGERS}/batches.py:BatchesAPI", {}, has_source=False)
