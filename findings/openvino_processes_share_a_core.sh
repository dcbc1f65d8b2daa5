#!/bin/sh
# openvino 2026.4.1: two processes that infer with one thread each are bound to the same core, and leave the others idle.
#
# Guess: ENABLE_CPU_PINNING binds threads to different cores, and processes beside each other get along by themselves, as
# with torch or ONNX Runtime, which bind nothing.
# Seen: it is on unless told otherwise, counts from the first core in each process, and binds the calling thread while it
# infers (before and after, its affinity is the old one). Two processes of one thread so have one core together: half of
# the throughput on two cores. With ENABLE_CPU_PINNING false no thread is bound.
set -eu
[ "$(nproc)" -ge 2 ] || { echo "needs two cores"; exit 1; }
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check openvino==2026.4.1
cat > "$folder/infer.py" <<'PYTHON'
"""Infer for 3 s, and print to which cores the threads were bound meanwhile."""

import os
import sys
import threading
import time

import numpy as np
import openvino
from openvino import opset13 as ops

x = y = ops.parameter([-1, 512], np.float32)
for _ in range(8):
    y = ops.relu(ops.matmul(y, ops.constant(np.full((512, 512), 0.01, np.float32)), False, False))
options = {"INFERENCE_NUM_THREADS": 1} | ({"ENABLE_CPU_PINNING": False} if sys.argv[1] == "free" else {})
request = openvino.Core().compile_model(openvino.Model([y], [x], "m"), "CPU", options).create_infer_request()
batch, has_ended, bound = np.ones((128, 512), np.float32), threading.Event(), set()


def look() -> None:
    while not has_ended.wait(0.01):
        for task in os.listdir("/proc/self/task"):
            cores = os.sched_getaffinity(int(task))
            if len(cores) == 1:
                bound.update(cores)


def infer() -> None:
    end_s = time.monotonic() + 3
    while time.monotonic() < end_s:
        request.infer([batch])


thread = threading.Thread(target=infer)
watch = threading.Thread(target=look)
watch.start()
thread.start()
thread.join()
has_ended.set()
watch.join()
print(*sorted(bound))
PYTHON
for way in pinned free; do
  for process in 1 2; do "$folder/venv/bin/python" "$folder/infer.py" $way >"$folder/$way.$process" & done
  wait
  echo "$way: cores of process 1: $(cat "$folder/$way.1"), of process 2: $(cat "$folder/$way.2")"
done
[ -n "$(cat "$folder/pinned.1")" ] && cmp "$folder/pinned.1" "$folder/pinned.2"
[ -z "$(cat "$folder/free.1" "$folder/free.2")" ]
