"""The names of all series: of our own code by what it writes, of vLLM by its source.

The collectors are those of an empty platform, so this needs no model and no GPU. Whether a series has data is tested on
a running platform.
"""

import ast
import functools
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import CollectorRegistry

from servers.engines.litserve.host import metrics
from servers.engines.litserve.host.answer import Totals
from servers.gateway.limits.store import Store
from servers.gateway.request_metrics import RequestMetrics
from servers.metrics.hardware import HardwareCollector
from servers.metrics.models import ModelCollector
from servers.telemetry import Sampler
from tests.docker.queries import DOCKER

ROOT = DOCKER.parent
SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_count", "_sum"),
    "summary": ("_count", "_sum"),
}
_KEYWORDS = {"and", "by", "group_left", "ignoring", "inf", "nan", "offset", "on", "or", "unless", "without"}


@functools.cache
def _families() -> frozenset[tuple[str, str]]:
    families = {*_of_litport(), *_defined_in(_vllm() / "v1" / "metrics" / "loggers.py")}
    families |= set(re.findall(r"^# TYPE (\w+?)(?:_total)? (\w+)$", metrics.page(Totals()).decode(), re.M))
    return frozenset(families | {("litport_model_scrape_success", "gauge")})  # as text, with the children's series


def names() -> set[str]:
    """The names of all series that Litport's page can have: `x_total`, `y_bucket`."""
    return {name + suffix for name, kind in _families() for suffix in SUFFIXES[kind]}


def families() -> set[str]:
    """The names as in a table: `x_total`, but `y` for a histogram or summary."""
    return {name + ("_total" if kind == "counter" else "") for name, kind in _families()}


def rules() -> list[dict[str, Any]]:
    """The recording and alerting rules."""
    files = sorted((DOCKER / "prometheus" / "rules").glob("*.yml"))
    groups = [group for file in files for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def recorded() -> set[str]:
    """The names of the recorded series."""
    return {rule["record"] for rule in rules() if "record" in rule}


def names_in(expression: str) -> set[str]:
    """The names of series in a PromQL expression."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\b(by|on|ignoring|without|group_left) *\([^)]*\)", " ", bare)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|offset +\w+", " ", bare)
    matches = re.findall(r"(?<![\w:.])([a-zA-Z_][\w:]*)(?! *\(|[\w:])", bare)
    return set(matches) - _KEYWORDS


def _of_litport() -> Iterator[tuple[str, str]]:
    store = CollectorRegistry()
    Store("redis://127.0.0.1", store)
    with Sampler({}, interval_s=60) as sampler:
        for source in (RequestMetrics().registry, store, ModelCollector({}, "0"), HardwareCollector(sampler)):
            for family in source.collect():
                yield family.name, family.type


def _defined_in(source: Path) -> Iterator[tuple[str, str]]:
    """Name and type of what a module defines: `Counter("x", ...)`, or as in vLLM `self._counter_cls(name="x")`."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        kind = function.strip("_").removesuffix("_cls").lower()
        values = [keyword.value for keyword in node.keywords if keyword.arg == "name"] or node.args[:1]
        if kind in SUFFIXES and values and isinstance(values[0], ast.Constant) and isinstance(values[0].value, str):
            yield values[0].value.removesuffix("_total") if kind == "counter" else values[0].value, kind


def _vllm() -> Path:
    spec = importlib.util.find_spec("vllm")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent
