"""Measures attention kernel calls, forward and backward, on random inputs.

How large the calls are is found out first: one call of middling size tells the kernel's rate, and
the largest call is given the time that the effort allows. Each call's inputs are drawn anew and
several times over, as far as memory goes, and taken in turn.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from costmodel.calibrated_points import AttentionPoint
from executor.calibration.request import Effort
from executor.calibration.selection import Call, choose
from executor.calibration.timing import Stopwatch
from executor.device import device_memory
from executor.errors import RunError
from executor.kernels import Kernel, Segments, select

DTYPES = {"cpu": "float32", "cuda": "bfloat16"}
"""Precision that attention is measured in unless asked otherwise. In half precision torch's kernel
for CPUs works shards with a prefix out in float32 and others not: two kernels, one model."""
_PROBE_TOKENS = {"cpu": 512, "cuda": 8192}
_MOST_COPIES = {"cpu": 2, "cuda": 3}
_ROTATED_BYTES = {"cpu": 256e6, "cuda": 4e9}
_MEMORY_SHARE = 0.5
_CPU_BYTES = 4e9
_DRAWN = 2**18 + 1  # odd, so that heads of 2^n do not all see the same numbers


def planned_calls(effort: Effort, head_dim: int, device: torch.device, pairs: float) -> list[Call]:
    """Return the calls to measure of one head size.

    Args:
        effort: how many.
        head_dim: head size.
        device: whose memory bounds them.
        pairs: query-key pairs, over all heads, of the largest.

    Raises:
        RunError: not even small calls fit the device's free memory.
    """
    free = device_memory(device)
    most_bytes = _CPU_BYTES if free is None else free * _MEMORY_SHARE
    # Only GPUs' kernels start blocks for nothing; which kernel it will be does not matter here.
    lopsided = device.type == "cuda"
    calls = choose(effort.attention_calls, head_dim, pairs, most_bytes, lopsided=lopsided)
    if len(calls) < effort.attention_calls:
        raise RunError(
            f"{most_bytes / 2**20:.0f} MiB of {device} are too little memory to calibrate; "
            "free some, or end what else runs there"
        )
    return calls


def largest_pairs(effort: Effort, head_dim: int, watch: Stopwatch, dtype: torch.dtype) -> float:
    """Return the pairs of a forward call that takes as long as the effort allows."""
    tokens = _PROBE_TOKENS[watch.device.type]
    probe = Call((tokens,), (tokens,), 8, 8, head_dim)
    forward, _ = measure(probe, watch, 3, dtype)
    return float(f"{probe.pairs * effort.call_us / forward.us:.3g}")


def measure(
    call: Call, watch: Stopwatch, repeats: int, dtype: torch.dtype
) -> tuple[AttentionPoint, AttentionPoint]:
    """Return the measured forward and backward of a call."""
    device = watch.device
    kernel = select(device, dtype, call.head_dim, call.q_heads // call.kv_heads)
    segments = Segments.of(list(call.q_lens), list(call.k_lens), device)
    if segments is None:
        raise AssertionError("a call has segments")
    rotated = _ROTATED_BYTES[device.type] / call.tensor_bytes()
    inputs = [
        _Inputs(call, kernel, segments, device, dtype, seed)
        for seed in range(max(1, min(_MOST_COPIES[device.type], int(rotated))))
    ]
    forward = watch.kernel([x.forward for x in inputs], repeats)
    backward = watch.kernel([x.backward for x in inputs], repeats)
    return (
        _point(call, "forward", forward.us, forward.spread),
        _point(call, "backward", backward.us, backward.spread),
    )


def identities(call: Call) -> Iterator[dict[str, object]]:
    """Yield what tells a call's two points from others."""
    for direction in ("forward", "backward"):
        yield {
            "kind": AttentionPoint.kind,
            "q_lens": list(call.q_lens),
            "k_lens": list(call.k_lens),
            "q_heads": call.q_heads,
            "kv_heads": call.kv_heads,
            "head_dim": call.head_dim,
            "direction": direction,
        }


class _Inputs:
    """One set of inputs of a call, with its output."""

    def __init__(
        self,
        call: Call,
        kernel: Kernel,
        segments: Segments,
        device: torch.device,
        dtype: torch.dtype,
        seed: int,
    ) -> None:
        tokens, keys = sum(call.q_lens), sum(call.k_lens)
        drawn = torch.randn(_DRAWN, generator=torch.Generator().manual_seed(seed))
        pool = drawn.to(device, dtype)

        def random(*shape: int) -> Tensor:
            # Drawing every number would take longer than attending to them.
            count = int(np.prod(shape))
            return pool.repeat(-(-count // _DRAWN))[:count].view(shape)

        self.kernel, self.segments = kernel, segments
        self.scale = call.head_dim**-0.5
        self.q = random(tokens, call.q_heads, call.head_dim)
        kv = random(keys, 2, call.kv_heads, call.head_dim)  # as exchanges leave it
        self.k, self.v = kv[:, 0], kv[:, 1]
        self.dout = random(tokens, call.q_heads, call.head_dim)
        self.result = self.forward()

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.kernel.forward(self.q, self.k, self.v, self.segments, self.scale)

    def backward(self) -> tuple[Tensor, Tensor, Tensor]:
        qkv = (self.q, self.k, self.v)
        return self.kernel.backward(self.dout, qkv, self.result, self.segments, self.scale)


def _point(call: Call, direction: str, us: float, spread: float) -> AttentionPoint:
    return AttentionPoint(
        q_lens=call.q_lens,
        k_lens=call.k_lens,
        q_heads=call.q_heads,
        kv_heads=call.kv_heads,
        head_dim=call.head_dim,
        direction=direction,
        us=us,
        spread=spread,
    )
