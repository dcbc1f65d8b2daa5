"""`runtime_options`: further options of a runtime's session, by the runtime's own names.

Those that Litport sets itself are refused. The runtime is asked about the others by a process of its own, so that the
supervisor does not load it: `python -m servers.apis.session_options RUNTIME OPTIONS` prints the problems as JSON.
"""

import json
import mmap
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from servers.apis.reference import nearest
from servers.processes.interpreter import module_argv

_LIMIT_S = 60.0
_THREADS = "expected no number of threads, which is the model's share of the cores, or env.OMP_NUM_THREADS"
_FILES = "expected no option that writes files: each check and each start of a worker would write them"
_SPINNING = "expected no word on spinning threads: they sleep, since spinning ones take the cores from other processes"
_PRECISION = "expected no precision here; set `precision`"
_FIXED_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "onnxruntime": {
        r"(session\.)?(intra|inter)_op_num_threads": _THREADS,
        r"(session\.)?use_per_session_threads|session\.intra_op_thread_affinities": _THREADS,
        r"session\.(intra|inter)_op\..*|session\.force_spinning_stop": _SPINNING,
        r"(session\.)?optimized_model_.*|enable_profiling|profile_file_prefix|ep\.context_.*": _FILES,
    },
    "openvino": {"INFERENCE_NUM_THREADS": _THREADS, "INFERENCE_PRECISION_HINT": _PRECISION},
}
"""What Litport sets itself, by expressions for the names."""
_KINDS = {bool: "true or false", int: "a whole number", str: "text"}


def problems(runtime: str, options: Mapping[str, Any]) -> Mapping[str, str]:
    """What is wrong with the options of an installed runtime, by their names; "" stands for all of them."""
    refusals = {
        name: f"{reason}; got {json.dumps(value)}"
        for name, value in options.items()
        for expression, reason in _FIXED_OPTIONS[runtime].items()
        if re.fullmatch(expression, name)
    }
    open_options = {name: value for name, value in options.items() if name not in refusals}
    if not open_options:
        return refusals
    argv = module_argv("servers.apis.session_options", runtime, json.dumps(open_options))
    try:
        child = subprocess.run(argv, capture_output=True, text=True, timeout=_LIMIT_S, check=True)
    except subprocess.TimeoutExpired:
        return {**refusals, "": f"{runtime} did not say within {_LIMIT_S:g} s whether it takes them"}
    except subprocess.CalledProcessError as error:
        last = error.stderr.strip().rpartition("\n")[2]
        return {**refusals, "": f"{runtime} cannot be asked about them: {last or f'status {error.returncode}'}"}
    return {**refusals, **json.loads(child.stdout)}


def set_onnxruntime(session_options: Any, name: str, value: Any) -> None:
    """Set an attribute of onnxruntime.SessionOptions, or an entry with a dot in its name. Raises ValueError."""
    if "." in name:
        session_options.add_session_config_entry(name, str(int(value) if isinstance(value, bool) else value))
        return
    names = [text for text in dir(session_options) if text[0] != "_" and not callable(getattr(session_options, text))]
    if name not in names:
        raise ValueError(f"expected an option of onnxruntime's sessions, got {name}{nearest(name, names)}")
    kind = type(getattr(session_options, name))
    if (members := getattr(kind, "__members__", None)) is not None:
        if value not in members:
            raise ValueError(f"expected one of {', '.join(members)}, got {json.dumps(value)}")
        value = members[value]
    elif type(value) is not kind:
        raise ValueError(f"expected {_KINDS[kind]}, got {json.dumps(value)}")
    setattr(session_options, name, value)


def _ask_onnxruntime(name: str, value: Any) -> None:
    """Open a session of a trivial graph with this option alone. Raises ValueError, and what ONNX Runtime raises."""
    import onnxruntime
    from onnx import TensorProto, helper

    library = Path(onnxruntime.capi.onnxruntime_pybind11_state.__file__)
    # ONNX Runtime takes an entry of any name, and one that it does not know has no effect. Its library holds the names.
    if "." in name and not _holds(library, name):
        raise ValueError(f"onnxruntime {onnxruntime.__version__} has no option of this name; got {json.dumps(value)}")
    options = onnxruntime.SessionOptions()
    set_onnxruntime(options, name, value)
    x, y = (helper.make_tensor_value_info(letter, TensorProto.FLOAT, [1]) for letter in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "asked", [x], [y])
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _holds(library: Path, name: str) -> bool:
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b"\0" + name.encode() + b"\0") >= 0


def _ask_openvino(core: Any, name: str, value: Any) -> None:
    """Set this property of the CPU alone. Raises ValueError, and what OpenVINO raises."""
    properties = core.get_property("CPU", "SUPPORTED_PROPERTIES")
    names = [text for text, access in properties.items() if access == "RW"]
    if name not in names:
        raise ValueError(f"expected a property of openvino's CPU plug-in, got {name}{nearest(name, names)}")
    core.set_property("CPU", {name: value})


def main(runtime: str, options: str) -> None:
    """Print what the runtime refuses, by the names of the options."""
    ask: Callable[[str, Any], None] = _ask_onnxruntime
    if runtime == "openvino":
        import openvino

        ask = partial(_ask_openvino, openvino.Core())
    answers: dict[str, str] = {}
    for name, value in json.loads(options).items():
        try:
            ask(name, value)
        except ValueError as problem:
            answers[name] = str(problem)
        except Exception as error:  # each runtime has classes of its own
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            answers[name] = f"{runtime} refuses {json.dumps(value)}: {lines[-1]}"
    sys.stdout.write(json.dumps(answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
