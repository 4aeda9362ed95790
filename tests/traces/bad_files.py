"""Writes files that are wrong in one way, and checks how they are refused."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.traces.trace_files import megatron_index, write
from traces import Trace, TraceError, load
from traces.readers.saved import KEY, description


def parquet(**columns):
    def make(path):
        pq.write_table(pa.table(columns), path)

    return make


def arrow(**columns):
    def make(path):
        table = pa.table(columns)
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table)

    return make


def npy(values):
    return lambda path: np.save(path, values, allow_pickle=True)


def text(content):
    return lambda path: path.write_text(content)


def data(content):
    return lambda path: path.write_bytes(content)


def cut(lengths, keep):
    """Write a good file and keep only a share of its bytes."""

    def make(path):
        write(path, lengths)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * keep)])

    return make


def npy_header(header, content=bytes(80), version=1):
    """Write a header of any text, right or wrong, and some content."""
    size = len(header).to_bytes(2 if version == 1 else 4, "little")
    return data(b"\x93NUMPY" + bytes([version, 0]) + size + header.encode() + content)


def npy_shape(shape):
    return npy_header(f"{{'descr': '<i8', 'fortran_order': False, 'shape': {shape}}}\n")


def saved(lengths, **changes):
    """Write lengths as `save` would, but with other metadata, and no checksums."""

    def make(path):
        about = description(Trace("t", lengths)) | changes
        table = pa.table({"length": lengths}).replace_schema_metadata({KEY: json.dumps(about)})
        pq.write_table(table, path)

    return make


def plan(path):
    table = pa.table({"length": [1, 2]})
    pq.write_table(table.replace_schema_metadata({"flashcp": '{"strategy": "ring"}'}), path)


def duplicate_columns(path):
    values = pa.array([1, 2])
    table = pa.Table.from_arrays([values, values, values], names=["length", "id", "length"])
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


MANY = list(range(1, 20_001))
IDX = megatron_index([5, 6, 7], [0, 1, 2, 3])


def check_refused(path, make, options, words):
    """Load a wrong file: one line that names the file and holds `words`."""
    make(path)
    with pytest.raises(TraceError) as caught:
        load(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < len(str(path)) + 400
    if not {"bytes_per_token", "format"} & set(options):
        assert path.name in message
    for word in words:
        assert word in message
