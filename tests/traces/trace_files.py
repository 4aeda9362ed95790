"""Writes traces in every format, for the tests of reading and of bad input."""

import gzip
import json
import struct

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq

MAGIC = b"MMIDIDX\x00\x00"


def token_ids(lengths):
    return pa.array([list(range(length)) for length in lengths], pa.list_(pa.int32()))


def megatron_index(sequences, bounds, *, code=8, version=1, magic=MAGIC, modes=False):
    """Return an index's bytes: `sequences` lengths, `bounds` the document indices."""
    header = magic + struct.pack("<QBQQ", version, code, len(sequences), len(bounds))
    lengths = np.array(sequences, dtype="<i4").tobytes()
    pointers = (np.cumsum([0, *sequences])[:-1] * 2).astype("<i8").tobytes()
    indices = np.array(bounds, dtype="<i8").tobytes()
    return header + lengths + pointers + indices + (b"\0" * len(sequences) if modes else b"")


def csv_text(lengths, delimiter=",", header=True):
    lines = [f"{index}{delimiter}{length}" for index, length in enumerate(lengths)]
    return "\n".join(([f"id{delimiter}length"] if header else []) + lines) + "\n"


def jsonl_text(lengths, field="length"):
    return "".join(json.dumps({"id": i, field: n}) + "\n" for i, n in enumerate(lengths))


def write(path, lengths):
    """Write `lengths` to `path` in the format that its name says."""
    if path.suffix in {".parquet", ".feather", ".arrow"}:
        write_columns(path, lengths)
        return path
    if path.suffix == ".npy":
        np.save(path, np.array(lengths))
        return path
    texts = {
        ".csv": lambda: csv_text(lengths).encode(),
        ".tsv": lambda: csv_text(lengths, "\t").encode(),
        ".jsonl": lambda: jsonl_text(lengths).encode(),
        ".ndjson": lambda: jsonl_text(lengths).encode(),
        ".idx": lambda: megatron_index(lengths, range(len(lengths) + 1)),
    }
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(texts[path.suffixes[-2]]()))
    else:
        path.write_bytes(texts[path.suffix]())
    return path


def write_columns(path, lengths):
    """Write Parquet, an Arrow stream, or Feather; `ids.*` hold lists of token ids."""
    table = pa.table({"id": list(range(len(lengths))), "length": pa.array(lengths, pa.int64())})
    if path.stem == "ids":
        table = pa.table({"text": ["x"] * len(lengths), "input_ids": token_ids(lengths)})
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=7)
    elif path.suffix == ".feather":
        pyarrow.feather.write_feather(table, path)
    elif path.name == "ids.arrow":
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=5)
    else:
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=5)
