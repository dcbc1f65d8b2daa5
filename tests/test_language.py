"""How many of our identifiers are pronouns or participles, where a noun or a verb says more.

`python -m tests.test_language [--list] [PATH ...]` prints the count for each package, or each such name with its line.
"""

import argparse
import ast
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
CODE = ("benchmarks", "clients", "configs", "servers", "requirements", "litport.py")
MOST_LISTED_PER_1000 = 8
MOST_REGULAR_PER_1000 = 12

# ruff: noqa: SIM905  # words read better without a pair of quotes each
PRONOUNS = frozenset(
    """
    all another anybody anyone anything both each everybody everyone everything he her here hers him his how it its mine
    neither nobody none nothing one ones other others ours own rest she some somebody someone something such that theirs
    them there these they this those we what which who whom whose why words you yours
    """.split()
)
PARTICIPLES = frozenset(
    """
    asked been begun bound brought built called caught chosen done drawn driven fallen felt forgotten found given gone
    got grown heard held hidden kept known laid left lent lost made meant met named paid refused said seen sent served
    shown spent spoken struck sunk taken taught thought thrown told understood used wanted woken won worn written
    """.split()
)
# Words in -ed that are nouns or verbs, and participles that are terms of the field.
TERMS = frozenset("elapsed embed exceed expected failed feed need required seed speed".split())
_REGULAR_PARTICIPLE = re.compile(r"[a-z]+ed")


class Name(NamedTuple):
    """An identifier where it is bound; the same name counts once in a function, class or module."""

    text: str
    path: Path
    line: int
    is_flag: bool = False

    @property
    def is_listed(self) -> bool:
        """Whether it is one of these words and no more; a flag (`lost: bool`) may be a participle."""
        return self._word in PRONOUNS or (self._word in PARTICIPLES and not self.is_flag)

    @property
    def is_regular_participle(self) -> bool:
        """Whether it is some other word in -ed, and no flag."""
        is_participle = _REGULAR_PARTICIPLE.fullmatch(self._word) is not None
        return is_participle and self._word not in PARTICIPLES | TERMS and not self.is_flag

    @property
    def _word(self) -> str:
        return "" if self.text.startswith("__") else self.text.strip("_").lower()


def test_few_identifiers_are_pronouns_or_participles() -> None:
    names = list(names_below(ROOT / place for place in CODE))
    assert len(names) > 1000
    assert 1000 * sum(name.is_listed for name in names) / len(names) <= MOST_LISTED_PER_1000
    assert 1000 * sum(name.is_regular_participle for name in names) / len(names) <= MOST_REGULAR_PER_1000


def names_below(places: Iterable[Path]) -> Iterator[Name]:
    """The identifiers that the files at or below these places bind."""
    for place in places:
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            yield Name(path.stem, path, 1)
            yield from _names_in(ast.parse(path.read_text(encoding="utf-8")), path)


def _names_in(scope: ast.AST, path: Path) -> Iterator[Name]:
    """The names that a module, class or function binds, and those of the scopes within."""
    names: dict[str, Name] = {}
    scopes: list[ast.AST] = []
    nodes = list(ast.iter_child_nodes(scope))
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            scopes.append(node)
        else:
            nodes.extend(ast.iter_child_nodes(node))
        for text, line, is_flag in _bound_by(node):
            if text not in names or is_flag:
                names[text] = Name(text, path, line, is_flag)
    yield from names.values()
    for inner in scopes:
        yield from _names_in(inner, path)


def _bound_by(node: ast.AST) -> Iterator[tuple[str, int, bool]]:
    """The names that one node binds, each with its line and whether it is declared as a bool."""
    match node:
        case ast.FunctionDef(name=text, returns=returns) | ast.AsyncFunctionDef(name=text, returns=returns):
            yield text, node.lineno, _is_bool(returns)
        case ast.ClassDef(name=text):
            yield text, node.lineno, False
        case ast.arg(arg=text, annotation=annotation):
            yield text, node.lineno, _is_bool(annotation)
        case ast.AnnAssign(target=ast.Name(id=text) | ast.Attribute(attr=text), annotation=annotation):
            yield text, node.lineno, _is_bool(annotation)
        case ast.Assign(targets=[ast.Name(id=text) | ast.Attribute(attr=text)], value=ast.Constant(value=bool())):
            yield text, node.lineno, True
        case ast.Name(id=text, ctx=ast.Store()) | ast.Attribute(attr=text, ctx=ast.Store()):
            yield text, node.lineno, False
        case ast.ExceptHandler(name=str(text)) | ast.alias(asname=str(text)):
            yield text, node.lineno, False


def _is_bool(annotation: ast.expr | None) -> bool:
    return annotation is not None and ast.unparse(annotation) in ("bool", "bool | None")


def main() -> None:
    """Print the counts for each place, or with --list each name as well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("places", metavar="PATH", nargs="*", type=Path, default=[ROOT / place for place in CODE])
    parser.add_argument("--list", action="store_true", help="print each such name as PATH:LINE NAME")
    options = parser.parse_args()
    for label, places in [*((str(place), [place]) for place in options.places), ("together", options.places)]:
        names = list(names_below(places))
        listed = [name for name in names if name.is_listed]
        regular = [name for name in names if name.is_regular_participle]
        if options.list and label != "together":
            sys.stdout.writelines(f"{name.path}:{name.line} {name.text}\n" for name in [*listed, *regular])
        per_1000 = [1000 * len(counted) / len(names) for counted in (listed, regular)]
        sys.stdout.write(
            f"{label}: {len(names)} names, per 1,000: {per_1000[0]:.1f} of the list, {per_1000[1]:.1f} in -ed\n"
        )


if __name__ == "__main__":
    main()
