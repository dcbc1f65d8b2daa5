#!/bin/sh
# transformers 5.19.0: which of several copies of a tensor from_pretrained takes.
#
# Guess: where a folder has an index (model.safetensors.index.json), each tensor comes from the file that the index names.
# Seen: (1) a tensor that also stands in a later shard comes from that one, against the index, without a warning. (2) a
# model.safetensors beside the index and its shards is read in place of all of them. So an interrupted or repeated
# download into one folder can serve weights that nobody chose.
set -eu
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.19.0 torch==2.13.0 safetensors==0.8.0
cat > "$folder/try.py" <<'PYTHON'
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, BertConfig, BertModel

folder = Path(sys.argv[1], "model")
size = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1, "vocab_size": 16}
BertModel(BertConfig(**size)).save_pretrained(folder)
whole = folder / "model.safetensors"
tensors = load_file(whole)
name = "embeddings.word_embeddings.weight"
others = {key: value for key, value in tensors.items() if key != name}


def value() -> float:
    return float(AutoModel.from_pretrained(folder).state_dict()[name].mean())


first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
save_file({name: torch.full_like(tensors[name], 1.0)}, folder / first, metadata={"format": "pt"})
save_file({**others, name: torch.full_like(tensors[name], 2.0)}, folder / second, metadata={"format": "pt"})
weight_map = {name: first} | dict.fromkeys(others, second)
(folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
whole.unlink()
twice = value()
save_file(tensors | {name: torch.full_like(tensors[name], 3.0)}, whole, metadata={"format": "pt"})
beside = value()
print(f"the index names the shard with 1.0; loaded: {twice}; with a model.safetensors of 3.0 beside it: {beside}")
assert (twice, beside) == (2.0, 3.0)
PYTHON
"$folder/venv/bin/python" "$folder/try.py" "$folder"
