"""What a message of an exchange takes the host: python posting.py --packs 6.

A group that carries nothing (torch's `fake` backend) stands for the network, and heads of one
element for KV, so that what is left is the host's: slices, operations, handing them to torch. What
NCCL does with each is not in it. Every rank of every pack starts its exchange, forward, ten times;
the median counts. A line a CP degree: messages of one rank, the host's time of them, and by least
squares what a message takes and what does not depend on their number.
"""

import argparse
import time
from dataclasses import replace

import numpy as np
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

import flashcp
from costmodel import load_model, load_profile
from executor import prepare
from executor.joined import Call
from executor.record import Recorder
from executor.transport import Transport
from flashcp.copied import LANDING
from flashcp.prediction import Setting

REPETITIONS = 10


def posted_us(keys, kv, transport):
    """Return the host's time of starting one layer's exchange in one part, in microseconds."""
    begin = time.perf_counter()
    transport.start(next(keys.start(Call(None, 1.0, Recorder()), kv, packs=False)))
    return (time.perf_counter() - begin) * 1e6


def measured(plan, transport):
    """Return [messages, us] of every rank that sends or receives, in one part."""
    plan, found = replace(plan, bundled=False, head_chunks=1), []
    for rank in range(plan.cp):
        keys = prepare(plan, rank).schedule.keys
        kv = [torch.zeros(int(plan.rank_tokens[rank]), 1, 1) for _ in range(2)]
        times = [posted_us(keys, kv, transport) for _ in range(REPETITIONS)]
        found.append((2 * int(plan.pieces[rank]), np.median(times)))
    return [row for row in found if row[0]]


def main():
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packs", type=int, default=6)
    parser.add_argument("--model", default="llama3-8b")
    parser.add_argument("--traces", default="wlb-llm,code,papers")
    given = parser.parse_args()
    torch.set_num_threads(1)
    profile, model = load_profile("h100-sxm"), load_model(given.model)
    print("| CP | messages p50 | largest | us p50 | a message us | beside us |")
    print("|---" * 6 + "|")
    for cp in (8, 16, 32):
        dist.init_process_group("fake", rank=0, world_size=cp, store=FakeStore())
        transport, rows = Transport(), []
        setting = Setting(profile=profile, model=model, ranks_per_node=8)
        for trace in given.traces.split(","):
            packing = flashcp.pack(flashcp.load_trace(trace), 131072, packs=given.packs)
            for i in range(len(packing)):
                plan = flashcp.plan(packing.document_lengths(i), cp, "auto", setting)
                if plan.exchange in LANDING:
                    rows += measured(plan, transport)
        dist.destroy_process_group()
        messages, us = np.array(rows).T
        slope, beside = np.polyfit(messages, us, 1)
        print(
            f"| {cp} | {np.median(messages):.0f} | {messages.max():.0f} "
            f"| {np.median(us):.0f} | {slope:.1f} | {beside:.0f} |"
        )


if __name__ == "__main__":
    main()
