"""Damage anywhere in a file: refused, and never read as other lengths."""

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.traces.bad_files import (
    MANY,
)
from tests.traces.trace_files import csv_text, token_ids, write
from traces import Trace, TraceError, load, save


def test_the_first_wrong_row_is_named_even_far_into_a_file(tmp_path):
    lengths = np.arange(1, 300_001)
    lengths[[250_123, 260_000]] = 0
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"length": lengths}), path, row_group_size=1000)
    with pytest.raises(TraceError, match="row 250123: length 0"):
        load(path)
    path = tmp_path / "a.csv"
    path.write_text(csv_text(lengths))
    with pytest.raises(TraceError, match="line 250125: length 0"):
        load(path)


@pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.gz", "a.parquet", "a.npy", "a.idx"])
def test_a_file_cut_anywhere_is_refused(tmp_path, name):
    path = write(tmp_path / name, MANY[:300])
    content = path.read_bytes()
    for keep in range(0, len(content), max(1, len(content) // 60)):
        path.write_bytes(content[:keep])
        with pytest.raises(TraceError):
            load(path)


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_a_column_whose_name_is_damaged_is_refused(tmp_path, name):
    path = write(tmp_path / name, [5, 6])
    path.write_bytes(path.read_bytes().replace(b"length", b"\xffength"))
    with pytest.raises(TraceError, match="damaged or cut short"):
        load(path)


def test_gzip_with_a_wrong_checksum_is_refused(tmp_path):
    content = bytearray(gzip.compress(csv_text(MANY).encode()))
    content[-6] ^= 0xFF
    path = tmp_path / "a.csv.gz"
    path.write_bytes(content)
    with pytest.raises(TraceError, match="damaged"):
        load(path)


def test_lists_of_another_row_group_are_named_by_their_row_in_the_file(tmp_path):
    ids = token_ids([3] * 50 + [0] + [3] * 50)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"input_ids": ids}), path, row_group_size=20)
    with pytest.raises(TraceError, match="row 50: length 0"):
        load(path)


def test_a_saved_trace_damaged_anywhere_gives_no_other_lengths(tmp_path):
    path = tmp_path / "a.parquet"
    trace = Trace("t", MANY[::3])
    save(trace, path)
    content = path.read_bytes()
    refused = 0
    for at in range(4, len(content) - 8, len(content) // 40):
        stop = min(at + 200, len(content) - 4)
        path.write_bytes(content[:at] + b"\xff" * (stop - at) + content[stop:])
        try:
            assert load(path) == trace
        except TraceError:
            refused += 1
    assert refused > 30


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_token_ids_with_checksums_damaged_anywhere_give_no_other_lengths(tmp_path, version):
    path = tmp_path / "a.parquet"
    lengths = [1 + index % 50 for index in range(300)]
    pq.write_table(
        pa.table({"input_ids": token_ids(lengths)}),
        path,
        data_page_version=version,
        data_page_size=500,
        write_page_checksum=True,
    )
    assert load(path).lengths.tolist() == lengths
    content = path.read_bytes()
    end = pq.read_metadata(path).row_group(0).column(0).total_compressed_size
    refused = 0
    for at in range(4, end, 17):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
        try:
            assert load(path).lengths.tolist() == lengths
        except TraceError:
            refused += 1
    assert refused > 100
