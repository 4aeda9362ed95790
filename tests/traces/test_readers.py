import gzip
import json
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.traces.trace_files import csv_text, jsonl_text, megatron_index, token_ids, write
from traces import Trace, load, save
from traces.tokenizers import load_tokenizer

LENGTHS = [5, 1, 300, 17, 17, 2, 40, 8, 9, 1000, 3]
# A tokenizer of two words, which would put [S] before each text if it were let to.
TOKENIZER_JSON = json.dumps(
    {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "[S]", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {"[S]": {"id": "[S]", "ids": [2], "tokens": ["[S]"]}},
        },
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {"a": 0, "b": 1, "[S]": 2, "?": 3},
            "unk_token": "?",
        },
    }
)
FILES = [
    "a.csv", "a.csv.gz", "a.tsv", "a.jsonl", "a.ndjson", "a.jsonl.gz", "a.parquet", "ids.parquet",
    "a.feather", "stream.arrow", "ids.arrow", "a.npy", "a.idx",
]  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_lengths_written(tmp_path, name):
    trace = load(write(tmp_path / name, LENGTHS))
    assert trace.lengths.tolist() == LENGTHS
    assert trace.name == name
    assert trace.note == ""


@pytest.mark.parametrize("name", FILES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(lengths=st.lists(st.integers(1, 400), min_size=1, max_size=40))
def test_any_lengths_survive_a_round_trip(tmp_path, name, lengths):
    assert load(write(tmp_path / name, lengths)).lengths.tolist() == lengths


@pytest.mark.parametrize("name", ["a.parquet", "a.feather", "stream.arrow", "a.npy", "a.idx"])
def test_first_bytes_decide_whatever_the_extension_says(tmp_path, name):
    for misnamed in ("wrong.csv", "wrong.jsonl", "wrong.parquet", "wrong", "wrong.npy"):
        write(tmp_path / name, LENGTHS).rename(tmp_path / misnamed)
        assert load(tmp_path / misnamed).lengths.tolist() == LENGTHS


def test_the_format_can_be_given(tmp_path):
    path = tmp_path / "lengths.txt"
    path.write_text(csv_text(LENGTHS))
    assert load(path, format="csv").lengths.tolist() == LENGTHS
    path.write_text(csv_text(LENGTHS, "\t"))
    assert load(path, format="tsv").lengths.tolist() == LENGTHS


def test_json_lines_are_told_without_an_extension(tmp_path):
    path = tmp_path / "corpus"
    path.write_text(jsonl_text(LENGTHS))
    assert load(path).lengths.tolist() == LENGTHS


def test_csv_may_do_without_a_header(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("5\n6\n7\n")
    assert load(path).lengths.tolist() == [5, 6, 7]
    path.write_text("0,5\n1,6\n")
    assert load(path, column="f1").lengths.tolist() == [5, 6]


def test_csv_takes_whole_numbers_in_other_notations_and_quoted_text_with_line_breaks(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('text,length\n"two\nlines",1e3\n"x, y",12.0\n"z", 7\n')
    assert load(path).lengths.tolist() == [1000, 12, 7]


def test_csv_takes_what_pandas_and_numpy_write_of_whole_numbers(tmp_path):
    path = tmp_path / "a.csv"
    np.savetxt(path, np.array(LENGTHS), header="length", comments="")
    assert load(path).lengths.tolist() == LENGTHS
    pd.DataFrame({"length": np.array(LENGTHS, float)}).to_csv(path, index=False)
    assert load(path).lengths.tolist() == LENGTHS


def test_csv_with_a_byte_order_mark_and_windows_line_ends_is_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbflength,id\r\n5,0\r\n6,1\r\n")
    assert load(path).lengths.tolist() == [5, 6]


def test_csv_of_carriage_returns_is_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"id,length\r0,5\r1,6\r")
    assert load(path).lengths.tolist() == [5, 6]


@given(
    lengths=st.lists(st.integers(1, 2**31 - 1), min_size=1, max_size=30),
    style=st.sampled_from(["{}", "{}.0", " {} ", "{}e0", "00{}", "{}.000"]),
)
def test_csv_numbers_are_read_exactly_however_they_are_written(tmp_path_factory, lengths, style):
    path = tmp_path_factory.getbasetemp() / "style.csv"
    path.write_text("length\n" + "".join(style.format(length) + "\n" for length in lengths))
    assert load(path).lengths.tolist() == lengths


def test_csv_longer_than_a_block_is_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("traces.readers.delimited._BLOCK_BYTES", 1 << 16)
    lengths = np.arange(1, 30_001)
    path = tmp_path / "a.csv"
    path.write_text(csv_text(lengths))
    assert np.array_equal(load(path).lengths, lengths)


def test_json_lines_hold_lengths_or_token_ids_or_text(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"length": 5}\n\n{"length": 6.0}\n')
    assert load(path).lengths.tolist() == [5, 6]
    path.write_text('{"input_ids": [1, 2, 3], "text": "a b"}\n{"input_ids": [1], "text": "c"}\n')
    assert load(path).lengths.tolist() == [3, 1]
    assert load(path, column="text", tokenizer=str.split).lengths.tolist() == [2, 1]


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.arrow"])
def test_text_is_counted_by_the_tokenizer_or_estimated_and_said_to_be(tmp_path, name):
    path = tmp_path / name
    texts = ["four words in all", "é" * 10, "x"]
    table = pa.table({"text": texts})
    if name == "a.jsonl":
        path.write_text("".join(f'{{"text": "{text}"}}\n' for text in texts))
    elif name == "a.parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    counted = load(path, tokenizer=str.split)
    assert counted.lengths.tolist() == [4, 1, 1]
    assert counted.note == ""
    estimated = load(path, bytes_per_token=4)
    assert estimated.lengths.tolist() == [4, 5, 1]  # bytes, not characters; never below 1
    assert estimated.note == "lengths estimated at 4 bytes a token"


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", ">i4", "u1", "i8"])
def test_npy_of_every_numeric_type_is_taken(tmp_path, kind):
    np.save(tmp_path / "a.npy", np.array([1, 100], kind))
    assert load(tmp_path / "a.npy").lengths.tolist() == [1, 100]


def test_half_a_surrogate_pair_in_a_text_is_counted(tmp_path):
    pytest.importorskip("tokenizers", reason="the tokenizers package is optional")
    (tmp_path / "tokenizer.json").write_text(TOKENIZER_JSON)
    (tmp_path / "a.jsonl").write_text('{"text": "a \\ud800 b"}\n')
    encode = load_tokenizer(tmp_path / "tokenizer.json")
    assert load(tmp_path / "a.jsonl", tokenizer=encode).lengths.tolist() == [3]


def test_the_column_is_found_by_its_name_or_given(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": [1, 2], "Num_Tokens": [5, 6], "input_ids": [[1], [1]]}), path)
    assert load(path).lengths.tolist() == [5, 6]
    assert load(path, column="input_ids").lengths.tolist() == [1, 1]
    pq.write_table(pa.table({"anything": [5, 6]}), path)
    assert load(path).lengths.tolist() == [5, 6]


@pytest.mark.parametrize(
    "kind", [pa.int8(), pa.uint16(), pa.int32(), pa.uint64(), pa.float32(), pa.float64()]
)
def test_every_numeric_type_is_taken(tmp_path, kind):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"length": pa.array([1, 100], kind)}), path)
    assert load(path).lengths.tolist() == [1, 100]


