"""References to an API, and what its source says about it, read without running it.

A reference names a LitAPI: `./file.py:Class` or `package.module:Class`. Its source is parsed and not imported, so the
settings are checked in milliseconds, and a plug-in that fails at import fails only its own process. A class that the
source does not show (built at run time, or with a base from a compiled module) passes the check.
"""

import ast
import difflib
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path

from configs.errors import UserError

DECODE_RULE = "expected decode_request(self, request): LitServe knows its parameter by this name"
_CALLED = {"decode_request", "predict", "encode_response"}
STREAM_RULE = "its predict yields, so it needs `stream: true`"
ASYNC_RULE = "its methods are async, so it needs `enable_async=True`; without it nobody awaits them"
AUTHORIZE_RULE = (
    "its authorize() is not supported, as no client's key leaves the front door; remove it and set auth.api_keys"
)
HIDING_RULE = "its method {name}() hides the attribute of LitServe that is called so; rename it"
ATTRIBUTES = ("api_path", "device", "loop", "spec", "stream")
"""The properties of a LitAPI."""


@dataclass(frozen=True)
class Reference:
    """A class in a file (`module` is then its stem) or in an importable module (`file` is then None)."""

    text: str
    module: str
    class_name: str
    file: Path | None = None


@dataclass(frozen=True)
class Constructor:
    """The keyword arguments of a class. `is_open`: it takes any others as well, or the source does not show them."""

    names: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    is_open: bool = False


@dataclass(frozen=True)
class Source:
    """A class as its source shows it: the texts that it declares and the arguments of its constructor.

    `obstacle` is what it gives to LitAPI's constructor that only LitServe's own server runs. `needs_stream`: its
    predict yields, and nothing in it says whether its answers are streams; `needs_async` likewise of async methods.
    """

    summary: str
    texts: dict[str, str]
    constructor: Constructor
    obstacle: str | None = None
    needs_stream: bool = False
    needs_async: bool = False


def parse(text: str) -> Reference:
    """Read `./file.py:Class` or `package.module:Class`. Raises UserError for any other text."""
    place, colon, class_name = text.rpartition(":")
    if not colon or not class_name.isidentifier():
        raise UserError(f"api {text!r}: expected ./file.py:Class or package.module:Class")
    if place.endswith(".py"):
        file = Path(place).expanduser().absolute()
        return Reference(text, file.stem, class_name, file)
    if not all(part.isidentifier() for part in place.split(".")):
        raise UserError(f"api {text!r}: {place!r} is neither a .py file nor a module's name")
    return Reference(text, place, class_name)


def read(reference: Reference) -> Source:
    """The class as its source shows it. Raises UserError if it does not exist, or is no LitAPI."""
    file = reference.file or _module_file(reference.module, reference.text)
    if file is None:  # the module exists, but not as Python source
        return Source("", {}, Constructor(is_open=True))
    classes, names = _scope(file, reference.text)
    if reference.class_name in classes:
        return _source(classes[reference.class_name], classes)
    if reference.class_name in names:
        return Source("", {}, Constructor(is_open=True))
    near = nearest(reference.class_name, classes)
    raise UserError(f"api {reference.text!r}: {file.name} has no class {reference.class_name}{near}")


def has_method(reference: Reference, name: str) -> bool:
    """Whether the class has this method, or its file does not show all of its bases; raises as `read`."""
    file = reference.file or _module_file(reference.module, reference.text)
    if file is None:
        return True
    classes, _ = _scope(file, reference.text)
    if reference.class_name not in classes:
        return True
    family = _members(classes[reference.class_name], classes)
    if _base_name(family[-1]) != "LitAPI":
        return True
    return any(getattr(part, "name", "") == name for member in family for part in member.body)


