"""What vLLM gets on a CPU where the settings leave it open: options, size of the KV cache, environment."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.settings import VllmModel
from servers.engines import allocator
from servers.engines.vllm import parallel
from servers.engines.vllm.decoder import Decoder
from servers.processes.proc import PROC, read_text
from servers.telemetry.memory import memory

_PRELOADED = ("libtcmalloc_minimal.so.4", "libiomp5.so")
_GIB = 1024**3
_FULL_SEQUENCES = 4
_FEW_CORES = 2  # measured on two; on more the core that vLLM keeps is a smaller share
_SOFTWARE_BYTES = 2  # wider numbers have instructions on every processor that vLLM runs on
_BINDING = "VLLM_CPU_OMP_THREADS_BIND"


def options(settings: VllmModel, model_dir: Path | None, siblings: int) -> dict[str, Any]:
    """vLLM's options, in its own spelling."""
    # Eager: torch.compile takes 70-110 s more to start on two cores, for models of a size that suits a CPU.
    options: dict[str, Any] = {"enforce-eager": True}
    size_options = {"kv-cache-memory-bytes", "gpu-memory-utilization", "num-gpu-blocks-override"}
    if not size_options & settings.args.keys() and "VLLM_CPU_KVCACHE_SPACE" not in os.environ | settings.env:
        options["kv-cache-memory-bytes"] = kv_cache_bytes(settings, model_dir, siblings)
    return options


def kv_cache_bytes(settings: VllmModel, model_dir: Path | None, siblings: int) -> int:
    """Room for four sequences of full length, that is for many more of usual length; 0.5 to 4 GiB.

    vLLM touches all of it at the start. The limit is a quarter of the memory, shared by the `siblings` vLLM models, and
    leaves room for weights and for other models; it counts, too, where the folder does not say the model's sizes.
    """
    limit_bytes = min(4 * _GIB, max(_GIB // 2, memory().total_bytes // 4 // siblings))
    decoder = Decoder.of(settings, model_dir)
    length = settings.args.get("max-model-len") or (decoder and decoder.context_tokens)
    if decoder is None or not isinstance(length, int):
        return limit_bytes
    return min(limit_bytes, max(_GIB // 2, _FULL_SEQUENCES * length * decoder.kv_bytes_per_token))


def environ(settings: VllmModel) -> Mapping[str, str]:
    """Variables of vLLM's processes; a choice in Litport's environment or in the settings takes precedence."""
    variables: dict[str, str] = {}
    if settings.args.get("enforce-eager", True):
        # vLLM compiles a function for logprobs even so: seconds within a request, which fails without a compiler.
        variables["TORCHDYNAMO_DISABLE"] = "1"
    if has_few_cores() and _has_one_worker(settings) and _BINDING not in os.environ | settings.env:
        variables |= _without_worker_process()
    libraries = preloads()
    variables["LD_PRELOAD"] = ":".join(map(str, libraries))
    if not any("tcmalloc" in library.name for library in libraries):
        variables |= allocator.environ()
    return {name: os.environ.get(name, value) for name, value in variables.items()}


def _without_worker_process() -> dict[str, str]:
    """The worker runs in the engine core's process, with all cores.

    As its own process it gets each step through a ring of shared memory, at which the engine core spins
    (`SpinCondition` in vllm/distributed/device_communicators/shm_broadcast.py): one of two cores. vLLM makes it one for
    the sake of OpenMP's variables alone (vllm/platforms/cpu.py). Of those that it sets
    (vllm/utils/ompmultiprocessing.py) the binding is left out: the API server would bind itself, and so its children.
    """
    return {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0))),
        "KMP_BLOCKTIME": "5",  # ms that a thread spins when its work is done
        "KMP_TPAUSE": "0",
    }


def width_note(settings: VllmModel, model_dir: Path | None) -> str:
    """What a person should know of the model's numbers: that the processor computes those of 16 bits in software."""
    decoder = Decoder.of(settings, model_dir)
    if decoder is None or decoder.width_bytes > _SOFTWARE_BYTES or has_bfloat16():
        return ""
    return (
        "this processor has no instructions to compute in 16 bits, as the model does; args.dtype: float32 may be "
        "several times as fast, and takes twice the memory"
    )


def has_bfloat16() -> bool:
    """Whether the processor has instructions for bfloat16."""
    return bool({"avx512_bf16", "amx_bf16"} & set(read_text(PROC / "cpuinfo").split()))


def has_few_cores() -> bool:
    """Whether the model gets all cores. On more, vLLM keeps one for the engine core, which spins meanwhile."""
    return len(os.sched_getaffinity(0)) <= _FEW_CORES


def preloads() -> list[Path]:
    """The libraries tcmalloc and Intel's OpenMP, where present; vLLM's CPU guide recommends both."""
    library_dirs = [Path(sys.prefix, "lib"), *Path("/usr/lib").glob("*-linux-gnu"), Path("/usr/lib64")]
    places = ([folder / library for folder in library_dirs] for library in _PRELOADED)
    return [file for files in places if (file := next(filter(Path.exists, files), None))]


def _has_one_worker(settings: VllmModel) -> bool:
    # vLLM wants a list of cores for each worker.
    return parallel.size(settings.args, parallel.SPLIT + parallel.COPIES) == 1
