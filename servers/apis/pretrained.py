"""A transformers model from a folder, loaded more strictly than transformers does by default.

transformers fills weights that are missing with random ones and only logs it; the answers of such a model are wrong, so
here that is an error. transformers can also run code from the model's folder; here it does not.
"""

from pathlib import Path
from typing import Any

# The head of an encoder, which our pooling does not use; checkpoints of sentence encoders often lack it.
_OPTIONAL = ("pooler.",)


def load(auto_class: Any, model_dir: Path, **options: Any) -> Any:
    """The model of the folder by one of transformers' AutoModel classes. Raises ValueError if weights are missing."""
    model, info = auto_class.from_pretrained(model_dir, trust_remote_code=False, output_loading_info=True, **options)
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(_OPTIONAL))
    if missing:
        raise ValueError(f"{model_dir}: the weights lack {len(missing)} of the model's tensors, such as {missing[0]}")
    for name in info["missing_keys"]:
        model.get_parameter(name).data.zero_()  # the same at each load, since an export belongs to the weights
    return model