def imports(reference: Reference) -> set[str]:
    """The top-level modules that a file imports at its top; none where it cannot be read."""
    try:
        statements = ast.parse(reference.file.read_bytes()).body if reference.file else []
    except (OSError, SyntaxError, ValueError):  # `read` says so
        return set()
    modules = [alias.name for node in statements if isinstance(node, ast.Import) for alias in node.names]
    modules += [node.module or "" for node in statements if isinstance(node, ast.ImportFrom) and not node.level]
    return {module.partition(".")[0] for module in modules}


def nearest(name: str, candidates: Iterable[str]) -> str:
    """The end of an error line: the candidate most like `name`, or all of them."""
    names = sorted(candidates)
    if like := difflib.get_close_matches(name, names, n=1):
        return f"; did you mean {like[0]}?"
    return f"; it has {', '.join(names)}" if names else ""


def _module_file(module: str, text: str) -> Path | None:
    # PathFinder takes one step at a time; find_spec("a.b") would import a.
    path: list[str] | None = [*sys.path, str(Path.cwd())]
    parts = module.split(".")
    spec = None
    for end in range(1, len(parts) + 1):
        name = ".".join(parts[:end])
        spec = PathFinder.find_spec(name, path)
        if spec is None:
            raise UserError(f"api {text!r}: no module {name!r} is installed or lies in {Path.cwd()}")
        path = None if spec.submodule_search_locations is None else list(spec.submodule_search_locations)
        if path is None and end < len(parts):
            raise UserError(f"api {text!r}: {name!r} is a module, not a package")
    assert spec is not None
    return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None


