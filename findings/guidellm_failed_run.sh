#!/bin/sh
# guidellm 0.8.1: a run whose requests all failed succeeds, with a latency of zero.
#
# Guess: a benchmark without one answer ends with an error, or at least has no figure for its latency.
# Seen: against a server that answers each request with 500 the exit status is 0, the report's latency of successful requests
# is 0.0 in each percentile, its distribution counts 0 requests, and the table "Server Throughput" has a positive number of
# requests a second. A script that compares latencies takes the broken server for the fastest. `request_totals` tells; so
# does a constraint (`max_errors`), which is not set by default.
set -eu
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check guidellm==0.8.1
cat > "$folder/try.py" <<'PYTHON'
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(BaseHTTPRequestHandler):
    def answer(self, status: int, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.answer(200, {"object": "list", "data": [{"id": "m", "object": "model"}]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.answer(500, {"error": {"message": "the engine died"}})

    def log_message(self, *_: object) -> None: ...


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
folder = Path(sys.argv[1])
prompts, report = folder / "prompts.txt", folder / "report.json"
prompts.write_text("one two three\nfour five six\nseven eight\nnine ten\n")
options = [
    f"--backend=kind=openai_http,target=http://127.0.0.1:{server.server_port},model=m",
    "--profile=kind=synchronous",
    "--constraint=kind=max_requests,count=4",
    f"--data=kind=text_file,path={prompts}",
    f"--output=kind=json,path={report}",
    "--disable-console",
]
status = subprocess.run([folder / "venv/bin/guidellm", "run", *options], timeout=300).returncode
[benchmark] = json.loads(report.read_text())["benchmarks"]
metrics = benchmark["metrics"]
totals, latency = metrics["request_totals"], metrics["request_latency"]["successful"]
rate = metrics["requests_per_second"]["total"]["mean"]
print(f"exit status {status}; {totals}; latency p99 {latency['percentiles']['p99']} s; {rate:.0f} requests/s in total")
assert (totals["successful"], totals["errored"]) == (0, 4)
assert status == 0
assert latency["percentiles"]["p99"] == 0.0 == latency["mean"]
assert rate > 0
PYTHON
"$folder/venv/bin/python" "$folder/try.py" "$folder"
