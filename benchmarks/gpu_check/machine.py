"""Part 4: what Litport says of the card: the doctor's report, and the table of peaks."""

import subprocess

from benchmarks.gpu_check.card import Context, read_card
from benchmarks.gpu_check.check import NotRunError, Recorder
from servers.processes.interpreter import module_argv
from servers.telemetry import machine
from servers.telemetry.peaks import peak


def run(record: Recorder, context: Context) -> None:
    """Ask the doctor. Raises NotRunError without a card."""
    if not context.on_card:
        raise NotRunError("a rehearsal: the doctor's report needs the card")
    card = read_card()
    gpus = machine.detect().gpus
    doctor = subprocess.run(module_argv("litport", "doctor"), capture_output=True, text=True, timeout=60, check=False)
    report = " ".join(doctor.stdout.split())
    record.judge(
        "nvidia-smi and NVML name the same card",
        [gpu.name for gpu in gpus],
        str(card.name),
        card.name in [gpu.name for gpu in gpus],
    )
    for gpu in gpus[:1]:
        record.judge("the doctor names the card", gpu.name, "in the report", gpu.name in report)
        record.judge("the doctor names the driver", gpu.driver, "in the report", gpu.driver in report)
    limits = peak(card.name)
    record.judge(
        "the table of peaks has the card", None if limits is None else limits.source, "a row", limits is not None
    )
