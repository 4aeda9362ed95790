"""Measures reading, describing and packing a Parquet trace of 100 million documents.

The file is generated (log-normal lengths, median 600, sigma 1.5) into a temporary folder, a million
rows a row group and once more as a single row group. Each measurement is a process of its own, so
that its peak resident memory is its own.

Run: python benchmarks/traces/hundred_million.py [--documents N]
"""

import argparse
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from traces import generate

CHUNK = 1_000_000
MEASURED = """
import resource, sys, time
start = time.perf_counter()
from traces import describe, load, pack
trace = load(sys.argv[1])
{work}
seconds = time.perf_counter() - start
print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)
"""
STEPS = {
    "load": "",
    "load and describe": "describe(trace)",
    "load and pack 1,000 packs (concat)": "pack(trace, 131072, packs=1000)",
    "load and pack all (concat, corpus order)": "pack(trace, 131072, seed=None)",
    "load and pack all (concat)": "pack(trace, 131072)",
    "load and pack all (best-fit)": "pack(trace, 131072, by='best-fit')",
    "load and pack all (balanced)": "pack(trace, 131072, by='balanced')",
}


def chunks(documents: int) -> Iterator[np.ndarray]:
    """Yield the lengths, a million at a time."""
    for index, start in enumerate(range(0, documents, CHUNK)):
        yield generate("lognormal", documents=min(CHUNK, documents - start), seed=index).lengths


def main() -> None:
    """Write the files, measure every step, print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=100_000_000)
    documents = parser.parse_args().documents
    print(f"{documents:,} documents; {platform.processor() or platform.machine()}, ", end="")
    print(f"Python {platform.python_version()}, numpy {np.__version__}, pyarrow {pa.__version__}")
    print("\n| step | seconds | peak resident GB |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        many = Path(folder) / "many.parquet"
        schema = pa.schema({"length": pa.int32()})
        with pq.ParquetWriter(many, schema) as writer:
            for lengths in chunks(documents):
                writer.write_table(pa.table({"length": lengths}, schema))
        for step, work in STEPS.items():
            measure(step, work, many)
        one = Path(folder) / "one.parquet"
        table = pa.table({"length": np.concatenate(list(chunks(documents)))}, schema)
        pq.write_table(table, one, row_group_size=documents)
        measure("load, a single row group", "", one)


def measure(step: str, work: str, path: Path) -> None:
    """Run one step in a process of its own and print its row."""
    time.sleep(1)
    out = subprocess.run(
        [sys.executable, "-c", MEASURED.format(work=work), str(path)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    seconds, peak_gb = map(float, out.split())
    print(f"| {step} | {seconds:.1f} | {peak_gb:.2f} |", flush=True)


if __name__ == "__main__":
    main()