@pytest.mark.parametrize(
    "ids",
    [
        pa.array([[1, 2], [3]], pa.large_list(pa.int64())),
        pa.array([[1, 2], [3, 4]], pa.list_(pa.int16(), 2)),
        pa.array([[9], [1, 2], [3, 4, 5]], pa.list_(pa.int32())).slice(1),
        pa.array([["a", None], ["b"]], pa.list_(pa.string())),
    ],
)
def test_every_list_type_is_taken_by_its_offsets(tmp_path, ids):
    expected = [len(value) for value in ids.to_pylist()]
    table = pa.table({"input_ids": ids, "id": list(range(len(ids)))})
    path = tmp_path / "a.arrow"
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table)
    assert load(path).lengths.tolist() == expected
    if not pa.types.is_fixed_size_list(ids.type):
        path = tmp_path / "a.parquet"
        pq.write_table(table, path)
        assert load(path).lengths.tolist() == expected


def test_lists_in_arrow_are_not_read_themselves(tmp_path):
    # The values' bytes are beyond the end of the file: only the offsets can have been read.
    lengths = [1000] * 50
    path = write(tmp_path / "ids.arrow", lengths)
    before = load(path)
    content = bytearray(path.read_bytes())
    values = np.arange(1000, dtype=np.int32).tobytes()
    while (at := content.find(values)) >= 0:
        content[at : at + len(values)] = b"\xff" * len(values)
    path.write_bytes(content)
    assert load(path) == before


