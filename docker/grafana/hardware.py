"""The dashboard of what the hardware does: the models' processes, the host, the front door itself, and GPUs."""

from typing import Any

from panels import BAD, Json, chart, dashboard, figure, row
from promql import MODEL, increase, of, rate

PAGE: dict[str, Any] = {"model_filter": False, "job": "litport"}
TOKENS, ENERGY = "litport_tokens_total", "litport_gpu_energy_joules_total"
GPU = "GPU {{gpu}}"


def _gpu(series: str) -> tuple[str, str]:
    return f"max by (gpu) (litport_gpu_{series})", GPU


HARDWARE: Json = dashboard(
    "litport-hardware",
    "Litport: hardware",
    "What the hardware does: the models' processes, the host, the front door itself, and GPUs.",
    "",
    row(
        "The models' processes",
        chart(
            "Cores by model",
            "Processor time a second of all processes of a model. Waiting for a GPU may keep a core busy, too.",
            "short",
            (rate("litport_model_cpu_seconds_total", "model"), MODEL),
            stacked=True,
        ),
        chart(
            "Memory by model",
            "Resident memory of all processes of a model, added up. What they share, such as weights that were mapped, "
            "counts more than once. GPU memory is not in it.",
            "bytes",
            (f"sum by (model) ({of('litport_model_resident_memory_bytes')})", MODEL),
        ),
        chart(
            "Growth of memory",
            "A line through the last 6 hours (or as many as there are), in bytes an hour. A start is growth, too: it "
            "says something only of a model that has been up for all that time.",
            "bytes",
            (f"sum by (model) ({of('instance_model:litport_model_resident_memory_bytes:deriv6h')}) * 3600", MODEL),
            least=None,
        ),
        chart(
            "Processes",
            "Of each model; a number that falls and comes back is a worker that was replaced.",
            "short",
            (f"sum by (model) ({of('litport_model_processes')})", MODEL),
        ),
        chart(
            "Context switches",
            "voluntary: a thread waited for something. involuntary: it was put off, since others wanted the core; many "
            "of them mean more threads than cores.",
            "cps",
            (rate("litport_model_context_switches_total", "model, kind"), f"{MODEL} {{{{kind}}}}"),
        ),
        chart(
            "Own series read",
            "1: the model's own series are on the page. 0 is normal while it starts.",
            "short",
            (f"min by (model) ({of('litport_model_scrape_success')})", MODEL),
            most=1,
        ),
    ),
    row(
        "The host",
        chart(
            "Processor",
            "Share of all cores that is at work, by whomever. Steal: other machines on the same hardware took it; "
            "measurements made meanwhile are worth little.",
            "percentunit",
            ("avg(litport_host_cpu_ratio)", "at work"),
            ("avg(litport_host_cpu_steal_ratio)", "steal"),
            most=1,
        ),
        chart(
            "Memory",
            "Available is what can be had without swapping, caches included. In a container this is still the host's.",
            "bytes",
            ("max(litport_host_memory_total_bytes)", "total"),
            ("max(litport_host_memory_available_bytes)", "available"),
        ),
    ),
    row(
        "Throttling (where the control group tells)",
        chart(
            "Time throttled",
            "Seconds a second that threads were held back, added up over cores, as the container's CPU limit was "
            "used up. Anything but 0 makes latencies jump.",
            "short",
            (rate("litport_host_throttled_seconds_total", model_filter=False), "throttled"),
        ),
        chart(
            "Periods throttled",
            "Periods of the scheduler (mostly 0.1 s) in which the CPU limit was used up.",
            "cps",
            (rate("litport_host_throttled_periods_total", model_filter=False), "throttled"),
        ),
        is_collapsed=True,
    ),
    row(
        "The front door's own process",
        chart(
            "Cores",
            "It is one event loop: near 1 it is the bottleneck, whatever the models do.",
            "short",
            (rate("process_cpu_seconds_total", **PAGE), "front door"),
            limit=0.9,
        ),
        chart(
            "Memory",
            "Resident memory of the process that holds the front door and the supervisor.",
            "bytes",
            (f"sum({of('process_resident_memory_bytes', **PAGE)})", "front door"),
        ),
        chart(
            "File descriptors",
            "Each connection takes one, and each request in a model one more.",
            "short",
            (f"sum({of('process_open_fds', **PAGE)})", "open"),
            (f"sum({of('process_max_fds', **PAGE)})", "limit"),
        ),
    ),
    row(
        "GPUs",
        figure(
            "GPUs lost",
            "GPUs that the driver can no longer reach.",
            "short",
            "sum(litport_gpu_lost)",
            good="green",
            limits=[(1, BAD)],
        ),
        figure(
            "GPUs shared",
            "GPUs on which more than one model, or a model and a stranger, work. What they do cannot be told apart.",
            "short",
            "sum(litport_gpu_shared)",
        ),
        figure(
            "Energy",
            "Of all GPUs, within the time shown; idling included, the rest of the machine not.",
            "joule",
            increase(ENERGY, model_filter=False),
            width=8,
        ),
        figure(
            "Output tokens per joule",
            "Of all models and all GPUs, over the time shown: idling counts, so it falls when nobody asks. Compare it "
            "under the same load only.",
            "suffix: tokens/J",
            f"{increase(TOKENS, model_filter=False, direction='output')}"
            f" / ({increase(ENERGY, model_filter=False)} > 0)",
            width=8,
        ),
        chart(
            "Duty cycle",
            "The share of time in which some kernel ran, however little of the GPU it filled: 100% may be a GPU that "
            "is mostly empty. With the model whose it is; without one it is shared, or nobody's. MIG has none.",
            "percentunit",
            (f"max by (gpu, model) ({of('litport_gpu_utilization_ratio')})", f"{GPU} {MODEL}"),
            most=1,
        ),
        chart(
            "Memory",
            "What is taken is not what is needed: vLLM takes its share of the memory at its start.",
            "bytes",
            ("max by (gpu) (litport_gpu_memory_used_bytes)", f"{GPU} used"),
            ("max by (gpu) (litport_gpu_memory_total_bytes)", f"{GPU} total"),
        ),
        chart(
            "Memory by model",
            "other: processes that are none of Litport's models, or that a container hides.",
            "bytes",
            ("sum by (gpu, model) (litport_gpu_process_memory_bytes)", f"{GPU} {MODEL}"),
            stacked=True,
        ),
        chart("Power", "On most GPUs a mean over one second.", "watt", _gpu("power_watts")),
        chart(
            "Temperature",
            "Of the chip; memory is often hotter. What it means for the clock is under the reasons.",
            "celsius",
            _gpu("temperature_celsius"),
        ),
        chart(
            "Output tokens per joule",
            "Of all models and all GPUs. It moves with the load: an idle GPU draws power, too.",
            "suffix: tokens/J",
            (
                f"{rate(TOKENS, model_filter=False, direction='output')} / ({rate(ENERGY, model_filter=False)} > 0)",
                "all",
            ),
        ),
        chart(
            "Clocks",
            "A clock that falls under load is held down; by what, the reasons say.",
            "hertz",
            ("max by (gpu) (litport_gpu_sm_clock_hertz)", f"{GPU} multiprocessors"),
            ("max by (gpu) (litport_gpu_memory_clock_hertz)", f"{GPU} memory"),
        ),
        chart(
            "Reasons for a lower clock",
            "Each reason that the driver gives. gpu_idle is none to worry about; sw_power_cap is usual under full "
            "load; thermal ones are a matter of cooling. No line: no reason.",
            "short",
            ("max by (gpu, reason) (litport_gpu_throttle_reason)", f"{GPU} {{{{reason}}}}"),
            most=1,
        ),
        chart(
            "Duty cycle and waiting requests",
            "A GPU that idles while requests wait is held up by something else: the processor, a limit that is too "
            "low.",
            "short",
            ("max by (gpu) (litport_gpu_utilization_ratio)", f"{GPU} duty cycle (1 is all the time)"),
            (f"sum({of('instance_model:requests_waiting:sum')})", "requests waiting"),
        ),
    ),
    row(
        "How full a GPU is (Hopper and newer, without MIG)",
        chart(
            "Multiprocessors at work",
            "The share of multiprocessors with work, over time; closer to the truth than the duty cycle. A "
            "multiprocessor counts whole, however few of its units are in use.",
            "percentunit",
            _gpu("sm_utilization_ratio"),
            most=1,
        ),
        chart(
            "Occupancy",
            "The share of places for warps that are taken. Good kernels need not fill them.",
            "percentunit",
            _gpu("sm_occupancy_ratio"),
            most=1,
        ),
        chart(
            "Memory bandwidth",
            "The share of the memory's bandwidth in use. Decoding in small batches is mostly limited by it.",
            "percentunit",
            _gpu("memory_bandwidth_ratio"),
            most=1,
        ),
        is_collapsed=True,
    ),
    row(
        "MIG instances",
        chart(
            "Memory of an instance",
            "Of each slice of a GPU that is cut into MIG instances. A slice has no duty cycle of its own.",
            "bytes",
            ("max by (gpu, mig_instance) (litport_gpu_instance_memory_used_bytes)", f"{GPU}/{{{{mig_instance}}}} used"),
            (
                "max by (gpu, mig_instance) (litport_gpu_instance_memory_total_bytes)",
                f"{GPU}/{{{{mig_instance}}}} total",
            ),
            width=24,
        ),
        is_collapsed=True,
    ),
)
