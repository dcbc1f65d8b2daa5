"""Models of a few kilobytes with random weights and a byte-level tokenizer, saved as transformers saves them."""

import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

_SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def language_model(folder: Path) -> Path:
    """A Llama whose tokens are bytes: 256 of them and an end."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _byte_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=128, eos_token_id=256, pad_token_id=256, **_SIZES
    )
    model = LlamaForCausalLM(config)
    for weights in model.parameters():  # livelier than the initial values: answers differ from prompt to prompt
        weights.data.mul_(4)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def text_classifier(folder: Path) -> Path:
    """A BERT that puts texts into two classes."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    tokenizer = _byte_tokenizer()
    torch.manual_seed(0)
    BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), **_SIZES)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def picture_classifier(folder: Path) -> Path:
    """A vision transformer that puts pictures into seven classes."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    torch.manual_seed(0)
    config = ViTConfig(image_size=32, patch_size=8, num_labels=7, **_SIZES)
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


PICTURE_MODELS = ("resnet", "swin")


def picture_model(kind: str, folder: Path) -> Path:
    """A picture classifier of another family, with seven classes: convolutions, norms, and windows of attention."""
    import torch
    from transformers import AutoConfig, AutoModelForImageClassification
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    sizes: dict[str, dict[str, Any]] = {
        "resnet": {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1], "layer_type": "basic"},
        "swin": {"embed_dim": 16, "depths": [1, 2], "num_heads": [2, 2], "window_size": 4, "patch_size": 4},
    }
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, image_size=64, num_labels=7, **sizes[kind])
    AutoModelForImageClassification.from_config(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def timm_model(folder: Path) -> Path:
    """A ResNet of timm's in the layout of timm's own folders."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=7).eval()
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors", {"format": "pt"})
    config = {
        "architecture": "test_resnet",
        "num_classes": 7,
        "label_names": [f"class {index}" for index in range(7)],
        "pretrained_cfg": {"input_size": [3, 64, 64], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "crop_pct": 1.0},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _byte_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate(letters)} | {"<end>": 256}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    template = "{% for message in messages %}{{ message['role'] + ': ' + message['content'] }}{% endfor %}"
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>", chat_template=template, model_max_length=128
    )
