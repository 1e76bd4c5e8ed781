"""Put load on ``xmr serve``; measure errors, latencies, and where the service spends its time.

Starts the service on a free port of this machine and loads it with ``wrk``, which must be installed
(Debian: apt install wrk). Every connection sends one search after another, of ten titles in turn.
wrk and the service share the cores, so latencies are upper bounds; the CPU time of a request
depends little on what else runs. Prints one JSON line for each number of connections.

    python docs/experiments/serve_load.py --index index/ --seconds 30 --connections 16 64
    python docs/experiments/serve_load.py --index index/ -- --timeout 5
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

TITLES = [
    "笔记本电脑", "透气跑步鞋", "户外露营帐篷", "真皮沙发", "红色碎花连衣裙 2件装", "复古胶片相机",
    "多肉植物", "蓝色牛仔裤 修身", "儿童书包 大容量", "不锈钢保温杯 500ml",
]  # fmt: skip
ENCODE = 'xmr_stage_seconds_total{stage="encode"}'


def main() -> None:
    """Start the service, load it, and print the measurements."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--index", required=True, help="index folder or address, as of xmr serve")
    parser.add_argument(
        "--seconds", type=int, default=30,
        help="seconds of load for each number of connections (default: 30)",
    )  # fmt: skip
    parser.add_argument(
        "--connections", type=int, nargs="+", default=[16, 64],
        help="numbers of connections, one measurement each (default: 16 64)",
    )  # fmt: skip
    parser.add_argument("serve", nargs="*", help="further options of xmr serve, after --")
    args = parser.parse_args()
    if shutil.which("wrk") is None:
        parser.error("wrk is not installed (Debian: apt install wrk)")
    command = [sys.executable, "-m", "bagformer_cli.cli.main", "serve", "--json", "--port", "0",
               "--index", args.index, *args.serve]  # fmt: skip
    with (
        tempfile.TemporaryDirectory() as folder,
        open(Path(folder) / "log", "w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            address = json.loads(_first_object(process.stdout))["address"]
            script = Path(folder) / "titles.lua"
            script.write_text(_lua(), encoding="utf-8")
            for connections in args.connections:
                measured = _load(address, process.pid, script, connections, args.seconds)
                print(json.dumps(measured), flush=True)
        finally:
            process.terminate()


def _first_object(lines: Iterable[str]) -> str:
    """Read the JSON object that ``xmr serve --json`` prints over several lines when it is ready."""
    text = ""
    for line in lines:
        text += line
        if line.rstrip().endswith("}"):
            return text
    raise SystemExit("xmr serve did not start")


def _lua() -> str:
    """Return the script for wrk: request the titles in turn, print two percentiles at the end."""
    paths = [f"/api/search?k=24&q={urllib.parse.quote(title)}" for title in TITLES]
    listed = ", ".join(f'"{path}"' for path in paths)
    return (
        f"local paths = {{{listed}}}\nlocal at = 0\n"
        "request = function()\n at = at % #paths + 1\n return wrk.format('GET', paths[at])\nend\n"
        "done = function(summary, latency)\n"  # wrk itself does not print the 95th percentile
        " for _, p in pairs({50, 95}) do\n"
        "  print(string.format('p%d %f', p, latency:percentile(p) / 1000))\n end\nend\n"
    )


def _load(address: str, pid: int, script: Path, connections: int, seconds: int) -> dict[str, Any]:
    """Load the service once; measure it by wrk, by /proc and by its own metrics.

    Args:
        address: The address of the service.
        pid: Its process.
        script: The script for wrk.
        connections: Connections that search at the same time.
        seconds: Seconds of load.

    Returns:
        Counts; latencies in milliseconds; ``share_in_search`` and ``share_in_model``: shares of
        the time during which a search, and its model, ran.
    """
    before, cpu, started = _metrics(address), _cpu_seconds(pid), time.perf_counter()
    wrk = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "20s",
           "-s", str(script), address]  # fmt: skip
    printed = subprocess.run(wrk, check=True, capture_output=True, text=True).stdout
    wall = time.perf_counter() - started
    used, after = _cpu_seconds(pid) - cpu, _metrics(address)
    searching = after["xmr_search_seconds_total"] - before["xmr_search_seconds_total"]
    searches = after["xmr_searches_total"] - before["xmr_searches_total"]
    batches = after["xmr_search_batches_total"] - before["xmr_search_batches_total"]
    errors = re.search(
        r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", printed
    )
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", printed)
    requests = int(re.findall(r"(\d+) requests in", printed)[0])
    return {
        "connections": connections,
        "requests": requests,
        "errors": sum(map(int, errors.groups())) if errors else 0,
        "not_2xx": int(refused[1]) if refused else 0,
        "requests_per_second": round(requests / wall, 1),
        "p50_ms": _percentile(printed, 50),
        "p95_ms": _percentile(printed, 95),
        "share_in_search": round(searching / wall, 3),
        "share_in_model": round((after[ENCODE] - before.get(ENCODE, 0.0)) / wall, 3),
        "queries_per_batch": round(searches / max(1, batches), 1),
        "cpu_ms_per_request": round(1000 * used / max(1, requests), 2),
        "search_ms_per_request": round(1000 * searching / max(1, searches), 2),
    }


def _percentile(printed: str, percent: int) -> float:
    found = re.search(rf"^p{percent} ([\d.]+)$", printed, re.MULTILINE)
    assert found is not None, printed
    return round(float(found[1]), 1)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _metrics(address: str) -> dict[str, float]:
    """Read the metrics, by name and labels."""
    with urllib.request.urlopen(address + "/metrics") as answer:
        lines = answer.read().decode().splitlines()
    pairs = (line.rpartition(" ") for line in lines if line and line[0] != "#")
    return {name: float(value) for name, _, value in pairs}


if __name__ == "__main__":
    main()
