"""100,000 packs of 128k and six strategies at CP 8: wall-clock and processor time, and memory.

Memory is the sum over the process tree of proportional set sizes, sampled every half second.
Processor time counts all processes, so it is what an otherwise idle machine would need; wall-clock
time is what this one took with whatever else ran on it.
Run: python benchmarks/simulate/scale.py [PACKS] [PLAN_EFFORT]
"""

import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


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


def main():
    """Print one line of figures and the command's own table."""
    packs, effort = (sys.argv[1:] + ["100000", "0.1"][len(sys.argv) - 1 :])[:2]
    documents = str(45 * int(packs))  # of 3,900 tokens on average: enough for the packs
    words = ["simulate", "wlb-llm", "--documents", documents, "--packs", packs, "--cp", "8",
             "--context", "128k", "--plan-effort", effort]  # fmt: skip
    print(f"{len(os.sched_getaffinity(0))} cores, load average {os.getloadavg()[0]:.1f},", end=" ")
    print(f"Python {platform.python_version()}\nflashcp {' '.join(words)} --out rows.parquet")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.parquet"
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "flashcp_cli", *words, "--out", str(out)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        peak = 0
        while process.poll() is None:
            peak = max(peak, pss_bytes(process.pid))
            time.sleep(0.5)
        wall = time.perf_counter() - began
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(f"wall {wall:.0f} s, processor {used.ru_utime + used.ru_stime:.0f} s, ", end="")
        print(f"peak {peak / 1e6:.0f} MB, results {out.stat().st_size / 1e6:.0f} MB\n")
        print(process.stdout.read())


if __name__ == "__main__":
    main()
