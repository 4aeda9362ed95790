"""How long exchanges are measured for: connecting the ranks does not count."""

import time

import pytest
import torch
import torch.distributed as dist

from executor.calibration import transfers
from executor.calibration.timing import Stopwatch
from executor.calibration.transfers import Exchange, Group


@pytest.fixture
def alone():
    """A group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield Group(1, 1, dist.group.WORLD, dist.group.WORLD)
    dist.destroy_process_group()


def test_ranks_that_take_long_to_connect_still_have_every_size_measured(monkeypatch, alone):
    connected = []

    def prepare(exchange, transport, device):
        def run():
            if not connected:
                time.sleep(1.0)
                connected.append(exchange)

        return run

    monkeypatch.setattr(transfers, "prepare", prepare)
    sizes = [Exchange("all_gather", "even", size) for size in (4096, 8192, 16384)]
    points = transfers.measure(sizes, alone, Stopwatch(torch.device("cpu")), 0.8)
    assert [point.total_bytes for point in points] == [4096, 8192, 16384]


def test_an_exchange_that_a_clock_does_not_notice_is_measured(monkeypatch, alone):
    watch = Stopwatch(torch.device("cpu"))
    monkeypatch.setattr(watch, "repeats", lambda runs, repeats, **_: [0.0] * repeats)
    nothing = [Exchange("all_to_all", "empty", 0)]
    assert transfers.measure(nothing, alone, watch, 0.1)[0].us > 0
