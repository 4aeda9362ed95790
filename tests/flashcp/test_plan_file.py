"""A plan file holds every plan as it was, is written whole or not at all, is checked on loading."""

import base64
import json
import os
import resource
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel import load_model
from flashcp.errors import PlanError
from flashcp.exchange import Exchange
from flashcp.plan_file import Header, PlanFile, load_plans, save_plans
from flashcp.strategies import STRATEGIES, shard
from tests.flashcp.packs import cp_degrees, lengths

HEADER = Header(
    strategy="flashcp",
    cp=4,
    context_tokens=2**30,
    model=load_model("llama3-8b").to_json(),
    hardware="h100-sxm",
    trace="test",
    trace_fingerprint="0" * 16,
    program_version="0",
)


def plan_file(packs, cp=4, strategy="flashcp", **changes):
    plans = [replace(shard(pack, cp, strategy), **changes) for pack in packs]
    counts = [plan.lengths.size for plan in plans]
    return PlanFile(
        header=replace(HEADER, cp=cp, strategy=strategy),
        plans=plans,
        rows=[np.arange(n, dtype=np.int64) + 7 for n in counts],
        offsets=[np.zeros(n, dtype=np.int64) for n in counts],
    )


def same(a: PlanFile, b: PlanFile) -> bool:
    return (
        a.header == b.header
        and [p.fingerprint for p in a.plans] == [p.fingerprint for p in b.plans]
        and [p.ranks_per_node for p in a.plans] == [p.ranks_per_node for p in b.plans]
        and [p.strategy for p in a.plans] == [p.strategy for p in b.plans]
        and all(np.array_equal(x, y) for x, y in zip(a.rows, b.rows, strict=True))
        and all(np.array_equal(x, y) for x, y in zip(a.offsets, b.offsets, strict=True))
    )


@given(
    packs=st.lists(lengths(6), min_size=1, max_size=4),
    cp=cp_degrees(8),
    strategy=st.sampled_from(sorted(STRATEGIES)),
    overlap=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_what_is_saved_is_what_is_loaded(tmp_path_factory, packs, cp, strategy, overlap):
    path = tmp_path_factory.mktemp("plan") / "plan.parquet"
    file = plan_file(packs, cp, strategy, overlap=overlap, exchange=Exchange.ALL_TO_ALL_NEEDED)
    save_plans(path, file)
    assert same(load_plans(path), file)


@given(packs=st.lists(lengths(6), min_size=1, max_size=4), per_node=st.sampled_from([1, 2, 4]))
@settings(max_examples=20, deadline=None)
def test_nodes_are_saved_and_loaded(tmp_path_factory, packs, per_node):
    path = tmp_path_factory.mktemp("plan") / "plan.parquet"
    file = plan_file(packs, exchange=Exchange.ALL_TO_ALL_TWO_LEVEL, ranks_per_node=per_node)
    save_plans(path, file)
    assert same(load_plans(path), file)


@pytest.mark.parametrize(
    ("version", "later"),
    [
        (1, ["ranks_per_node", "head_chunks", "bundled"]),
        (2, ["head_chunks", "bundled"]),
        (3, ["bundled"]),
    ],
)
def test_files_of_older_versions_are_read_and_saved_as_todays(tmp_path, version, later):
    file = plan_file([[4000, 96], [1, 2, 4093]])
    save_plans(tmp_path / "new", file)
    table = pq.read_table(tmp_path / "new")
    with pa.ipc.open_stream(base64.b64decode(table.schema.metadata[b"flashcp.packs"])) as reader:
        packs = reader.read_all().drop_columns(later)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, packs.schema) as writer:
        writer.write_table(packs)
    entries = {
        b"flashcp": header_with(tmp_path / "new", format_version=version),
        b"flashcp.packs": base64.b64encode(sink.getvalue()),
    }
    rewrite(tmp_path / "new", metadata=entries)
    old = load_plans(tmp_path / "new")
    assert old.header.format_version == version
    assert same(replace(old, header=file.header), file)
    save_plans(tmp_path / "again", old)
    assert same(load_plans(tmp_path / "again"), file)


