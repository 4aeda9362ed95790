"""Wrong CSV, TSV and JSON Lines: one line that names the file, the line and the value."""

import pytest

from tests.traces.bad_files import MANY, check_refused, cut, data, text
from tests.traces.trace_files import csv_text, jsonl_text

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
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_wrong_files_are_named_with_the_row_and_the_value(tmp_path, case):
    name, make, options, words = CASES[case]
    check_refused(tmp_path / name, make, options, words)
