import struct
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.traces.trace_files import token_ids
from traces import TraceError, load
from traces.readers.parquet_levels import (
    UnsupportedColumnError,
    _decoded,
    group_lengths,
    list_levels,
)
from traces.readers.thrift_compact import ThriftError, read_struct

items = st.one_of(st.none(), st.integers(0, 5))
rows = st.lists(st.one_of(st.none(), st.lists(items, max_size=30)), min_size=1, max_size=40)


def lengths_from_levels(path, column="input_ids"):
    file = pq.ParquetFile(path)
    levels = list_levels(file, column)
    with path.open("rb") as stream:
        groups = [
            group_lengths(stream, file.metadata, group, levels)
            for group in range(file.metadata.num_row_groups)
        ]
    return np.concatenate(groups).tolist()


@given(
    rows=rows,
    codec=st.sampled_from(["none", "snappy", "gzip", "brotli", "zstd"]),
    version=st.sampled_from(["1.0", "2.0"]),
    page_bytes=st.sampled_from([1, 64, 1 << 20]),
    group_rows=st.integers(1, 50),
    large=st.booleans(),
    dictionary=st.booleans(),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_levels_give_the_lengths_however_the_pages_are_written(
    tmp_path, rows, codec, version, page_bytes, group_rows, large, dictionary
):
    kind = pa.large_list(pa.int32()) if large else pa.list_(pa.int32())
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"id": list(range(len(rows))), "input_ids": pa.array(rows, kind)}),
        path,
        compression=codec,
        data_page_version=version,
        data_page_size=page_bytes,
        write_batch_size=7,
        row_group_size=group_rows,
        use_dictionary=dictionary,
    )
    assert lengths_from_levels(path) == [-1 if row is None else len(row) for row in rows]


@pytest.mark.parametrize("list_nullable", [True, False])
@pytest.mark.parametrize("item_nullable", [True, False])
def test_what_may_be_missing_changes_the_levels_and_not_the_lengths(
    tmp_path, list_nullable, item_nullable
):
    item = pa.field("element", pa.int64(), nullable=item_nullable)
    schema = pa.schema([pa.field("input_ids", pa.list_(item), nullable=list_nullable)])
    ids = pa.array([[1, 2], [], [3], list(range(500))], schema.field(0).type)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_arrays([ids], schema=schema), path)
    assert lengths_from_levels(path) == [2, 0, 1, 500]


def test_lists_that_span_pages_are_put_together(tmp_path):
    path = tmp_path / "a.parquet"
    lengths = [100_000, 3, 250_000, 1]
    table = pa.table({"input_ids": token_ids(lengths)})
    pq.write_table(table, path, data_page_size=1 << 12)
    assert lengths_from_levels(path) == lengths
    assert load(path).lengths.tolist() == lengths


@pytest.mark.parametrize(
    ("column", "codec"),
    [
        (pa.array([[[1], [2]], [[3]]]), "snappy"),
        (pa.array([[{"a": 1}], [{"a": 2}, {"a": 3}]]), "snappy"),
        (pa.array([[1], [2, 3]]), "lz4"),
        (pa.array([1, 2]), "snappy"),
    ],
)
def test_what_is_rare_is_left_to_the_decoding_reader(tmp_path, column, codec):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"input_ids": column}), path, compression=codec)
    with pytest.raises(UnsupportedColumnError):
        lengths_from_levels(path)
    expected = [value if isinstance(value, int) else len(value) for value in column.to_pylist()]
    assert load(path).lengths.tolist() == expected


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("codec", ["none", "snappy"])
def test_damage_anywhere_is_one_line_or_harmless(tmp_path, version, codec):
    path = tmp_path / "a.parquet"
    lengths = [1 + index % 50 for index in range(60)]
    table = pa.table({"input_ids": token_ids(lengths)})
    pq.write_table(table, path, data_page_version=version, compression=codec, data_page_size=256)
    content = path.read_bytes()
    metadata = pq.read_metadata(path)
    end = metadata.row_group(0).column(0).total_compressed_size
    refused = 0
    for at in range(4, end, 3):
        for value in (0x00, 0xFF, content[at] ^ 0x08):
            path.write_bytes(content[:at] + bytes([value]) + content[at + 1 :])
            with suppress(TraceError):
                load(path)
                continue
            refused += 1
    assert refused > 50


@given(st.lists(st.integers(0, 3), max_size=200), st.integers(0, 300))
def test_levels_are_decoded_from_runs_and_from_bit_packed_groups(values, wanted):
    width = 2
    padded = values + [0] * (-len(values) % 8)
    bits = "".join(f"{value:02b}"[::-1] for value in padded)
    packed = bytes(int(bits[at : at + 8][::-1], 2) for at in range(0, len(bits), 8))
    groups = len(padded) // 8
    run = bytes([2 * 5, 3])  # five times the level 3
    head = bytes([groups << 1 | 1]) if groups else b""
    encoded = np.frombuffer(head + packed + run, dtype=np.uint8)
    assert _decoded(encoded, width, wanted).tolist() == (padded + [3] * 5)[:wanted]


def test_thrift_structures_are_read_whatever_their_fields_mean():
    # 1: 300 (i32), 2: true, 17: "ab", 18: [1, -1], 19: {1: 5 (byte)}, 20: double, 21: false
    content = bytes(
        [0x15, 0xD8, 0x04, 0x11, 0x08, 0x22, 2, 97, 98, 0x19, 0x25, 2, 1, 0x1C, 0x13, 5, 0, 0x17]
    )
    content += struct.pack("<d", 1.5) + bytes([0x12, 0, 99])
    fields, size = read_struct(content)
    assert size == len(content) - 1
    assert fields == {
        1: 300,
        2: True,
        17: b"ab",
        18: [1, -1],
        19: {1: 5},
        20: struct.pack("<d", 1.5),
        21: False,
    }
    for cut in range(size):
        with pytest.raises(ThriftError):
            read_struct(content[:cut])
