"""Points as a machine that follows the model would give, for tests of fits to them."""

from dataclasses import replace

import numpy as np

from costmodel.attention import CPU_KERNEL, AttentionModel
from costmodel.attention_calls import MeasuredCall
from costmodel.calibrated import Conditions
from costmodel.calibrated_points import (
    AttentionPoint,
    CopyPoint,
    LaunchPoint,
    MatmulPoint,
    MessagePoint,
    OverlapPoint,
    Point,
    QueuePoint,
    TransferPoint,
)
from costmodel.calibrated_prior import cpu_prior
from costmodel.collectives import COLLECTIVES
from costmodel.fit_attention import predict_us

HEADS = ((32, 8), (8, 8), (4, 1), (16, 2))


def conditions(**changed):
    values = {
        "device": "Test Processor, 2 cores",
        "device_type": "cpu",
        "units": 1,
        "driver": None,
        "cuda": None,
        "torch": "2.13.0",
        "nccl": None,
        "attention_kernel": CPU_KERNEL,
        "attention_kernel_version": "torch 2.13.0, float32",
        "launch_mode": "one process a rank on the CPU, 1 thread each",
        "ranks": 2,
        "ranks_per_node": 2,
        "date": "2026-11-24",
    }
    return Conditions(**values | changed)


def timed(calls, direction, model):
    """The calls, whatever has their segments and heads, with the model's times."""
    blank = [
        MeasuredCall(c.q_lens, c.k_lens, c.q_heads, c.kv_heads, c.head_dim, direction, 1.0)
        for c in calls
    ]
    times = predict_us(model, blank).tolist()
    return [replace(call, us=us) for call, us in zip(blank, times, strict=True)]


def attention_points(count, model: AttentionModel | None = None, seed=3, noise=0.02):
    model = model or cpu_prior(1)
    random = np.random.default_rng(seed)
    points = []
    for i in range(count):
        q_heads, kv_heads = HEADS[i % len(HEADS)]
        segments = int(random.integers(1, 8))
        q_lens = random.integers(20, 900, segments)
        if i % 3 == 0:
            q_lens[:] = q_lens[0]
        k_lens = q_lens + (random.integers(1, 2000, segments) if i % 3 == 1 else 0)
        for direction in ("forward", "backward"):
            point = AttentionPoint(
                q_lens=tuple(q_lens.tolist()),
                k_lens=tuple(k_lens.tolist()),
                q_heads=q_heads,
                kv_heads=kv_heads,
                head_dim=128,
                direction=direction,
                us=1.0,
                spread=0.01,
            )
            us = float(predict_us(model, [point.call()])[0]) * random.lognormal(0, noise)
            points.append(AttentionPoint(**vars(point) | {"us": us}))
    return points


def transfer_us(total_bytes):
    return 200.0 + total_bytes / 1500.0


def transfer_points(sizes=tuple(2**p for p in range(12, 25)), ranks=2, per_node=2):
    points = [
        TransferPoint(
            collective=name,
            parts="even",
            ranks=ranks,
            ranks_per_node=per_node,
            total_bytes=size,
            us=transfer_us(size),
            spread=0.02,
        )
        for size in sizes
        for name in COLLECTIVES
    ]
    uneven = {"parts": "uneven", "total_bytes": 2**20, "us": transfer_us(2**21)}
    return [*points, TransferPoint(**vars(points[2]) | uneven)]


def other_points() -> list[Point]:
    copies = [
        CopyPoint(
            layout=layout,
            moved_bytes=size,
            pieces=pieces,
            us=size / rate + 5.0 * pieces * (layout == "per shard"),
            spread=0.03,
        )
        for size in (2**20, 2**22, 2**24)
        for layout, pieces, rate in (
            ("contiguous", 1, 8000.0),
            ("gathered", 1, 6000.0),
            ("per shard", 4, 8000.0),
            ("per shard", 32, 8000.0),
        )
    ]
    overlap = OverlapPoint(
        collective="all_gather",
        ranks=2,
        attention_us=1000.0,
        exchange_us=1500.0,
        attention_beside_us=1250.0,
        exchange_beside_us=1800.0,
        spread=0.02,
    )
    return [
        *copies,
        LaunchPoint(us=2.5, spread=0.01),
        QueuePoint(us=7.5, spread=0.01),
        MessagePoint(us=6.25, spread=0.01),
        MatmulPoint(flops=2e9, us=1e4, spread=0.01),
        overlap,
    ]


def all_points(count=60) -> list[Point]:
    return [*attention_points(count), *transfer_points(), *other_points()]
