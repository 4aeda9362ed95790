import json
import os
import stat

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from traces import Trace, TraceError, load, save

TRACE = Trace("mine", [5, 1, 7], "a note")


@given(st.lists(st.integers(1, 2**31 - 1), min_size=1, max_size=50))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_saved_trace_loads_as_it_was(tmp_path, lengths):
    trace = Trace("t", lengths)
    save(trace, tmp_path / "t.parquet")
    assert load(tmp_path / "t.parquet") == trace


def test_the_file_says_what_it_is(tmp_path):
    save(TRACE, tmp_path / "t.parquet")
    about = json.loads(pq.read_schema(tmp_path / "t.parquet").metadata[b"flashcp"])
    assert about == {
        "format": "flashcp-trace",
        "version": 1,
        "name": "mine",
        "note": "a note",
        "documents": 3,
        "tokens": 13,
        "fingerprint": TRACE.fingerprint,
    }


def test_a_new_file_has_the_mode_that_any_new_file_gets(tmp_path):
    before = os.umask(0o027)
    try:
        save(TRACE, tmp_path / "t.parquet")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "t.parquet").stat().st_mode) == 0o640


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["pyarrow.parquet.write_table", "os.fsync"])
def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch, step, failure):
    path = tmp_path / "t.parquet"
    save(Trace("before", [3]), path)

    def fail(*_, **__):
        raise failure

    monkeypatch.setattr(step, fail)
    with pytest.raises(type(failure)):
        save(TRACE, path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.parquet"]
    assert load(path).lengths.tolist() == [3]


def test_a_wrong_place_is_named_before_anything_is_written(tmp_path):
    with pytest.raises(TraceError, match=r"t\.csv: .* end the name in \.parquet"):
        save(TRACE, tmp_path / "t.csv")
    with pytest.raises(TraceError, match=r"there is no folder .*none"):
        save(TRACE, tmp_path / "none" / "t.parquet")
    assert not list(tmp_path.iterdir())
