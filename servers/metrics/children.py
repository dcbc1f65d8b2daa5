"""The series of the models' own processes, on our page with a label `model`.

Each request for our page reads theirs, so a process that has ended has no series, and nothing is stored. The text is
relabelled and not parsed into samples, as vLLM has a thousand lines. A series that has a label `model` already keeps it
as `exported_model`, as in Prometheus. The series of every Python process (`python_`, `process_`) are left out, as a
model has several processes; so are the creation times of series. Those of a model with several
replicas have a label `replica`. A model on another server (`engine: remote`) has its page there.
"""

import asyncio
import re
from collections.abc import Mapping

from servers.engines.base import CanaryError, get
from servers.engines.connection import CONNECTION_LOST
from servers.models.instance import Instance
from servers.models.model import Model

_TIMEOUT_S = 1.0
_OMIT = re.compile(r"python_|process_|litport_|.*_created$")
_HEADER = re.compile(r"# (?:HELP|TYPE) (\S+)")
_LABEL = re.compile(r'([a-zA-Z_]\w*)="(?:\\.|[^"\\])*"')
_SAMPLE = re.compile(rf"([a-zA-Z_:][\w:]*)(?:\{{((?:{_LABEL.pattern},?)*)\}})? ([-+\d.eE]+|[-+]?Inf|NaN)", re.ASCII)
_UP = "litport_model_scrape_success"


async def pages(models: Mapping[str, Model]) -> str:
    """The series of all models in the text format, those of one name together, and whether each model had any."""
    instances = [
        (_labels(name, number, model), instance)
        for name, model in models.items()
        for number, instance in enumerate(model.instances)
        if instance.address is None or instance.is_replica
    ]
    texts = await asyncio.gather(*(_read(instance) for _, instance in instances))
    headers: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for (labels, _), text in zip(instances, texts, strict=True):
        for family, header, matches in _families(text or ""):
            headers.setdefault(family, header)
            samples.setdefault(family, []).extend(_with_labels(sample, labels) for sample in matches)
    headers[_UP] = [f"# HELP {_UP} Whether the model's own series are on this page", f"# TYPE {_UP} gauge"]
    samples[_UP] = [
        f"{_UP}{{{labels}}} {int(text is not None)}" for (labels, _), text in zip(instances, texts, strict=True)
    ]
    lines = [line for family, header in headers.items() for line in (*header, *samples[family])]
    return "\n".join(lines) + "\n"


def _labels(name: str, number: int, model: Model) -> str:
    replica = f',replica="{number + 1}"' if len(model.instances) > 1 else ""
    return f'model="{name}"{replica}'


async def _read(instance: Instance) -> str | None:
    connection = instance.connection
    if connection is None:
        return None
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            return (await get(connection, "/metrics")).decode()
    except (CanaryError, *CONNECTION_LOST, TimeoutError, RuntimeError, UnicodeDecodeError):
        return None  # it starts, ends or hangs; RuntimeError: the connection was closed meanwhile


def _families(text: str) -> list[tuple[str, list[str], list[re.Match[str]]]]:
    """Name, header and samples of each family that is not omitted."""
    families: list[tuple[str, list[str], list[re.Match[str]]]] = []
    for line in text.splitlines():
        if match := _HEADER.match(line):
            if not families or families[-1][0] != match[1]:
                families.append((match[1], [], []))
            families[-1][1].append(line)
        elif families and (sample := _SAMPLE.fullmatch(line)):  # Prometheus rejects a page with one invalid line
            families[-1][2].append(sample)
    return [family for family in families if not _OMIT.match(family[0])]


def _with_labels(sample: re.Match[str], own: str) -> str:
    name, labels, value = sample[1], sample[2] or "", sample[sample.lastindex or 0]
    if 'model="' in labels:
        labels = _LABEL.sub(lambda label: f"exported_{label[0]}" if label[1] == "model" else label[0], labels)
    return f"{name}{{{own}{labels and ','}{labels}}} {value}"
