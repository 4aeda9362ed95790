"""Measuring: what is chosen, how repeats are summed up, and a whole calibration of two ranks."""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace

import pytest
import torch

from costmodel.calibrated import Conditions, base_for, calibrated_profile
from costmodel.calibrated_points import AttentionPoint, LaunchPoint, identity
from costmodel.collectives import COLLECTIVES
from costmodel.profile_file import write_profile
from executor import RunError
from executor.calibration import calibrate
from executor.calibration.attention import planned_calls
from executor.calibration.countdown import Countdown
from executor.calibration.request import EFFORTS, Effort, Request, load_request
from executor.calibration.selection import choose
from executor.calibration.store import Progress, Store, read_points, read_progress
from executor.calibration.timing import Stopwatch, summed_up
from executor.calibration.transfers import Exchange, planned, splits

CPU = torch.device("cpu")
TINY = Effort(
    attention_calls=8,
    head_dims=(32, 64),
    call_us=500.0,
    repeats=2,
    transfer_bytes=(2**12, 2**16, 2**14, 2**18),
    copy_bytes=(2**18,),
    attention_s=4.0,
    transfers_s=3.0,
)


def request(tmp_path, **changed):
    values = {"device": "cpu", "ranks": 2, "effort": TINY, "dtype": "float32"}
    return Request(**values | {"store": tmp_path / "p.json.partial"} | changed)


def point(us=5.0, spread=0.1):
    return AttentionPoint(
        q_lens=(3, 4),
        k_lens=(3, 9),
        q_heads=2,
        kv_heads=1,
        head_dim=8,
        direction="forward",
        us=us,
        spread=spread,
    )


