"""Measures reading document lengths from a column of token ids: levels, decoding, mapped Arrow.

20,000 documents of 1 to 8,000 token ids (80 million in all) are written as Parquet with version 1
pages (snappy), version 2 pages (zstd) and as uncompressed Arrow, then each is read three times;
the fastest counts. "decoded" is the same Parquet file read by decoding its values, as it is where
levels are stored in a rare way.

Run: python benchmarks/traces/list_columns.py
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from traces import load
from traces.hashing import uniforms
from traces.readers import ReadOptions, parquet


def main() -> None:
    """Print a Markdown table."""
    lengths = (uniforms(0, 20_000) * 8000 + 1).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    ids = (uniforms(1, int(offsets[-1])) * 128_000).astype(np.int32)
    table = pa.table({"input_ids": pa.ListArray.from_arrays(pa.array(offsets), pa.array(ids))})
    print(f"{lengths.size:,} documents, {ids.size:,} token ids\n")
    print("| file | MB | read | seconds |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        v1, v2, arrow = (Path(folder) / name for name in ("v1.parquet", "v2.parquet", "a.arrow"))
        pq.write_table(table, v1)
        pq.write_table(table, v2, data_page_version="2.0", compression="zstd")
        with pa.ipc.new_file(arrow, table.schema) as writer:
            writer.write_table(table)
        for path in (v1, v2, arrow):
            report(path, "levels" if path is not arrow else "offsets, mapped", lengths)
        for path in (v1, v2):
            report(path, "decoded", lengths)


def report(path: Path, how: str, lengths: np.ndarray) -> None:
    """Print the fastest of three reads, each checked."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        if how == "decoded":
            with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
                options = ReadOptions(format="parquet")
                parts = parquet._from_values(path, file, "input_ids", options)
                found = np.concatenate(list(parts))
        else:
            found = load(path).lengths
        seconds.append(time.perf_counter() - start)
        if not np.array_equal(found, lengths):
            raise AssertionError(f"{path} was read wrongly")
    print(f"| {path.name} | {path.stat().st_size / 1e6:.0f} | {how} | {min(seconds):.3f} |")


if __name__ == "__main__":
    main()
