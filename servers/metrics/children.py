"""What the models' processes count themselves, taken over onto the one page with a label `model`.

Every page is read when ours is asked for, so a process that is gone has no series, and nothing is remembered. The text
is relabelled, not parsed: vLLM has a thousand lines. A series that had a label `model` already keeps it as
`exported_model`, as Prometheus does. What is told of every Python process (`python_`, `process_`) is left out, since a
model has several, and so are the times at which series were made.
"""

import asyncio
import re
from collections.abc import Mapping

import aiohttp

from servers.models.model import Model

_TIMEOUT = aiohttp.ClientTimeout(total=1.0)
_LEFT_OUT = re.compile(r"python_|process_|litport_|.*_created$")
_HEADER = re.compile(r"# (?:HELP|TYPE) (\S+)")
_LABEL = re.compile(r'([a-zA-Z_]\w*)="(?:\\.|[^"\\])*"')
_SAMPLE = re.compile(rf"([a-zA-Z_:][\w:]*)(?:\{{((?:{_LABEL.pattern},?)*)\}})? ([-+\d.eE]+|[-+]?Inf|NaN)", re.ASCII)
_UP = "litport_model_scrape_success"


async def pages(models: Mapping[str, Model]) -> str:
    """The series of all models in the text format, those of one name together, and whether each model had any."""
    texts = await asyncio.gather(*(_read(model) for model in models.values()))
    headers: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for name, text in zip(models, texts, strict=True):
        for family, header, taken in _families(text or ""):
            headers.setdefault(family, header)
            samples.setdefault(family, []).extend(_labelled(sample, name) for sample in taken)
    headers[_UP] = [f"# HELP {_UP} Whether the model's own series are on this page", f"# TYPE {_UP} gauge"]
    samples[_UP] = [
        f'{_UP}{{model="{name}"}} {int(text is not None)}' for name, text in zip(models, texts, strict=True)
    ]
    lines = [line for family, header in headers.items() for line in (*header, *samples[family])]
    return "\n".join(lines) + "\n"


async def _read(model: Model) -> str | None:
    session = model.choose().session
    if session is None:
        return None
    try:
        async with session.get("/metrics", timeout=_TIMEOUT) as response:
            return await response.text() if response.status == 200 else None
    except (aiohttp.ClientError, OSError, TimeoutError, RuntimeError, UnicodeDecodeError):
        return None  # it is starting, ending or stuck; RuntimeError: its session was closed meanwhile


def _families(text: str) -> list[tuple[str, list[str], list[re.Match[str]]]]:
    """Name, header and samples of each family that is taken over."""
    found: list[tuple[str, list[str], list[re.Match[str]]]] = []
    for line in text.splitlines():
        if match := _HEADER.match(line):
            if not found or found[-1][0] != match[1]:
                found.append((match[1], [], []))
            found[-1][1].append(line)
        elif found and (sample := _SAMPLE.fullmatch(line)):  # one line that is none would cost the whole page
            found[-1][2].append(sample)
    return [family for family in found if not _LEFT_OUT.match(family[0])]


def _labelled(sample: re.Match[str], model: str) -> str:
    name, own, value = sample[1], sample[2] or "", sample[sample.lastindex or 0]
    if 'model="' in own:
        own = _LABEL.sub(lambda label: f"exported_{label[0]}" if label[1] == "model" else label[0], own)
    return f'{name}{{model="{model}"{own and ","}{own}}} {value}'
