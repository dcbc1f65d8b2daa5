#!/bin/sh
# ray 2.60.0: `ray start --block` ends with status 1 when it is stopped as it should be, by SIGTERM.
#
# Guess: 0, as of a server that a service manager has asked to end and that has ended all its processes; or 143.
# Seen: the node drains, says so in its last line, all its processes end, and the status is 1, that of a node that could
# not start or that lost a process. So `docker stop` and a pod's end look like a failure, and a unit of systemd
# is "failed" after `systemctl stop`, unless it says SuccessExitStatus=1, which hides the failures.
set -eu
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "ray[default]==2.60.0"
cat > "$folder/try.py" <<'PYTHON'
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

folder = Path(sys.argv[1])
command = [folder / "venv/bin/ray", "start", "--head", "--block", "--node-ip-address=127.0.0.1", "--port=0"]
command += ["--num-cpus=1", "--include-dashboard=false", "--disable-usage-stats"]
command += ["--object-store-memory=80000000", f"--temp-dir={folder}/ray"]
log = folder / "log"
with log.open("wb") as output:
    node = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
try:
    end_s = time.monotonic() + 90
    while "--block" not in (text := log.read_text()) and time.monotonic() < end_s:
        assert node.poll() is None, text
        time.sleep(0.5)
    time.sleep(3)
    parts = subprocess.run(["pgrep", "--session", str(node.pid)], capture_output=True, text=True).stdout.split()
    node.send_signal(signal.SIGTERM)
    status = node.wait(60)
    time.sleep(1)
    left = subprocess.run(["pgrep", "--session", str(node.pid)], capture_output=True, text=True).stdout.split()
finally:
    for pid in subprocess.run(["pgrep", "--session", str(node.pid)], capture_output=True, text=True).stdout.split():
        os.kill(int(pid), signal.SIGKILL)
print(f"{len(parts)} processes before, {len(left)} after; the status is {status}")
print("the last line:", log.read_text().strip().splitlines()[-1])
assert len(parts) > 1
assert not left
assert "finished draining" in log.read_text()
assert status == 1
PYTHON
"$folder/venv/bin/python" "$folder/try.py" "$folder"
