"""What a transport does on a GPU, with stand-ins for streams: what is passed on, and where."""

from contextlib import contextmanager

import torch
import torch.distributed as dist

from executor import transport
from executor.transfers import Messages, Start


class OnGpu(Messages):
    """Messages that claim to be a GPU's, of another one than the current one."""

    device = torch.device("cuda", 3)


def test_what_is_passed_on_is_prepared_on_one_side_stream_behind_the_compute_stream(monkeypatch):
    made, happened = [], []

    class Stream:
        def __init__(self, device, priority):
            made.append(device)
            assert priority < 0  # or it would wait for the kernels it is to run beside

        def wait_stream(self, other):
            happened.append(("waits for", other))

    @contextmanager
    def current(stream):
        happened.append("on the side stream")
        yield
        happened.append("back")

    def then():
        happened.append("passed on")
        return Messages([], [])

    for name, fake in {
        "Stream": Stream,
        "stream": current,
        "current_stream": lambda device: f"compute on {device}",
        "current_device": lambda: 0,
    }.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_rank", lambda _: 0)
    monkeypatch.setattr(dist, "get_world_size", lambda _: 2)
    transport._side_stream.cache_clear()
    for _ in range(2):
        transport.Transport().start(Start([OnGpu([], [])], then))
    transport._side_stream.cache_clear()
    assert made == [torch.device("cuda", 3)]
    once = [("waits for", "compute on cuda:3"), "on the side stream", "passed on", "back"]
    assert happened == 2 * once
