"""The limits of GPUs, and how close a run comes to them: MFU, MBU, tokens per joule, cost.

The limits are the vendor's figures for BF16 or FP16 with FP32 accumulation, dense (without the sparsity that doubles
them in datasheets). A GPU that is not in the table, or a figure that was not measured, gives None.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Peak:
    """A GPU's limits: dense BF16/FP16 tensor FLOP/s, memory bandwidth in bytes/s, and the source of both."""

    flops_per_s: float
    memory_bytes_per_s: float
    source: str


# By the name that NVML gives, without a leading "NVIDIA ". Datasheets that print only the sparse figure are halved.
PEAKS = {
    "Tesla T4": Peak(65e12, 320e9, "NVIDIA Turing architecture whitepaper, Tesla T4 (FP16; a T4 has no BF16)"),
    "A10": Peak(125e12, 600e9, "NVIDIA A10 datasheet"),
    "A30": Peak(165e12, 933e9, "NVIDIA A30 datasheet"),
    "A40": Peak(149.7e12, 696e9, "NVIDIA A40 datasheet"),
    "A100-PCIE-40GB": Peak(312e12, 1555e9, "NVIDIA A100 datasheet, 40GB PCIe"),
    "A100-SXM4-40GB": Peak(312e12, 1555e9, "NVIDIA A100 datasheet, 40GB SXM"),
    "A100 80GB PCIe": Peak(312e12, 1935e9, "NVIDIA A100 datasheet, 80GB PCIe"),
    "A100-SXM4-80GB": Peak(312e12, 2039e9, "NVIDIA A100 datasheet, 80GB SXM"),
    "L4": Peak(121e12, 300e9, "NVIDIA L4 datasheet (242 TFLOPS sparse)"),
    "L40": Peak(181.05e12, 864e9, "NVIDIA L40 datasheet"),
    "L40S": Peak(362.05e12, 864e9, "NVIDIA L40S datasheet"),
    "H100 PCIe": Peak(756.5e12, 2.0e12, "NVIDIA H100 datasheet, PCIe (1,513 TFLOPS sparse)"),
    "H100 80GB HBM3": Peak(989.5e12, 3.35e12, "NVIDIA H100 datasheet, SXM (1,979 TFLOPS sparse)"),
    "H200": Peak(989.5e12, 4.8e12, "NVIDIA H200 datasheet, SXM (1,979 TFLOPS sparse)"),
    "B200": Peak(2250e12, 8.0e12, "NVIDIA Blackwell architecture technical brief, HGX B200 (4.5 PFLOPS sparse)"),
    "GeForce RTX 4090": Peak(165.2e12, 1008e9, "NVIDIA Ada GPU architecture whitepaper, RTX 4090 (FP32 accumulation)"),
}


def peak(device: str | None) -> Peak | None:
    """The limits of a GPU by its name in NVML; None for one that is not in the table, such as a MIG slice."""
    return None if device is None else PEAKS.get(device.removeprefix("NVIDIA "))


def mfu(
    device: str | None,
    *,
    active_parameters: float,
    tokens: float | None,
    layers: int,
    heads: int,
    head_dim: int,
    attention_pairs: float | None,
    elapsed_s: float | None,
    devices: int = 1,
) -> float | None:
    """Model FLOPs utilization of a forward pass: a fraction (1.0 is the peak), or None.

    FLOPs are 2 x active_parameters x tokens + 4 x layers x heads x head_dim x attention_pairs; the result is
    FLOPs / (elapsed_s x devices x peak FLOP/s).

    `tokens` are those that went through the model, prompt and output; `active_parameters` are those that one token
    passes (all of a dense model, the routed part of a mixture of experts); `attention_pairs` is the sum, over the
    forward passes, of query length x context length. Source: Chowdhery et al. 2022 (PaLM, arXiv:2204.02311), appendix
    B: its 6N + 12LHQT for training, of which the forward pass is a third.
    """
    limit = peak(device)
    if limit is None or tokens is None or attention_pairs is None or not elapsed_s:
        return None
    flops = 2 * active_parameters * tokens + 4 * layers * heads * head_dim * attention_pairs
    return flops / (elapsed_s * devices * limit.flops_per_s)


def mbu(
    device: str | None,
    *,
    weight_bytes: float,
    kv_bytes: float | None,
    step_s: float | None,
    devices: int = 1,
) -> float | None:
    """Model bandwidth utilization of a decoding step: a fraction (1.0 is the peak), or None.

    (weight_bytes + kv_bytes) / (step_s x devices x peak bytes/s): one step reads all weights, and the keys and values
    of all sequences in the batch (`kv_bytes`). Source: Agarwal et al. 2023, "LLM Inference Performance
    Engineering: Best Practices" (Databricks).
    """
    limit = peak(device)
    if limit is None or kv_bytes is None or not step_s:
        return None
    return (weight_bytes + kv_bytes) / (step_s * devices * limit.memory_bytes_per_s)


def tokens_per_joule(tokens: float | None, energy_j: float | None) -> float | None:
    """Tokens for each joule; None where a value is unknown or the energy is 0."""
    return None if tokens is None or not energy_j else tokens / energy_j


def cost_per_million_tokens(price_per_hour: float | None, tokens_per_s: float | None) -> float | None:
    """The cost of a million tokens, in the price's currency; None where a value is unknown or there were no tokens."""
    return None if price_per_hour is None or not tokens_per_s else price_per_hour / 3600 / tokens_per_s * 1e6