def test_parquet_batches_are_sized_by_the_bytes_of_a_row(tmp_path, monkeypatch):
    monkeypatch.setattr("traces.readers.parquet._BATCH_BYTES", 1 << 12)
    lengths = [1 + index * 37 % 900 for index in range(200)]
    path = tmp_path / "a.parquet"
    table = pa.table({"input_ids": token_ids(lengths)})
    for compression in ("snappy", "none"):
        pq.write_table(table, path, compression=compression, row_group_size=64)
        assert load(path).lengths.tolist() == lengths


@given(
    documents=st.lists(
        st.lists(st.integers(0, 50), min_size=1, max_size=5).filter(sum), min_size=1, max_size=20
    ),
    code=st.integers(1, 8),
    modes=st.booleans(),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_megatron_documents_span_their_sequences(tmp_path, documents, code, modes):
    sequences = [length for document in documents for length in document]
    bounds = np.cumsum([0] + [len(document) for document in documents])
    path = tmp_path / "a.idx"
    path.write_bytes(megatron_index(sequences, bounds, code=code, modes=modes))
    assert load(path).lengths.tolist() == [sum(document) for document in documents]


def test_the_bundled_names_win_over_files_of_the_same_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.csv", [7]).rename(tmp_path / "papers")
    assert load("papers").documents > 1000
    assert load("./papers", format="csv").lengths.tolist() == [7]


def test_a_file_may_be_called_like_a_mixture(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.csv", [7]).rename(tmp_path / "code=1.csv")
    assert load("code=1.csv").lengths.tolist() == [7]


def test_gzip_is_told_by_its_first_bytes(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(gzip.compress(csv_text(LENGTHS).encode()))
    assert load(path).lengths.tolist() == LENGTHS


def test_a_saved_estimate_still_says_so_when_it_is_loaded(tmp_path):
    save(Trace("t", [1, 2], "lengths estimated at 4 bytes a token"), tmp_path / "a.parquet")
    assert load(tmp_path / "a.parquet").note == "lengths estimated at 4 bytes a token"


def test_a_missing_tokenizers_package_is_named_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ValueError, match="pip install tokenizers"):
        load_tokenizer("tokenizer.json")


def test_a_hugging_face_tokenizer_counts_without_special_tokens(tmp_path):
    pytest.importorskip("tokenizers", reason="the tokenizers package is optional")
    (tmp_path / "tokenizer.json").write_text(TOKENIZER_JSON)
    (tmp_path / "a.jsonl").write_text('{"text": "a b a"}\n{"text": "c"}\n')
    encode = load_tokenizer(tmp_path / "tokenizer.json")
    assert load(tmp_path / "a.jsonl", tokenizer=encode).lengths.tolist() == [3, 1]
    with pytest.raises(ValueError, match="no such file"):
        load_tokenizer(tmp_path / "none.json")
    with pytest.raises(ValueError, match=r"a\.jsonl is not a tokenizer.json"):
        load_tokenizer(tmp_path / "a.jsonl")
