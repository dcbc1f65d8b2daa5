"""Loading a transformers model from a folder, without the two things that transformers does for convenience.

It fills weights that a checkpoint lacks with random ones and says so in a log line: here that is an error, since such a
model answers, and wrongly. And it offers to run code that lies beside the weights: here it never does.
"""

from pathlib import Path
from typing import Any

# Of an encoder's own head, which pooling does not use and which checkpoints of sentence encoders often lack.
_NOT_NEEDED = ("pooler.",)


def load(auto_class: Any, model_dir: Path, **options: Any) -> Any:
    """The model of the folder by one of transformers' AutoModel classes; ValueError when weights are missing."""
    model, found = auto_class.from_pretrained(model_dir, trust_remote_code=False, output_loading_info=True, **options)
    missing = sorted(name for name in found["missing_keys"] if not name.startswith(_NOT_NEEDED))
    if missing:
        raise ValueError(f"{model_dir}: the weights lack {len(missing)} of the model's tensors, such as {missing[0]}")
    return model