@pytest.mark.parametrize(("chunks", "bundled"), [(1, True), (2, False), (4, True)])
def test_how_messages_are_made_is_saved_and_loaded(tmp_path, chunks, bundled):
    file = plan_file(
        [[4000, 96], [9, 8]],
        exchange=Exchange.ALL_TO_ALL_NEEDED, overlap=True, head_chunks=chunks, bundled=bundled,
    )  # fmt: skip
    save_plans(tmp_path / "p", file)
    found = load_plans(tmp_path / "p")
    assert same(found, file)
    assert [plan.head_chunks for plan in found.plans] == [chunks] * 2
    assert [plan.bundled for plan in found.plans] == [bundled] * 2


def test_more_packs_than_a_row_group(tmp_path):
    file = plan_file([[9, 3]] * 600)
    save_plans(tmp_path / "p", file)
    assert pq.ParquetFile(tmp_path / "p").metadata.num_row_groups == 3
    assert same(load_plans(tmp_path / "p"), file)


def test_columns_are_those_of_the_design(tmp_path):
    save_plans(tmp_path / "p", plan_file([[9, 3]]))
    schema = pq.read_schema(tmp_path / "p").remove_metadata()
    assert [(f.name, str(f.type)) for f in schema] == [
        ("pack", "int32"), ("document", "int32"), ("length", "int32"), ("rank", "int16"),
        ("start", "int32"), ("stop", "int32"),
    ]  # fmt: skip


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "plan.parquet"
    save_plans(path, plan_file([[4000, 96], [1, 2, 4093]]))
    return path


def rewrite(path, column=None, value=None, metadata=None):
    """Change one cell of the last row, or entries of the metadata."""
    table = pq.read_table(path)
    entries = {**table.schema.metadata, **(metadata or {})}
    if column:
        values = table[column].to_numpy().copy()
        values[-1] = value
        i = table.schema.get_field_index(column)
        table = table.set_column(i, table.schema.field(i), pa.array(values))
    kept = {key: entry for key, entry in entries.items() if entry is not None}
    pq.write_table(table.replace_schema_metadata(kept), path)


def header_with(path, **changes):
    header = json.loads(pq.read_schema(path).metadata[b"flashcp"])
    return json.dumps({**header, **changes}).encode()


def header(**changes):
    return lambda path: rewrite(path, metadata={b"flashcp": header_with(path, **changes)})


def metadata(key, value):
    return lambda path: rewrite(path, metadata={key: value})


def cell(column, value):
    return lambda path: rewrite(path, column, value)


def content(change):
    return lambda path: path.write_bytes(change(path.read_bytes()))


def without_rank(path):
    pq.write_table(pq.read_table(path).drop_columns("rank"), path)


