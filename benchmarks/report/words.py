"""The sentences of a report: the verdict, what became of its advice, and what was run on which machine.

Markdown and the page share them. They repeat what the result says and add no judgement.
"""

import shlex
from collections.abc import Mapping
from typing import Any

from benchmarks.report.cells import number
from benchmarks.report.tables import Table


def verdict(result: Mapping[str, Any]) -> str:
    """The verdict, its cause and its advice."""
    found = result["verdict"]
    if found is None:
        return "There is none: it needs Litport, or another server, measured with where its time goes."
    serving = f"Of serving alone, {found['serving_row']} takes the most: {found['serving_share']:.0%} of the latency."
    advice = found["advice"]
    why = f" {_sentence(found['reason'])}" if advice and found["reason"] != found["cause"] else ""
    tried = f"{why} Try {advice['setting']}: {advice['value']}." if advice else ""
    return f"{_sentence(found['summary'])} {_sentence(found['cause'])} {serving}{tried}"


def confirmed(result: Mapping[str, Any]) -> str | None:
    """What became of the advice; None where it was not tried."""
    found = result["confirmed"]
    if found is None:
        return None
    pairs = [
        f"{words} {found[f'{key}_ratio']:.3f} times ({', '.join(f'{one:.3f}' for one in found[f'{key}_ratios'])})"
        for key, words in (("throughput", "throughput"), ("e2e", "end-to-end latency"))
    ]
    helped = "helped" if found["helped"] else "did not help"
    return f"{found['setting']}: {found['value']} was tried and {helped}: {', '.join(pairs)}, each pass in brackets."


def about(result: Mapping[str, Any]) -> Table:
    """When, what, where, and with which versions."""
    machine = result["machine"]
    gpus = [f"{gpu['name']}, {gpu['memory_mib']:,} MiB, driver {gpu['driver']}" for gpu in machine["gpus"]]
    rows: list[tuple[str, str | None]] = [
        ("model", result["model"]),
        ("started", result["started_at"]),
        ("finished", result["finished_at"]),
        ("command", shlex.join(result["command"])),
        ("git commit", result["git_commit"]),
        ("system", machine["system"]),
        ("processor", machine["processor"]),
        ("cores", str(machine["cores"])),
        ("memory", None if machine["memory_bytes"] is None else f"{number(machine['memory_bytes'] / 2**30)} GiB"),
        ("GPUs", "; ".join(gpus) or "none found"),
        ("requests digest (SHA-256)", result["workload_digest"]),
        ("every request", result["requests_file"]),
        *((f"version of {package}", version) for package, version in result["versions"].items()),
    ]
    return Table(
        "The run", ("what", "value"), tuple((what, value or "not known") for what, value in rows), numeric=False
    )


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:].rstrip(".") + "."
