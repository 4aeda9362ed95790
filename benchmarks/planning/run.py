"""How long `flashcp plan` takes on 1,000 packs, from a cold and a warm cache, and how much memory.

Prints the table of RESULTS.md. Memory is the sum over the process tree of proportional set sizes,
sampled every 20 ms; "cold" gives numba an empty cache, as right after installation.
Run: python benchmarks/planning/run.py [TRACE ...]
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STRATEGIES = ("ring", "zigzag", "per-seq", "per-doc", "flashcp", "auto")
COMMAND = ("--packs", "1000", "--cp", "8", "--context", "128k", "--pack-by", "truncate",
           "--model", "paper-h32", "--json")  # fmt: skip


def tree(pid):
    """Yield the process and its descendants."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            yield from tree(int(child))


def pss_bytes(pid):
    """Return the proportional set size of the process tree."""
    total = 0
    for member in list(tree(pid)):
        try:
            lines = Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue  # it has just ended
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def timed(words, cache):
    """Run flashcp; return seconds, peak bytes and standard output."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "flashcp_cli", *words], stdout=subprocess.PIPE, env=environment
    )
    peak = 0
    with tempfile.TemporaryFile() as _:
        os.set_blocking(process.stdout.fileno(), False)
        output = b""
        while process.poll() is None:
            peak = max(peak, pss_bytes(process.pid))
            output += process.stdout.read() or b""
            time.sleep(0.02)
        seconds = time.perf_counter() - began
        os.set_blocking(process.stdout.fileno(), True)
        output += process.stdout.read()
    if process.returncode:
        raise SystemExit(f"flashcp {' '.join(words)} ended with {process.returncode}")
    return seconds, peak, output


def main():
    """Print the tables."""
    traces = sys.argv[1:] or ["wlb-llm", "code", "papers", "wiki", "long-sft"]
    print(f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores,")
    print(f"Python {platform.python_version()}\n")
    with tempfile.TemporaryDirectory() as cache:
        helps = [timed(["plan", "-h"], cache)[0] for _ in range(5)]
        print(f"flashcp plan -h: {sorted(helps)[2]:.3f} s (median of 5)\n")
        print("| trace | packs | cache | wall s | peak MB |\n|---|---|---|---|---|")
        documents = {}
        for trace in traces:
            for state in ("cold", "warm") if trace == traces[0] else ("warm",):
                seconds, peak, output = timed(["plan", trace, *COMMAND], cache)
                documents[trace] = json.loads(output)
                packs = documents[trace]["packing"]["packs"]
                print(f"| {trace} | {packs} | {state} | {seconds:.1f} | {peak / 1e6:.0f} |")
    print("\nplanning, ms a pack, p50 / p99:\n\n| trace | " + " | ".join(STRATEGIES) + " |")
    print("|---" * (len(STRATEGIES) + 1) + "|")
    for trace, document in documents.items():
        cells = (document["strategies"][s]["planning_us"] for s in STRATEGIES)
        print(f"| {trace} | " + " | ".join(
            f"{c['p50'] / 1e3:.3f} / {c['p99'] / 1e3:.3f}" for c in cells) + " |")  # fmt: skip


if __name__ == "__main__":
    main()
