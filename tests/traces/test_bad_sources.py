"""Traces that are not there, and options that a trace has no use for."""

import os

import pytest

from tests.traces.trace_files import write
from traces import Trace, TraceError, load, save


def test_a_folder_and_a_missing_file_are_told_apart(tmp_path):
    with pytest.raises(TraceError, match="is a folder"):
        load(tmp_path)
    with pytest.raises(TraceError, match=r"none\.parquet is not there"):
        load(tmp_path / "none.parquet")
    with pytest.raises(TraceError, match=r"no file 'none\.parquet'"):
        load("none.parquet")
    with pytest.raises(TraceError, match="no file ''"):  # which Path takes for the current folder
        load("")


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


def test_what_is_no_regular_file_is_called_what_it_is(tmp_path):
    with pytest.raises(TraceError, match="/dev/null is a device; save what it holds as a file"):
        load("/dev/null")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TraceError, match="pipe is a pipe; save what it holds as a file"):
        load(tmp_path / "pipe")
