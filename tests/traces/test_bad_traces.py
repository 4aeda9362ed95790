"""Wrong input: one line that names the file, the row, line or byte, and the value."""

import gzip
import json
import os
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.traces.trace_files import MAGIC, csv_text, jsonl_text, megatron_index, token_ids, write
from traces import Trace, TraceError, load, save
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

# File name, how it is written, options of load, and what the message must hold.
CASES = {
    "empty csv": ("a.csv", data(b""), {}, ["empty", "0 bytes"]),
    "empty parquet": ("a.parquet", data(b""), {}, ["empty", "0 bytes"]),
    "header alone": ("a.csv", text("id,length\n"), {}, ["no documents"]),
    "header alone, without a line end": ("a.csv", text("id,length"), {}, ["no documents"]),
    "csv of one long field": (
        "a.csv", text("x" * 200_000 + ",length\n1,5\n"), {}, ["line 1", "131072", "xxx…'"],
    ),
    "csv of one long line": (
        "a.csv", text("length," * 200_000 + "\n1,5\n"), {}, ["line 1", "1048576 bytes"],
    ),
    "zero after a CR": ("a.csv", text("id,length\r0,5\r1,0\r"), {}, ["line 3", "length 0"]),
    "digits in groups": ("a.csv", text("length\n5\n1_000\n"), {}, ["line 3", "'1_000'", "decimal"]),
    "hexadecimal": ("a.csv", text("length\n5\n0x10\n"), {}, ["line 3", "'0x10'", "decimal"]),
    "digits of another script": ("a.csv", text("length\n5\n٣\n"), {}, ["line 3", "'٣'"]),
    "plus sign": ("a.csv", text("length\n5\n+5\n"), {}, ["line 3", "'+5'"]),
    "hexadecimal alone": ("a.csv", text("0x10\n5\n"), {}, ["line 1", "'0x10'"]),
    "digits in groups alone": ("a.csv", text("1_000\n5\n"), {}, ["line 1", "'1_000'"]),
    "not whole by a hair": (
        "a.csv", text("length\n5\n2147483647.0000000001\n"), {}, ["line 3", "not a whole"],
    ),
    "below one": ("a.csv", text("length\n5\n0.5\n"), {}, ["line 3", "0.5", "not a whole"]),
    "huge exponent": ("a.csv", text("length\n5\n1e9999\n"), {}, ["line 3", "1e9999", "above"]),
    "csv not utf-8": ("a.csv", data(b"length\n5\n\xff\n"), {}, ["line 3", "'\ufffd'"]),
    "400 digits": ("a.csv", text(csv_text([10**400])), {}, ["line 2", f"length 1{'0' * 38}… is"]),
    "5000 digits": ("a.csv", text(f"length\n{'9' * 5000}\n"), {}, ["line 2", "99…", "above"]),
    "long word": ("a.csv", text(f"length\n{'w' * 400}\n"), {}, ["line 2", f"'{'w' * 39}…'"]),
    "blank first line": ("a.csv", text("\n1\n"), {}, ["line 1", "empty"]),
    "zero": ("a.csv", text("id,length\n0,5\n1,0\n"), {}, ["line 3", "length 0", "not positive"]),
    "negative": ("a.csv", text(csv_text([5, 6, -7])), {}, ["line 4", "length -7"]),
    "not a number": ("a.csv", text("id,length\n0,5\n1,many\n"), {}, ["line 3", "'many'"]),
    "nan": ("a.csv", text("id,length\n0,nan\n"), {}, ["line 2", "NaN"]),
    "infinite": ("a.csv", text("id,length\n0,inf\n"), {}, ["line 2", "inf", "above"]),
    "not whole": ("a.csv", text("id,length\n0,1.5\n"), {}, ["line 2", "1.5", "not a whole"]),
    "huge": ("a.csv", text(csv_text([2**31])), {}, ["line 2", "2147483648", "above 2147483647"]),
    "beyond 64 bits": ("a.csv", text(csv_text([10**30])), {}, ["line 2", str(10**30), "above"]),
    "missing cell": ("a.csv", text("id,length\n0,5\n1,\n"), {}, ["line 3", "missing"]),
    "ragged line": ("a.csv", text("id,length\n0,5\n1\n"), {}, ["line 3", "1 columns, not 2"]),
    "ragged line not utf-8": (
        "a.csv", data(b"id,length\n0,5\n\xff\n"), {}, ["line 3", "1 columns, not 2"],
    ),
    "blank line": (
        "a.csv", text("id,length\n0,5\n\n1,6\n"), {}, ["line 3", "missing", "remove the line"],
    ),
    "no such column": (
        "a.csv", text(csv_text([5])), {"column": "lenght"},
        ["'lenght'", "did you mean 'length'", "id, length"],
    ),
    "no column of lengths": ("a.csv", text("a,b\n1,2\n"), {}, ["--column", "a, b"]),
    "several columns of lengths": (
        "a.csv", text("length,num_tokens\n1,2\n"), {}, ["length, num_tokens", "--column"],
    ),
    "column twice": ("a.csv", text("length,id,length\n1,2,3\n"), {}, ["'length'", "2 times"]),
    "no header, several columns": ("a.csv", text("1,2\n3,4\n"), {}, ["f0, f1", "--column"]),
    "csv that is tab-separated": ("a.csv", text("id\tlength\n0\t5\n"), {}, ["line 2", r"'0\t5'"]),
    "truncated gzip": ("a.csv.gz", cut(MANY, 0.5), {}, ["cut short"]),
    "damaged gzip": ("a.csv.gz", data(b"\x1f\x8b\x08 no gzip at all"), {}, ["damaged"]),
    "zero in tsv": ("a.tsv", text(csv_text([5, 0], "\t")), {}, ["line 3", "length 0"]),
    "not json": ("a.jsonl", text('{"length": 5}\n{"length": 6\n'), {}, ["line 2", "not JSON"]),
    "json list": ("a.jsonl", text("[1, 2]\n"), {}, ["line 1", "'[1, 2]'", "not an object"]),
    "json text cut within a character": (
        "a.jsonl", text(f'"a{"é" * 100}"\n'), {}, ["line 1", "éé…'", "not an object"],
    ),
    "json of many levels": (
        "a.jsonl", text('{"length": 5}\n{"length": ' + "[" * 200_000 + "\n"), {},
        ["line 2", "nested too deep"],
    ),
    "json of 400 digits": ("a.jsonl", text(jsonl_text([10**400])), {}, ["line 1", "00… is above"]),
    "json of 5000 digits": (
        "a.jsonl", text(f'{{"length": {"9" * 5000}}}\n'), {}, ["line 1", "more digits", "99…"],
    ),
    "field missing": (
        "a.jsonl", text('{"length": 5}\n{"lengths": 6}\n'), {},
        ["line 2", "'length'", "did you mean 'lengths'"],
    ),
    "json null": ("a.jsonl", text('{"length": null}\n'), {}, ["line 1", "missing"]),
    "json true": ("a.jsonl", text('{"length": true}\n'), {}, ["line 1", "'true'"]),
    "json nan": ("a.jsonl", text('{"length": NaN}\n'), {}, ["line 1", "NaN"]),
    "json infinity": ("a.jsonl", text('{"length": Infinity}\n'), {}, ["line 1", "inf"]),
    "json fraction": ("a.jsonl", text(jsonl_text([5, 6.5])), {}, ["line 2", "6.5"]),
    "json huge": ("a.jsonl", text(jsonl_text([2**40])), {}, ["line 1", "1099511627776"]),
    "json number as text": ("a.jsonl", text('{"length": "12"}\n'), {}, ["line 1", "'12'"]),
    "json object": ("a.jsonl", text('{"length": {"a": 1}}\n'), {}, ["line 1", "a"]),
    "no token ids": (
        "a.jsonl", text(jsonl_text([[1], []], "input_ids")), {}, ["line 2", "length 0"],
    ),
    "text without tokenizer": (
        "a.jsonl", text('{"text": "abc"}\n'), {},
        ["line 1", "'text'", "--tokenizer", "--bytes-per-token"],
    ),
    "empty text": (
        "a.jsonl", text('{"text": "abc"}\n{"text": ""}\n'), {"bytes_per_token": 4},
        ["line 2", "length 0"],
    ),
    "bytes per token": ("a.jsonl", text('{"text": "a"}\n'), {"bytes_per_token": 0}, ["0", "100"]),
    "tokenizer and bytes": (
        "a.jsonl", text('{"text": "a"}\n'), {"bytes_per_token": 4, "tokenizer": str.split},
        ["not both"],
    ),
    "json not utf-8": ("a.jsonl", data(b'{"text": "\xff"}\n'), {}, ["line 1", "not JSON"]),
    "truncated jsonl.gz": ("a.jsonl.gz", cut(MANY, 0.5), {}, ["after line", "cut short"]),
    "jsonl of blank lines": ("a.jsonl", text("\n\n"), {}, ["no documents"]),
    "truncated parquet": ("a.parquet", cut(MANY, 0.5), {}, ["damaged or cut short"]),
    "parquet by name alone": (
        "a.parquet", text("length\n5\n"), {}, ["byte 0", "b'length", "--format"],
    ),
    "parquet without rows": ("a.parquet", parquet(length=pa.array([], pa.int32())), {}, ["no doc"]),
    "a plan": ("a.parquet", plan, {}, ["a flashcp plan, not a trace"]),
    "half nan in parquet": (
        "a.parquet", parquet(length=np.array([5, np.nan], "f2")), {}, ["row 1", "NaN"],
    ),
    "other rows than its metadata say": (
        "a.parquet", saved([5, 6, 7], documents=4), {},
        ["damaged", "say documents 4, its rows give 3", "anew", "remove the metadata 'flashcp'"],
    ),
    "other lengths than its metadata say": (
        "a.parquet", saved([5, 6, 7], fingerprint=Trace("t", [5, 7, 6]).fingerprint), {},
        ["damaged", "fingerprint", "anew"],
    ),
    "metadata without a fingerprint": (
        "a.parquet", saved([5], fingerprint=None), {}, ["say fingerprint None"],
    ),
    "a later version": ("a.parquet", saved([5], version=2), {}, ["version 2", "reads version 1"]),
    "null": ("a.parquet", parquet(length=[5, None, 7]), {}, ["row 1", "missing"]),
    "zero in parquet": ("a.parquet", parquet(length=[5, 6, 0]), {}, ["row 2", "length 0"]),
    "nan in parquet": ("a.parquet", parquet(length=[5.0, float("nan")]), {}, ["row 1", "NaN"]),
    "fraction in parquet": ("a.parquet", parquet(length=[5.0, 2.25]), {}, ["row 1", "2.25"]),
    "huge in parquet": ("a.parquet", parquet(length=[2**62]), {}, ["row 0", str(2**62)]),
    "huge unsigned": (
        "a.parquet", parquet(length=pa.array([2**64 - 1], pa.uint64())), {}, [str(2**64 - 1)],
    ),
    "strings": ("a.parquet", parquet(length=["5"]), {}, ["'length'", "text"]),
    "dates": ("a.parquet", parquet(length=pa.array([1], pa.date32())), {}, ["date32", "--column"]),
    "booleans": ("a.parquet", parquet(length=[True]), {}, ["bool", "--column"]),
    "null list": ("a.parquet", parquet(input_ids=[[1], None]), {}, ["row 1", "missing"]),
    "empty list": ("a.parquet", parquet(input_ids=[[1], [2], []]), {}, ["row 2", "length 0"]),
    "no column in parquet": (
        "a.parquet", parquet(a=[1], b=[2]), {"column": "c"}, ["'c'", "a, b"],
    ),
    "truncated arrow file": ("a.feather", cut(MANY, 0.6), {}, ["damaged or cut short"]),
    "truncated arrow stream": ("a.arrow", cut(MANY, 0.6), {}, ["cut short after row"]),
    "zero in arrow": ("a.arrow", arrow(length=[5, 0]), {}, ["row 1", "length 0"]),
    "column twice in arrow": ("a.arrow", duplicate_columns, {}, ["'length'", "2 times"]),
    "feather version 1": ("a.feather", data(b"FEA1" + b"\0" * 20), {}, ["Feather version 1"]),
    "truncated npy": ("a.npy", cut(MANY, 0.5), {}, ["cut short"]),
    "truncated npy header": ("a.npy", cut(MANY, 0.0005), {}, ["cut short"]),
    "two dimensions": ("a.npy", npy(np.ones((2, 3), int)), {}, ["2x3", "one-dimensional"]),
    "a single number": ("a.npy", npy(np.array(5)), {}, ["a single number"]),
    "npy header of brackets": ("a.npy", npy_header("(" * 200 + "\n"), {}, ["damaged header"]),
    "npy header of a great many brackets": (
        "a.npy", npy_header("(" * 9000 + "\n"), {}, ["damaged header"],
    ),
    "npy header of odd escapes": (
        "a.npy", npy_header(r"{'descr': '\q', 'fortran_order': 0, 'shape': (1,)}"), {},
        ["damaged header"],
    ),
    "npy header of another version": ("a.npy", npy_header("{}", version=9), {}, ["damaged header"]),
    "npy of a huge shape": ("a.npy", npy_shape((2**63 - 1,)), {}, [str(2**63 - 1), "cut short"]),
    "npy of two huge dimensions": ("a.npy", npy_shape((2**62, 4)), {}, [f"{2**62}x4", "one-dim"]),
    "npy of a shape of 400 digits": ("a.npy", npy_shape((10**400,)), {}, ["00… numbers", "cut"]),
    "npy of a negative shape": ("a.npy", npy_shape((-1,)), {}, ["-1 numbers", "damaged"]),
    "npy half infinite": (
        "a.npy", npy(np.array([1, np.inf], "f2")), {}, ["row 1", "inf", "above"],
    ),
    "npy single infinite": (
        "a.npy", npy(np.array([1, np.inf], "f4")), {}, ["row 1", "inf", "above"],
    ),
    "npy single 2**31": ("a.npy", npy(np.array([1, 2**31], "f4")), {}, ["row 1", "2147483648.0"]),
    "npy half nan": ("a.npy", npy(np.array([1, np.nan, 0], "f2")), {}, ["row 1", "NaN"]),
    "npy single fraction": ("a.npy", npy(np.array([1, 2.5], "f4")), {}, ["row 1", "2.5"]),
    "npy objects": ("a.npy", npy(np.array([1, "a"], dtype=object)), {}, ["type object"]),
    "npy strings": ("a.npy", npy(np.array(["a"])), {}, ["<U1"]),
    "npy zero": ("a.npy", npy(np.array([3, 0])), {}, ["row 1", "length 0"]),
    "npy without documents": ("a.npy", npy(np.array([], int)), {}, ["no documents"]),
    "npy column": ("a.npy", npy(np.array([3])), {"column": "length"}, ["no columns", "--column"]),
    "npz": ("a.npz", data(b"PK\x03\x04" + b"\0" * 20), {}, ["zip archive"]),
    "idx of no magic": ("a.idx", data(b"\0" * 40), {}, ["byte 0", "--format"]),
    "idx told by force": ("a.bin", data(b"x" * 40), {"format": "idx"}, ["byte 0", "MMIDIDX"]),
    "idx header cut": ("a.idx", data(IDX[:20]), {}, ["byte 20", "34"]),
    "idx cut": ("a.idx", data(IDX[:-1]), {}, [f"byte {len(IDX) - 1}", f"take {len(IDX)}"]),
    "idx with a tail": ("a.idx", data(IDX + b"12"), {}, [f"{len(IDX) + 2} bytes", str(len(IDX))]),
    "idx version": (
        "a.idx", data(megatron_index([5], [0, 1], version=2)), {}, ["byte 9", "version 2"],
    ),
    "idx type": (
        "a.idx", data(megatron_index([5], [0, 1], code=9)), {}, ["byte 17", "code 9", "1 to 8"],
    ),
    "idx legacy": ("a.idx", data(b"TNTIDX\0\0" + b"\0" * 40), {}, ["legacy TNTIDX"]),
    "idx without documents": ("a.idx", data(megatron_index([], [0])), {}, ["no documents"]),
    "idx counts beyond the file": (
        "a.idx", data(MAGIC + struct.pack("<QBQQ", 1, 8, 2**60, 2)), {}, ["cut short"],
    ),
    "idx not from 0": (
        "a.idx", data(megatron_index([5, 6], [1, 2])), {}, ["byte 58", "is 1, not 0"],
    ),
    "idx falling": (
        "a.idx", data(megatron_index([5, 6], [0, 2, 1, 2])), {}, ["byte 74", "1 follows 2"],
    ),
    "idx short of its sequences": (
        "a.idx", data(megatron_index([5, 6], [0, 1])), {}, ["is 1, not the 2 sequences"],
    ),
    "idx negative": (
        "a.idx", data(megatron_index([5, -6], [0, 1, 2])), {}, ["sequence 1", "-6"],
    ),
    "idx empty document": (
        "a.idx", data(megatron_index([5, 6], [0, 1, 1, 2])), {}, ["document 1", "length 0"],
    ),
    "idx huge document": (
        "a.idx", data(megatron_index([2**31 - 1] * 2, [0, 2])), {}, ["document 0", "4294967294"],
    ),
    "unknown format": (
        "a.csv", text(csv_text([5])), {"format": "parket"}, ["'parket'", "mean 'parquet'"],
    ),
    "format that it is not": ("a.csv", text(csv_text([5])), {"format": "parquet"}, ["damaged"]),
    "format that cannot be told": ("a.txt", text("hello\n"), {}, ["--format", "csv, tsv, jsonl"]),
    "zstandard": ("a.csv.zst", data(b"\x28\xb5\x2f\xfd1234"), {}, ["zstd", "decompress"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_wrong_files_are_named_with_the_row_and_the_value(tmp_path, case):
    name, make, options, words = CASES[case]
    path = tmp_path / name
    make(path)
    with pytest.raises(TraceError) as caught:
        load(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < len(str(path)) + 400
    if not {"bytes_per_token", "format"} & set(options):
        assert name in message
    for word in words:
        assert word in message


def test_a_folder_and_a_missing_file_are_told_apart(tmp_path):
    with pytest.raises(TraceError, match="is a folder"):
        load(tmp_path)
    with pytest.raises(TraceError, match=r"none\.parquet is not there"):
        load(tmp_path / "none.parquet")
    with pytest.raises(TraceError, match=r"no file 'none\.parquet'"):
        load("none.parquet")


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(TraceError, match=r"no file 'paper', .*; did you mean 'papers'"):
        load("paper")
    with pytest.raises(TraceError, match="did you mean 'lognormal'"):
        load("log-normal:median=600")
    with pytest.raises(TraceError, match="there are code, papers"):
        load("zzzzz")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path):
    path = write(tmp_path / "a.csv", [5])
    path.chmod(0)
    with pytest.raises(TraceError, match="Permission denied"):
        load(path)


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


def test_names_longer_than_a_file_system_takes_are_unknown_traces(tmp_path):
    for spec in ("x" * 300, "code=0.5," + "x" * 300 + "=0.5", "/" + "x" * 300 + ".csv"):
        with pytest.raises(TraceError, match=r"no file '/?xxx") as caught:
            load(spec)
        assert "x" * 80 not in str(caught.value)
    with pytest.raises(TraceError, match="File name too long") as caught:
        load(tmp_path / ("x" * 300))
    assert "x" * 80 not in str(caught.value)


def test_a_name_that_is_not_utf_8_is_refused(tmp_path):
    path = tmp_path / os.fsdecode(b"\xff.parquet")
    with pytest.raises(TraceError, match=r"\\udcff\.parquet' is not a name in UTF-8"):
        save(Trace("t", [5]), path)
    write(tmp_path / "a.parquet", [5]).rename(path)
    with pytest.raises(TraceError, match=r"\\udcff\.parquet' is not a name in UTF-8"):
        load(path)


def test_a_mixture_may_be_longer_than_a_file_name():
    spec = ",".join(f"fixed:{length}=1" for length in range(1000, 1040))
    assert len(spec) > 255
    assert set(load(spec, documents=100).lengths.tolist()) == set(range(1000, 1040))


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("papers", {"format": "csv"}, ["--format csv", "for a file", "papers is a bundled trace"]),
        ("papers", {"format": "parket"}, ["'parket'", "did you mean 'parquet'"]),
        ("papers", {"column": "length"}, ["--column length", "leave --column out"]),
        ("papers", {"tokenizer": str.split}, ["--tokenizer is for a file"]),
        ("papers", {"bytes_per_token": float("nan")}, ["--bytes-per-token nan is for a file"]),
        ("papers", {"documents": 5}, ["--documents 5", "for a generator", "bundled trace"]),
        ("fixed:8", {"column": "a"}, ["--column a", "fixed:8 is a generator"]),
        ("code=1,papers=1", {"documents": 5}, ["code=1,papers=1 is a mixture without one"]),
        ("code=1,papers=1", {"column": "a"}, ["--column a", "a mixture without one"]),
        ("code=1,a.csv=1", {"format": "csv"}, ["--format csv", "a mixture, not one file"]),
        ("a.csv", {"documents": 5}, ["--documents 5", "a.csv is a file"]),
        ("a.csv", {"bytes_per_token": 4}, ["a.csv holds lengths", "leave --bytes-per-token out"]),
        ("a.csv", {"tokenizer": str.split}, ["a.csv holds lengths", "leave --tokenizer out"]),
        ("a.csv", {"bytes_per_token": float("nan")}, ["nan", "between 0.1 and 100"]),
        ("a.csv", {"bytes_per_token": float("inf")}, ["inf", "between 0.1 and 100"]),
    ],
)
def test_an_option_that_a_trace_has_no_use_for_is_refused(
    tmp_path, monkeypatch, source, options, words
):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.csv", [5])
    with pytest.raises(TraceError) as caught:
        load(source, **options)
    for word in words:
        assert word in str(caught.value)


def test_a_mixture_takes_the_options_of_its_parts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").write_text('{"text": "12345678"}\n')
    write(tmp_path / "b.csv", [5])
    mixed = load("a.jsonl=1,b.csv=1,fixed:2=1", bytes_per_token=4, documents=3)
    assert sorted(mixed.lengths.tolist()) == [2, 2, 5]
    assert mixed.note == "lengths estimated at 4 bytes a token"
