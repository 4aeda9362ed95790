"""Counts the operators of a run's copies and merges, and the bytes that these read and write.

Runs on torch's meta device: every operator is seen with its shapes, none does anything. One-pass
kernels are replaced by counters of what each of theirs reads and writes once.
"""

from collections import Counter
from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from executor import prepare
from executor.emulate import Emulation
from executor.record import Part, Recorder

META = torch.device("meta")
_MOVES_NOTHING = {
    "alias", "as_strided", "chunk", "detach", "empty", "empty_like", "expand", "narrow",
    "new_empty", "permute", "reshape", "select", "slice", "split", "t", "transpose", "unsqueeze",
    "view",
}  # fmt: skip


def size(tensor):
    return tensor.numel() * tensor.itemsize


class OnePass:
    """Stands for `executor.kernels.triton_rows`; counts into the piece that runs."""

    def __init__(self, run):
        self.run = run

    def sum_rows(self, target, rows, splits, sources, values, *, onto):
        assert all(x.dtype is values[0].dtype for x in values)
        width = target[0].numel()
        written = rows.numel() * width * target.itemsize
        read = sources.numel() * width * values[0].itemsize
        self.run.count(read + written * (2 if onto else 1))

    def copy_rows(self, target, rows, source, taken):
        assert rows.numel() == taken.numel()
        self.run.count(rows.numel() * 2 * target[0].numel() * target.itemsize)

    def merge(self, out, lse, part, part_lse):
        assert out.shape == part.shape
        self.run.count(2 * size(out) + size(part))
        return lse.new_empty(part_lse.shape)


class NoKernel:
    """An attention kernel that does nothing."""

    name = "none"

    def forward(self, q, k, v, segments, scale, *, out=None):
        found = torch.empty_like(q) if out is None else out
        return found, torch.empty(q.shape[1], q.shape[0], dtype=torch.float32, device=q.device)

    def backward(self, dout, qkv, result, segments, scale, *, into=None):
        return into or tuple(torch.empty_like(x) for x in qkv)


class Run(TorchDispatchMode):
    """Counts operators, and their bytes, by rank and piece of what is a copy or a merge."""

    def __init__(self):
        super().__init__()
        self.moved = Counter()
        self.calls = Counter()
        self.piece = None

    def count(self, moved):
        self.moved[self.piece] += moved
        self.calls[self.piece] += moved > 0

    @contextmanager
    def inside(self, piece):
        before, self.piece = self.piece, piece
        yield
        self.piece = before

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::")
        if self.piece is not None and name not in _MOVES_NOTHING:
            self.count(self._moved(name, args, kwargs or {}, found))
        return found

    @staticmethod
    def _moved(name, args, kwargs, found):
        if name == "index_select":
            return 2 * size(found)
        if name == "index_copy_":
            return 2 * size(args[-1])
        if name == "copy_":
            target, source = args[:2]
            same = target.storage_offset() == source.storage_offset()
            if same and target.untyped_storage()._cdata == source.untyped_storage()._cdata:
                return 0  # what `x[rows] += y` ends with
            return size(target) + size(source)
        listed = [y for x in args for y in (x if isinstance(x, list) else [x])]
        inputs = [x for x in (*listed, *kwargs.values()) if isinstance(x, torch.Tensor)]
        if not found.is_floating_point():
            return 0  # an index, made once a plan
        if name == "zero_":
            return size(inputs[0])
        if name == "new_zeros":
            return size(found)  # its tensor only lends dtype and device
        return size(found) + sum(map(size, inputs))


class Pieces(Recorder):
    """Tells a run which piece of which rank it is in."""

    def __init__(self, run, rank):
        self.run, self.rank = run, rank

    @contextmanager
    def piece(self, part, name):
        with self.run.inside((self.rank, name) if part in (Part.COPIES, Part.MERGE) else None):
            yield


def bytes_moved(plan, model, monkeypatch, *, one_pass=True):
    """Return the bytes that each piece of each rank reads and writes, forward and backward.

    By one-pass kernels or by torch's operators. Keys are (rank, name of the piece).
    """
    return play(plan, model, monkeypatch, one_pass=one_pass).moved


def play(plan, model, monkeypatch, *, one_pass=True, copies="in-place"):
    """Return a run forward and backward, with its counts."""
    run = Run()
    kernels = OnePass(run) if one_pass else None
    for module in ("rows", "merging"):
        monkeypatch.setattr(f"executor.{module}.fused", lambda *tensors: kernels)
    handles = [prepare(plan, rank, META, copies=copies) for rank in range(plan.cp)]
    records = [Pieces(run, rank) for rank in range(plan.cp)]
    emulation = Emulation(handles, NoKernel(), 1.0, records)

    def drawn(heads):
        shape = (heads, model.head_dim)
        dtype = getattr(torch, model.dtype)
        return [torch.empty((n, *shape), dtype=dtype, device=META) for n in plan.rank_tokens]

    with run:
        emulation.forward(drawn(model.q_heads), drawn(model.kv_heads), drawn(model.kv_heads))
        emulation.backward(drawn(model.q_heads))
    return run
