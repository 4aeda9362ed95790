"""Starts a few gloo ranks for a test and brings back the first error any of them had."""

import multiprocessing
import os
import socket
import traceback

import torch
import torch.distributed as dist


def run_ranks(function, ranks, *arguments):
    """Call function(rank, *arguments) on each of some ranks in a gloo group."""
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [
        context.Process(target=_rank, args=(function, rank, ranks, port, queue, arguments))
        for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
        if process.is_alive():
            process.kill()
    errors = []
    while not queue.empty():
        errors.append(queue.get())
    assert not errors, "\n".join(errors)
    assert [process.exitcode for process in processes] == [0] * ranks


def _rank(function, rank, ranks, port, queue, arguments):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    try:
        dist.init_process_group("gloo", rank=rank, world_size=ranks)
        function(rank, *arguments)
        dist.barrier()
        dist.destroy_process_group()
    except Exception:  # noqa: BLE001 - whatever it is, the test has to show it
        queue.put(f"rank {rank}: {traceback.format_exc()}")
        os._exit(1)