CASES = {
    "another format version": (header(format_version=5), "version 5"),
    "no format version": (metadata(b"flashcp", b"{}"), "says no plan format version"),
    "a header of another type": (header(cp="8"), "'cp' is '8'"),
    "a header that is no JSON": (metadata(b"flashcp", b"{"), "not JSON"),
    "a header that is a list": (metadata(b"flashcp", b"[]"), "says no plan format version"),
    "no header": (metadata(b"flashcp", None), "lacks the metadata 'flashcp'"),
    "no packs": (metadata(b"flashcp.packs", None), "flashcp.packs"),
    "broken packs": (metadata(b"flashcp.packs", b"%%"), "flashcp.packs"),
    "broken documents": (metadata(b"flashcp.documents", b"AAAA"), "flashcp.documents"),
    "fewer ranks than rows say": (header(cp=3), "pack 0: shard"),
    "CP 0": (header(cp=0), "CP degree 0"),
    "a rank too far": (cell("rank", 9), "rank 9"),
    "a rank out of order": (cell("rank", 0), "out of rank order"),
    "an empty shard": (cell("stop", 0), "pack 1: shard"),
    "a shard past its document": (cell("stop", 5000), "document of 4093"),
    "a gap": (cell("start", 2559), "due"),
    "another length": (cell("length", 4094), "has length"),
    "a document too far": (cell("document", 3), "pack 1"),
    "a document below 0": (cell("document", -1), "document -1"),
    "a document beyond all memory": (cell("document", 2**31 - 1), "document 2147483647"),
    "a header nested too deep": (metadata(b"flashcp", b"[" * 200_000), "not JSON"),
    "a version that is true": (header(format_version=True), "version True"),
    "no model": (header(model={}), "no model shape"),
    "a model of another type": (header(model={"q_heads": "32"}), "no model shape"),
    "a window below 1": (header(context_tokens=-5), "'context_tokens' is -5"),
    "a window smaller than its pack": (header(context_tokens=4000), "window of 4000"),
    "an unknown strategy": (header(strategy="magic"), "'magic'"),
    "no rows": (lambda path: pq.write_table(pq.read_table(path).slice(0, 0), path), "no shards"),
    "a pack too far": (cell("pack", 2), "column pack"),
    "packs in disorder": (cell("pack", 0), "column pack"),
    "a missing column": (without_rank, "the columns"),
    "an empty file": (content(lambda _: b""), "no Parquet file"),
    "another kind of file": (content(lambda _: b"pack,rank\n"), "no Parquet file"),
    "a file cut short": (content(lambda whole: whole[:-20]), "no Parquet file"),
    "a file cut in the middle": (content(lambda whole: whole[:200]), "no Parquet file"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_broken_plan_file_is_refused_in_one_line(saved, case):
    damage, named = CASES[case]
    damage(saved)
    with pytest.raises(PlanError) as caught:
        load_plans(saved)
    assert named in str(caught.value)
    assert str(saved) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_plan_changed_after_it_was_written_is_refused(tmp_path):
    """Valid shards, but not those that were saved: the fingerprint tells."""
    save_plans(tmp_path / "a", plan_file([[4000, 96]], strategy="per-doc"))
    save_plans(tmp_path / "b", plan_file([[4000, 96]], strategy="per-seq"))
    entries = pq.read_schema(tmp_path / "a").metadata
    pq.write_table(pq.read_table(tmp_path / "b").replace_schema_metadata(entries), tmp_path / "c")
    with pytest.raises(PlanError, match="changed after it was written"):
        load_plans(tmp_path / "c")


def test_a_missing_plan_file_is_an_os_error_naming_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_plans(tmp_path / "nowhere.parquet")


def test_a_failed_save_leaves_the_old_file_and_no_other(saved, monkeypatch):
    before = saved.read_bytes()

    def fail(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        save_plans(saved, plan_file([[5]] * 3))
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_a_full_disk_is_one_line_and_exit_1_with_nothing_left_behind(tmp_path):
    def limit():  # a file size limit stands in for a full disk: writing fails half-way
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = subprocess.run(
        [sys.executable, "-m", "flashcp_cli", "plan", "papers", "--packs", "150", "--strategy",
         "per-doc", "--compare", "per-doc", "--processes", "1", "--out", str(tmp_path / "p")],
        capture_output=True, text=True, check=False, preexec_fn=limit,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("flashcp: ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("at", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_damaged_bytes_are_refused_or_harmless_but_never_crash(saved, at):
    whole = bytearray(saved.read_bytes())
    where = int(at * len(whole))
    before = load_plans(saved)
    for bit in range(8):
        damaged = bytearray(whole)
        damaged[where] ^= 1 << bit
        saved.write_bytes(damaged)
        try:
            loaded = load_plans(saved)
        except PlanError:
            continue
        assert [p.fingerprint for p in loaded.plans] == [p.fingerprint for p in before.plans]