def _scope(file: Path, text: str) -> tuple[dict[str, ast.ClassDef], set[str]]:
    """The classes that the file defines at its top, and the names that it imports or assigns."""
    try:
        tree = ast.parse(file.read_bytes(), filename=str(file))
    except OSError as error:
        raise UserError(f"api {text!r}: cannot read {file}: {error.strerror}") from error
    except (SyntaxError, ValueError) as error:
        raise UserError(f"api {text!r}: {file} is not valid Python: {error}") from error
    statements = list(_statements(tree.body))
    classes = {node.name: node for node in statements if isinstance(node, ast.ClassDef)}
    imports = [node for node in statements if isinstance(node, ast.Import | ast.ImportFrom)]
    targets = [target for node in statements if isinstance(node, ast.Assign) for target in node.targets]
    assigned = {target.id for target in targets if isinstance(target, ast.Name)}
    return classes, assigned | {alias.asname or alias.name for node in imports for alias in node.names}


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements at the top of a file, also those within `if`, `try` and `with`."""
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try | ast.With):
            yield from _statements(part for part in ast.iter_child_nodes(node) if isinstance(part, ast.stmt))
            for handler in getattr(node, "handlers", ()):
                yield from _statements(handler.body)


def _source(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> Source:
    if [ast.unparse(base) for base in node.bases] in ([], ["object"]):
        raise UserError(f"api class {node.name} has no base class; expected a subclass of litserve.LitAPI")
    _check_methods(node, is_api=_base_name(_members(node, classes)[-1]) == "LitAPI")
    texts = {}
    for statement in node.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            try:
                value = ast.literal_eval(statement.value)
            except ValueError:
                continue  # an expression, which only running it would tell
            if isinstance(value, str):
                texts[statement.targets[0].id] = value
    summary = (ast.get_docstring(node) or "").partition("\n")[0]
    constructor = _constructor(node, classes)
    methods, names = _family(node, classes)
    yields = "predict" in methods and _yields(methods["predict"]) and not names & {"stream", "spec"}
    is_async = any(isinstance(method, ast.AsyncFunctionDef) for method in methods.values())
    return Source(
        summary, texts, constructor, _obstacle(node, classes), yields, is_async and not names & {"enable_async", "loop"}
    )


MCP_TOOL = "it is an MCP tool"
_OBSTACLES = {"loop": "it has a loop of its own", "mcp": MCP_TOOL}


def _obstacle(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> str | None:
    arguments = [
        keyword
        for call in ast.walk(node)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "__init__"
        for keyword in call.keywords
    ]
    for argument in arguments:
        is_default = isinstance(argument.value, ast.Constant) and argument.value.value in (None, "auto")
        if argument.arg in _OBSTACLES and not is_default:
            return _OBSTACLES[argument.arg]
    base = _base_name(node)
    return _obstacle(classes[base], classes) if base in classes and classes[base] is not node else None


def _family(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> tuple[dict[str, ast.AST], set[str]]:
    """The methods that LitServe calls for a request, and all names of arguments and attributes, up to LitAPI itself.

    Nothing where the file does not show the whole family.
    """
    family = _members(node, classes)
    if _base_name(family[-1]) != "LitAPI":
        return {}, set()
    parts = [part for member in family for part in ast.walk(member)]
    methods = {getattr(part, "name", ""): part for member in reversed(family) for part in member.body}
    names = {getattr(part, "arg", None) or getattr(part, "attr", None) or "" for part in parts}
    return {name: methods[name] for name in _CALLED & methods.keys()}, names


def _members(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> list[ast.ClassDef]:
    """The class and those of its bases that are in the same file, the last one the nearest to LitAPI."""
    family = [node]
    while (base := classes.get(_base_name(family[-1]))) and base not in family:
        family.append(base)
    return family


def _yields(node: ast.AST) -> bool:
    """Whether a function is a generator; functions within it are their own."""
    inner = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    parts = [part for part in ast.iter_child_nodes(node) if not isinstance(part, inner)]
    return any(isinstance(part, ast.Yield | ast.YieldFrom) or _yields(part) for part in parts)


def _check_methods(node: ast.ClassDef, *, is_api: bool) -> None:
    for method in node.body:
        if not isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        names = [argument.arg for argument in (*method.args.posonlyargs, *method.args.args, *method.args.kwonlyargs)]
        if method.name == "decode_request" and "request" not in names:
            raise UserError(f"api class {node.name}: {DECODE_RULE}")
        if method.name == "authorize":
            raise UserError(f"api class {node.name}: {AUTHORIZE_RULE}")
        if is_api and method.name in ATTRIBUTES and not method.decorator_list:
            raise UserError(f"api class {node.name}: {HIDING_RULE.format(name=method.name)}")


def _constructor(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> Constructor:
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return _signature(statement.args)
    if node.decorator_list:
        return Constructor(is_open=True)  # such as a dataclass's, whose fields are its arguments
    base = _base_name(node)
    if base in classes and classes[base] is not node and classes[base].bases:
        return _constructor(classes[base], classes)
    return _litapi_constructor() if base == "LitAPI" else Constructor(is_open=True)


def _base_name(node: ast.ClassDef) -> str:
    if not node.bases:
        return ""
    return node.bases[0].attr if isinstance(node.bases[0], ast.Attribute) else getattr(node.bases[0], "id", "")


@cache
def _litapi_constructor() -> Constructor:
    spec = importlib.util.find_spec("litserve")  # of a top-level package this imports nothing
    if spec is None or not spec.submodule_search_locations:
        raise UserError("litserve is not installed; it is the engine of every model with an api")
    classes, _ = _scope(Path(spec.submodule_search_locations[0], "api.py"), "litserve.LitAPI")
    init = next(n for n in classes["LitAPI"].body if isinstance(n, ast.FunctionDef) and n.name == "__init__")
    return _signature(init.args)


def _signature(arguments: ast.arguments) -> Constructor:
    positional = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)][1:]
    keyword = [argument.arg for argument in arguments.kwonlyargs]
    required = positional[: len(positional) - len(arguments.defaults)]
    required += [name for name, default in zip(keyword, arguments.kw_defaults, strict=True) if default is None]
    return Constructor((*positional, *keyword), tuple(required), is_open=arguments.kwarg is not None)
