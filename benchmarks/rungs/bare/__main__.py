"""The process of a bare model: `python -m benchmarks.rungs.bare SPEC.json`, then commands on standard input.

It loads the model, prints `{"ready": ...}`, and answers each line `{"do": "run" | "answer", "items": FILE, "result":
FILE, ...}` with a line of its own. The output of libraries goes to standard error.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.load.workload import Item


def main() -> int:
    """Serve commands until standard input ends."""
    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        os.dup2(2, 1)
        spec = json.loads(Path(sys.argv[1]).read_text())
        model = _load(spec)
        answers.write(json.dumps({"ready": True, "batch_size": getattr(model, "batch_size", None)}) + "\n")
        for line in sys.stdin:
            command = json.loads(line)
            items = msgspec.msgpack.decode(Path(command["items"]).read_bytes(), type=list[Item])
            if command["do"] == "run":
                outcome = model.run(items, command["users"], command["time_limit_s"])
            else:
                outcome = model.answer(items)
            Path(command["result"]).write_bytes(msgspec.msgpack.encode(outcome))
            answers.write(json.dumps({"done": command["do"]}) + "\n")
    return 0


def _load(spec: dict[str, Any]) -> Any:
    match spec["rung"]:
        case "transformers" | "transformers-batched":
            from benchmarks.rungs.bare.transformers_model import TransformersModel

            return TransformersModel(Path(spec["model_dir"]), spec["dtype"], spec["batch_size"])
        case "vllm-offline":
            from benchmarks.rungs.bare.vllm_model import VllmModel

            return VllmModel(spec["argv"])
        case _:
            from benchmarks.rungs.bare.api_model import ApiModel

            variant = spec.get("variant")
            model = ApiModel(spec["api"], spec["arguments"], spec["device"], variant)
            if spec["rung"] == "model-batched" or variant is not None:
                items = msgspec.msgpack.decode(Path(spec["items"]).read_bytes(), type=list[Item])
                model.find_batch_size(items, spec["batch_size"])
            return model


if __name__ == "__main__":
    sys.exit(main())
