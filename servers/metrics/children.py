"""The series of the models' own processes, on our page with a label `model`.

Each request for our page reads theirs, so a process that has ended has no series, and nothing is stored. The text is
relabelled and not parsed into samples, as vLLM has a thousand lines. A series that has a label `model` already keeps it
as `exported_model`, as in Prometheus. The series of every Python process (`python_`, `process_`) are left out, as a
model has several processes; so are the creation times of series. A model that runs elsewhere has its page there.
"""

import asyncio
import re
from collections.abc import Mapping

from servers.engines.base import CanaryError, get
from servers.engines.connection import CONNECTION_LOST
from servers.models.model import Model

_TIMEOUT_S = 1.0
_OMIT = re.compile(r"python_|process_|litport_|.*_created$")
_HEADER = re.compile(r"# (?:HELP|TYPE) (\S+)")
_LABEL = re.compile(r'([a-zA-Z_]\w*)="(?:\\.|[^"\\])*"')
_SAMPLE = re.compile(rf"([a-zA-Z_:][\w:]*)(?:\{{((?:{_LABEL.pattern},?)*)\}})? ([-+\d.eE]+|[-+]?Inf|NaN)", re.ASCII)
_UP = "litport_model_scrape_success"


async def pages(models: Mapping[str, Model]) -> str:
    """The series of all models in the text format, those of one name together, and whether each model had any."""
    models = {name: model for name, model in models.items() if model.choose().address is None}
    texts = await asyncio.gather(*(_read(model) for model in models.values()))
    headers: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for name, text in zip(models, texts, strict=True):
        for family, header, matches in _families(text or ""):
            headers.setdefault(family, header)
            samples.setdefault(family, []).extend(_with_model(sample, name) for sample in matches)
    headers[_UP] = [f"# HELP {_UP} Whether the model's own series are on this page", f"# TYPE {_UP} gauge"]
    samples[_UP] = [
        f'{_UP}{{model="{name}"}} {int(text is not None)}' for name, text in zip(models, texts, strict=True)
    ]
    lines = [line for family, header in headers.items() for line in (*header, *samples[family])]
    return "\n".join(lines) + "\n"


async def _read(model: Model) -> str | None:
    connection = model.choose().connection
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


def _with_model(sample: re.Match[str], model: str) -> str:
    name, labels, value = sample[1], sample[2] or "", sample[sample.lastindex or 0]
    if 'model="' in labels:
        labels = _LABEL.sub(lambda label: f"exported_{label[0]}" if label[1] == "model" else label[0], labels)
    return f'{name}{{model="{model}"{labels and ","}{labels}}} {value}'
