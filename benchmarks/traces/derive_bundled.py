"""Derives the traces bundled in traces/data from our length measurements.

The measurements are Parquet files of an int32 `length` and a `source` column in corpus order. Of
a trace with more than KEPT documents, those with the smallest hashes of (0, row) are kept: a
reproducible uniform sample, still in corpus order.

Run: python benchmarks/traces/derive_bundled.py MEASUREMENTS_FOLDER
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from traces.hashing import shuffled_rows

KEPT = 192_000
NAMES = {
    "code": "code_files",
    "papers": "papers",
    "books": "books",
    "wiki": "wiki_en",
    "long-sft": "long_sft",
}


def main() -> None:
    """Write the five files into traces/data and print what was kept."""
    measurements = Path(sys.argv[1])
    data = Path(__file__).parents[2] / "traces" / "data"
    for name, measured in NAMES.items():
        table = pq.read_table(measurements / f"{measured}.parquet").replace_schema_metadata(None)
        kept = np.sort(shuffled_rows(table.num_rows, 0)[:KEPT])
        path = data / f"{name}.parquet"
        pq.write_table(
            table.take(kept),
            path,
            compression="zstd",
            compression_level=19,
            use_dictionary=["source"],
            column_encoding={"length": "BYTE_STREAM_SPLIT"},
        )
        print(f"{name}: {kept.size} of {table.num_rows} documents, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
