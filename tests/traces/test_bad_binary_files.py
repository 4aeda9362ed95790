"""Wrong Parquet, Arrow, npy and Megatron-LM: one line with the file, the row or byte, the value."""

import struct

import numpy as np
import pyarrow as pa
import pytest

from tests.traces.bad_files import (
    IDX,
    MANY,
    arrow,
    check_refused,
    cut,
    data,
    duplicate_columns,
    npy,
    npy_header,
    npy_shape,
    parquet,
    plan,
    saved,
    text,
)
from tests.traces.trace_files import MAGIC, csv_text, megatron_index
from traces import Trace

# File name, how it is written, options of load, and what the message must hold.
CASES = {
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
    check_refused(tmp_path / name, make, options, words)