@pytest.mark.parametrize("most_pairs", [1e6, 1e9])
def test_chosen_calls_are_distinct_and_cover_every_kind(most_pairs):
    calls = choose(40, 128, most_pairs, 1e12)
    assert len(set(calls)) == 40
    assert max(call.pairs for call in calls) <= 2.5 * most_pairs
    assert max(call.pairs for call in calls) >= most_pairs / 10
    kinds = {
        (call.q_lens != call.k_lens, len(set(call.q_lens)) > 1, len(call.q_lens) > 1)
        for call in calls
    }
    assert {(False, True, True), (True, True, True), (True, False, False)} <= kinds
    assert {call.q_heads // call.kv_heads for call in calls} >= {1, 4, 8}
    assert all(1 <= q <= k for c in calls for q, k in zip(c.q_lens, c.k_lens, strict=True))


def test_a_first_part_of_the_calls_is_what_a_smaller_calibration_measures():
    assert choose(40, 64, 1e7, 1e12)[:12] == choose(12, 64, 1e7, 1e12)


def test_too_little_memory_is_one_line_with_what_there_is(monkeypatch):
    monkeypatch.setattr("executor.calibration.attention.device_memory", lambda _: 2**21)
    with pytest.raises(RunError, match="1 MiB of cpu are too little memory to calibrate"):
        planned_calls(EFFORTS["cuda", True], 128, CPU, 1e9)


@pytest.mark.parametrize("ranks", [2, 3, 4, 8])
def test_uneven_parts_hold_zeros_and_none_is_busier_than_the_first(ranks):
    sends = splits(Exchange("all_to_all", "uneven", 2**20), ranks)
    assert sends[0].sum() * 2 == 2**20
    assert sends.sum(axis=0).max() * 2 <= 2**20
    assert (sends.diagonal() == 0).all()
    assert len(set(sends.sum(axis=1).tolist())) == ranks
    assert ranks == 2 or sends[ranks - 1].sum() == 0
    assert splits(Exchange("all_to_all", "empty", 0), ranks).sum() == 0
    assert (splits(Exchange("all_to_all", "even", 2 * ranks * 8), ranks) == 8).all()


def test_every_collective_is_planned_in_sizes_that_its_ranks_share_evenly():
    curves = planned((2**12, 2**20), 3)
    for exchange in (exchange for curve in curves for exchange in curve):
        assert exchange.parts == "uneven" or exchange.total_bytes % 6 == 0
    assert all(len({(e.collective, e.parts) for e in curve}) == 1 for curve in curves)
    assert {e.collective for curve in curves for e in curve} == set(COLLECTIVES)


def test_gpus_report_medians_and_cpus_their_fastest_and_both_the_spread():
    times = [10.0, 11.0, 12.0, 13.0, 99.0]
    gpu, cpu = (summed_up(times, torch.device(kind)) for kind in ("cuda", "cpu"))
    assert (gpu.us, cpu.us) == (12.0, 10.0)
    assert gpu.spread == cpu.spread == pytest.approx(2 / 12)
    together = [summed_up(times, torch.device(kind), alone=False) for kind in ("cuda", "cpu")]
    assert [sample.us for sample in together] == [12.0, 11.0]


def test_what_waits_for_others_is_repeated_until_its_lower_quartile_is_firm():
    watch = Stopwatch(CPU)
    assert not watch.settled([100.0, 100.0], alone=False)
    wide = [100.0, 150.0, 200.0, 250.0] * 3
    assert not watch.settled(wide, alone=False)
    assert watch.settled([*wide, *[100.0 + i / 10 for i in range(20)]], alone=False)


def test_runs_are_taken_in_turn_and_repeated_until_the_fastest_agree():
    watch, taken = Stopwatch(CPU), []
    watch.cpu_clock = False
    runs = [lambda: taken.append(0) or time.sleep(1e-3), lambda: taken.append(1)]
    watch.repeats(runs, 3, inner=2)
    assert taken == [0, 1] * 3
    sample = watch.kernel([lambda: time.sleep(2e-3)], 3)
    assert 2000 <= sample.us < 20000


def test_the_store_resumes_and_drops_a_line_cut_short(tmp_path):
    path, conditions = tmp_path / "s.partial", {"device": "x"}
    store = Store(path, conditions)
    store.add(point())
    assert store.fact("pairs", lambda: 7.0) == 7.0
    store.note(Progress(1, 2, 3.0, "attention"))
    store.add(LaunchPoint(us=1.0, spread=0.0))
    store.close()
    whole = path.read_text()
    path.write_text(whole[:-20])
    again = Store(path, conditions)
    assert again.points == [point()]
    assert again.resumed == 1
    assert again.holds(identity(point(us=6.0, spread=0.2)))
    assert again.fact("pairs", lambda: 8.0) == 7.0
    again.close()


def test_a_point_that_is_measured_again_replaces_the_first(tmp_path):
    path = tmp_path / "s.partial"
    store = Store(path, {"torch": "1"})
    for one in (point(us=5.0), LaunchPoint(us=1.0, spread=0.0), point(us=6.0)):
        store.add(one)
    store.close()
    assert store.points == [point(us=6.0), LaunchPoint(us=1.0, spread=0.0)]
    assert read_points(path)[1] == store.points


def test_the_time_left_falls_through_every_stage_and_counts_what_was_known():
    def so_far(launches, calls):
        copies = [LaunchPoint(us=1.0, spread=0.0)] * launches
        return [*copies, *([point()] * calls)]

    count = Countdown({"copies": 3.0, "attention": 20.0})
    count.planned |= {"copies": 4, "attention": 10}
    left = [count.progress("copies", so_far(n, 0), n / 2).left_s for n in range(5)]
    assert left == [23.0, 21.5, 21.0, 20.5, 20.0]
    assert count.progress("attention", so_far(4, 0), 2.0).left_s == 20.0
    under_way = count.progress("attention", so_far(4, 4), 10.0, underway=1.0)
    assert (under_way.done, under_way.planned) == (9, 14)
    assert under_way.left_s == pytest.approx(8.0)
    assert count.progress("attention", so_far(4, 6), 21.0).left_s == pytest.approx(1.0)
    assert count.progress("attention", so_far(4, 8), 30.0).left_s == 0.0
    resumed = Countdown({"copies": 3.0, "attention": 20.0})
    resumed.planned |= {"copies": 4, "attention": 10}
    assert resumed.progress("copies", so_far(4, 5), 0.0).left_s == pytest.approx(13.0)


def test_points_of_other_conditions_are_not_resumed(tmp_path):
    path = tmp_path / "s.partial"
    store = Store(path, {"torch": "1"})
    store.add(point())
    store.close()
    other = Store(path, {"torch": "2"})
    assert (other.points, other.resumed) == ([], 0)
    other.close()
    path.write_text("no JSON of ours\n")
    assert read_points(path) == (None, [])


def test_progress_is_read_back_and_a_request_survives_its_way(tmp_path):
    asked = request(tmp_path)
    asked.save(tmp_path)
    assert load_request(tmp_path) == replace(asked, store=asked.store.absolute())
    assert read_progress(asked.store) is None


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    asked = request(tmp_path_factory.mktemp("calibration"))
    told = []
    results = calibrate(asked, told.append)
    return asked, results, told


def test_two_ranks_measure_every_kind_of_point(calibrated):
    asked, results, told = calibrated
    points = read_points(asked.store)[1]
    kinds = {p.kind for p in points}
    host = {"launch", "queue", "message"}
    assert kinds == {"attention", "transfer", "copy", "matmul", "overlap", *host}
    transfers = {(p.collective, p.parts) for p in points if p.kind == "transfer"}
    assert {("all_to_all", "uneven"), ("all_to_all", "empty"), ("send_recv", "even")} <= transfers
    assert {p.direction for p in points if p.kind == "attention"} == {"forward", "backward"}
    assert results["resumed"] == 0
    conditions = Conditions(**results["conditions"])
    assert conditions.launch_mode.startswith("one process a rank on the CPU")
    assert told[-1].done <= told[-1].planned
    assert told[0].left_s >= told[-1].left_s >= 0
    # The exchanges are not silent until all are done; how often they are heard is the machine's.
    assert len([p for p in told if p.stage == "exchanges"]) > 2
    assert results["planned"] == told[-1].planned


def test_what_was_measured_makes_a_profile_that_can_be_written(calibrated, tmp_path):
    asked, results, _ = calibrated
    conditions = Conditions(**results["conditions"])
    points = read_points(asked.store)[1]
    profile = calibrated_profile("tiny", conditions, points, base_for(conditions.device))
    write_profile(profile, tmp_path / "tiny.json")
    assert profile.provenance.held_out
    assert profile.collective_us("all_gather", 2**14, 2).us > 0


def test_an_interrupted_calibration_measures_only_what_is_missing(calibrated, tmp_path):
    asked, results, _ = calibrated
    lines = asked.store.read_text().splitlines()
    kept = [line for line in lines if "progress" not in line]
    again = request(tmp_path)
    again.store.write_text("\n".join(kept[:-6]) + "\n")
    before = len(read_points(again.store)[1])
    began = time.monotonic()
    resumed = calibrate(again, lambda _: None)
    assert resumed["resumed"] == before
    assert resumed["conditions"] == results["conditions"]
    points = read_points(again.store)[1]
    assert [json.dumps(identity(p), sort_keys=True) for p in points[:before]] == [
        json.dumps(identity(p), sort_keys=True) for p in read_points(asked.store)[1][:before]
    ]
    assert len({json.dumps(identity(p), sort_keys=True) for p in points}) == len(points)
    assert time.monotonic() - began < 30


def test_exchanges_that_time_ran_out_for_are_measured_without_the_others(calibrated, tmp_path):
    asked, *_ = calibrated
    lines = asked.store.read_text().splitlines()
    largest = [row for row in lines if '"total_bytes": 262144' in row and "all_gather" in row]
    assert len(largest) == 1
    again = request(tmp_path)
    again.store.write_text("\n".join(row for row in lines if row not in largest) + "\n")
    calibrate(again, lambda _: None)
    added = [row for row in again.store.read_text().splitlines() if '"kind"' in row]
    before = len(read_points(asked.store)[1]) - 1
    assert len(added) == before + 1
    assert json.loads(added[-1])["total_bytes"] == 262144


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_one_gpu_measures_itself_and_takes_collectives_over(tmp_path):
    effort = replace(TINY, head_dims=(64, 128), call_us=2000.0, attention_s=20.0)
    asked = request(tmp_path, device="cuda", ranks=1, dtype="bfloat16", effort=effort)
    results = calibrate(asked, lambda _: None)
    conditions = Conditions(**results["conditions"])
    points = read_points(asked.store)[1]
    assert {p.kind for p in points} == {"attention", "copy", "launch", "queue", "matmul"}
    assert conditions.nccl is not None
    base = base_for(conditions.device)
    profile = calibrated_profile("gpu", conditions, points, base)
    assert profile.collectives.curves == base.collectives.curves


def test_a_group_that_does_not_form_is_one_line_in_time(tmp_path):
    code = (
        "import sys; from pathlib import Path;"
        "from tests.executor.test_calibration import request, calibrate;"
        "calibrate(request(Path(sys.argv[1]), timeout_s=2.0), print)"
    )
    group = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29987"}
    began = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | group,
    )
    assert "RunError: rank 0: the group of 2 did not form within 2 s" in result.stderr
    assert time.monotonic() - began < 40


def test_efforts_keep_to_their_promised_time():
    for (_, full), effort in EFFORTS.items():
        seconds = effort.attention_s + effort.transfers_s
        assert seconds <= (510 if full else 38)
        assert asdict(effort)["repeats"] >= 3
