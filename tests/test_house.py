"""The rules of the house: imports point one way, modules have room and plain names, documents name what exists."""

import ast
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from importlib import metadata
from pathlib import Path

import jsonschema  # type: ignore[import-untyped] # vLLM brings it; it ships no types
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
OURS = {"benchmarks", "clients", "configs", "litport", "servers"}
MAY_IMPORT = {
    "benchmarks": {"clients", "configs", "servers"},
    "clients": set(),
    "configs": set(),
    "litport": {"benchmarks", "clients", "configs", "servers"},
    "servers": {"clients", "configs"},
}
MOST_LINES = 300
LONG_FUNCTION_LINES = 40
MOST_LONG_FUNCTIONS_PERCENT = 0.5


def test_no_other_distribution_owns_our_names() -> None:
    owners = metadata.packages_distributions()
    assert {name: owner for name in OURS for owner in owners.get(name, ()) if owner != "litport"} == {}


@pytest.mark.parametrize("package", sorted(OURS))
def test_imports_point_one_way(package: str) -> None:
    allowed = MAY_IMPORT[package] | {package}
    assert [
        f"{path}:{line} imports {name}"
        for path in _sources()
        if _module(path).partition(".")[0] == package
        for name, line in _imports(path)
        if name.partition(".")[0] in OURS - allowed
    ] == []


def test_no_files_import_each_other_in_a_circle() -> None:
    assert _circle(_import_graph()) == []


def test_no_packages_import_each_other_in_a_circle() -> None:
    """A package is a folder of the first or second level, such as `configs` and `servers.store`."""
    graph: dict[str, set[str]] = {}
    for module, imports in _import_graph().items():
        package = _package(module)
        graph.setdefault(package, set()).update({_package(name) for name in imports} - {package})
    assert _circle(graph) == []


def test_help_imports_nothing_heavy() -> None:
    heavy = {"huggingface_hub", "litserve", "torch", "transformers", "vllm"}
    program = (
        "import json, sys, litport\n"
        "try:\n    litport.main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print('\\n' + json.dumps(list(sys.modules)))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert "usage" in result.stdout.lower()
    assert heavy & set(json.loads(result.stdout.splitlines()[-1])) == set()


def test_files_are_short() -> None:
    lengths = {str(path): len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in _sources()}
    assert {path: length for path, length in lengths.items() if length > MOST_LINES} == {}


def test_few_functions_are_long() -> None:
    functions = [
        node
        for path in _sources()
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    long = [node.name for node in functions if (node.end_lineno or 0) - node.lineno >= LONG_FUNCTION_LINES]
    assert 100 * len(long) / len(functions) <= MOST_LONG_FUNCTIONS_PERCENT, long


def test_no_two_modules_of_a_folder_differ_by_an_s() -> None:
    paths = {str(path.with_suffix("")) for path in _sources()} | {str(path.parent) for path in _sources()}
    assert {f"{path}.py" for path in paths if f"{path}s" in paths} == set()


def test_no_files_of_a_folder_share_a_prefix() -> None:
    """Two files `litserve_context` and `litserve_spans` want a folder `litserve`."""
    prefixes = Counter(
        str(path.parent / path.stem.partition("_")[0]) for path in _sources() if re.match(r"[a-z]+_", path.name)
    )
    assert [prefix for prefix, count in prefixes.items() if count > 1] == []


def test_relative_links_lead_somewhere() -> None:
    dead = []
    for path in _files(".md"):
        text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for target in re.findall(r"\]\(([^)\s]+)[^)]*\)|(?:src|href)=\"([^\"]+)\"", text):
            link, _, section = "".join(target).partition("#")
            if re.match(r"[a-z][a-z0-9+.-]*:", link):
                continue
            page = path.parent / link if link else path
            if not page.exists() or (section and page.suffix == ".md" and section not in _sections(page)):
                dead.append(f"{path.relative_to(ROOT)}: {''.join(target)}")
    assert dead == []


def _sections(page: Path) -> set[str]:
    """The headings, as GitHub names them in links."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_recipes_in_documents_are_valid() -> None:
    schema = json.loads((ROOT / "configs" / "litport.schema.json").read_text(encoding="utf-8"))
    wrong = []
    for path in _files(".md"):
        for block in re.findall(r"^```yaml\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
            try:
                document = yaml.safe_load(block)
                models = document.get("models", {}).values()
                if document.keys() <= schema["properties"].keys() and all("engine" in model for model in models):
                    jsonschema.validate(document, schema)
            except (yaml.YAMLError, jsonschema.ValidationError) as problem:
                wrong.append(f"{path.relative_to(ROOT)}: {problem}")
    assert wrong == []


def test_documents_name_only_make_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    mentions = {
        (str(path.relative_to(ROOT)), target)
        for path in _files(".md")
        for target in re.findall(r"(?:^\$?|`) *make ([a-z][a-z-]*)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert [(path, target) for path, target in sorted(mentions) if target not in targets] == []


def test_documents_name_only_tests_that_exist() -> None:
    """As `file.py::test_name`, where the file may be left off, and "..." stands for the rest of a name."""
    names = {
        str(path.relative_to(ROOT)): re.findall(r"^(?:async )?def (test_\w+)", path.read_text(encoding="utf-8"), re.M)
        for path in (ROOT / "tests").rglob("test_*.py")
    }
    unknown = []
    for path in _files(".md"):
        for file, name, rest in re.findall(
            r"`([\w/]+\.py)?(?:::)?(test_\w+?)(\.\.\.)?(?:\[.*?\])?`", path.read_text(encoding="utf-8")
        ):
            tests = [test for where in names if not file or f"/{where}".endswith(f"/{file}") for test in names[where]]
            if not any(test.startswith(name) if rest else test == name for test in tests):
                unknown.append(f"{path.relative_to(ROOT)}: {file}::{name}")
    assert unknown == []


def test_no_file_names_the_host_of_a_package_registry() -> None:
    # In two halves, as the test reads this file, too.
    hosts = [name + ".org" for name in ("pypi", "pythonhosted", "npmjs", "deb.debian", "crates")]
    assert [
        f"{path.relative_to(ROOT)}: {host}"
        for path in _files("")
        for host in hosts
        if host.encode() in path.read_bytes()
    ] == []


def _files(suffix: str) -> Iterator[Path]:
    """The files of the project that end in `suffix`, without installed, cached and built ones."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [
            name
            for name in folders
            if (not name.startswith(".") or name == ".ci")
            and name not in {"__pycache__", "build"}
            and not name.endswith(".egg-info")
        ]
        yield from (Path(folder, name) for name in sorted(names) if name.endswith(suffix))


def _sources() -> Iterator[Path]:
    """The files of our packages, relative to the project's folder; no tests."""
    for path in _files(".py"):
        relative = path.relative_to(ROOT)
        if relative.with_suffix("").parts[0] in OURS:
            yield relative


def _tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def _module(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _package(module: str) -> str:
    return ".".join(module.split(".")[:2])


def _imports(path: Path) -> Iterator[tuple[str, int]]:
    """The names that a file imports anywhere, each with its line; `a.b.c` for `from a.b import c`."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def _import_graph() -> dict[str, set[str]]:
    """The modules of ours that each of our modules imports."""
    modules = {_module(path): path for path in _sources()}
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        names = {name if name in modules else name.rpartition(".")[0] for name, _ in _imports(path)}
        graph[module] = names & modules.keys() - {module}
    return graph


def _circle(graph: Mapping[str, set[str]]) -> list[str]:
    """One circle of the graph, the first node repeated at the end; empty when there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []
