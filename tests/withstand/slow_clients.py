"""Slow clients against a platform: slowhttptest's three attacks, and what an honest client feels of each.

    python -m tests.withstand.slow_clients tests/services/strangers/squares.py:SquaresAPI

It prints the honest client's latency before and during each attack, and their ratio. A slow reader hurts only with an
answer that is larger than the kernel's buffers; that one is in tests/servers/gateway/protocol. It refuses to attack
anything but a platform that it started itself.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from tests.conftest import Platform, serving

INSTALL = "apt-get install -y slowhttptest"
MODEL = "squares"
ATTACKS = {
    "slow heads": ("-H", "-i", "1", "-u", "/health"),
    "slow bodies": ("-B", "-i", "1", "-s", "8192", "-f", "application/json", "-u", f"/predict/{MODEL}"),
    "slow readers": ("-X", "-i", "1", "-w", "1", "-y", "16", "-n", "3", "-z", "8", "-k", "3", "-u", "/status"),
}


@dataclass(frozen=True)
class Latencies:
    """What an honest client saw: seconds of every request that was answered rightly, and how the others ended."""

    seconds: list[float]
    failures: list[str]

    @property
    def p99_s(self) -> float:
        """The 99th percentile, in seconds."""
        return float(np.percentile(self.seconds, 99))

    def document(self) -> dict[str, Any]:
        """The result as JSON has it."""
        p50_s = float(np.percentile(self.seconds, 50))
        return {
            "requests": len(self.seconds) + len(self.failures),
            "failures": self.failures[:10],
            "p50_ms": round(p50_s * 1000, 2),
            "p99_ms": round(self.p99_s * 1000, 2),
        }


def installed() -> bool:
    """Whether slowhttptest is on this machine."""
    return shutil.which("slowhttptest") is not None


def honest(platform: Platform, until: "Iterable[object]", pause_s: float = 0.01) -> Latencies:
    """Ask one thing after another, each time `until` yields; every tenth time over a new connection."""
    seconds: list[float] = []
    failures: list[str] = []
    client = httpx.Client(base_url=platform.url, timeout=30)
    try:
        for number, _ in enumerate(until):
            if number % 10 == 9:
                client.close()
                client = httpx.Client(base_url=platform.url, timeout=30)
            begin_s = time.perf_counter()
            try:
                answer = client.post(f"/predict/{MODEL}", json={"input": number})
            except httpx.HTTPError as problem:
                failures.append(f"{type(problem).__name__}: {problem}")
                continue
            if answer.status_code == 200 and answer.json() == {"output": number**2}:
                seconds.append(time.perf_counter() - begin_s)
            else:
                failures.append(f"{answer.status_code}: {answer.text[:200]}")
            time.sleep(pause_s)
    finally:
        client.close()
    return Latencies(seconds, failures)


def for_seconds(duration_s: float) -> "Iterable[None]":
    """Yield until that time is over."""
    deadline = time.monotonic() + duration_s
    while time.monotonic() < deadline:
        yield


@dataclass(frozen=True)
class Attack:
    """What the attacker says of an attack: whether its own probe was always answered, and its last counts."""

    was_served: bool
    connected: int
    closed: int


def attacked(platform: Platform, attack: str, duration_s: int, connections: int) -> tuple[Latencies, Attack]:
    """The honest client during an attack, and the attack."""
    *options, path = ATTACKS[attack]
    sizes = ("-c", str(connections), "-r", str(connections), "-l", str(duration_s), "-p", "5")
    command = ["slowhttptest", *options, f"{platform.url}{path}", *sizes]
    with tempfile.TemporaryFile() as words:
        attacker = subprocess.Popen(command, stdout=words, stderr=words, stdin=subprocess.DEVNULL)
        try:
            latencies = honest(platform, _while_running(attacker, duration_s + 30))
        finally:
            attacker.kill()
            attacker.wait()
        words.seek(0)
        return latencies, _told(words.read().decode(errors="replace"))


def _told(words: str) -> Attack:
    """Read slowhttptest's screens; raises ValueError where it said something else, such as why it did not start."""
    plain = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", words)
    served = re.findall(r"service available:\s+(\w+)", plain)
    counts = {name: re.findall(rf"{name}:\s+(\d+)", plain) for name in ("connected", "closed")}
    if not served:
        raise ValueError(f"expected a status from slowhttptest, got:\n{plain}")
    return Attack("NO" not in served, int(counts["connected"][-1]), int(counts["closed"][-1]))


def _while_running(attacker: "subprocess.Popen[bytes]", limit_s: float) -> "Iterable[None]":
    for _ in for_seconds(limit_s):
        if attacker.poll() is not None:
            return
        yield


def main(argv: list[str] | None = None) -> int:
    """Run all attacks from the command line; the exit status is 1 where an honest request failed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.withstand.slow_clients", allow_abbrev=False, description=str(__doc__).split("\n")[0]
    )
    parser.add_argument("--duration-s", type=int, default=15, help="of each attack")
    parser.add_argument("--connections", type=int, default=300)
    options, rest = parser.parse_known_args(argv)
    if not installed():
        print(f"slowhttptest was not found: {INSTALL}", file=sys.stderr)
        return 2
    arguments = rest or [f"tests/services/strangers/{MODEL}.py:SquaresAPI"]
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), *arguments) as platform:
        before = honest(platform, for_seconds(options.duration_s))
        results["before"] = before.document()
        failed = bool(before.failures)
        for attack in ATTACKS:
            during, told = attacked(platform, attack, options.duration_s, options.connections)
            ratio = round(during.p99_s / before.p99_s, 2)
            results[attack] = {**during.document(), "p99_ratio": ratio, "attacker": asdict(told)}
            failed = failed or bool(during.failures)
    print(json.dumps(results, indent=2))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
