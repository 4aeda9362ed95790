"""Executes plans: distributed attention over packed documents, forward and backward.

    handle = executor.prepare(plan, rank, device)         # once a plan
    q, k, v = (executor.shard(x, plan, rank) for x in ...)  # [tokens, heads, head_dim]
    out = executor.attention(q, k, v, handle, group)        # once a layer

This is the only room that imports torch. Names are loaded when first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from executor.attend import attention
    from executor.errors import RunError
    from executor.handle import Handle, prepare
    from executor.layout import global_indices, position_ids, shard, shift_labels, unshard
    from executor.memory import memory_bytes
    from executor.warming import warm_up

__all__ = [
    "Handle",
    "RunError",
    "attention",
    "global_indices",
    "memory_bytes",
    "position_ids",
    "prepare",
    "shard",
    "shift_labels",
    "unshard",
    "warm_up",
]

_HOMES = {
    "Handle": "executor.handle",
    "RunError": "executor.errors",
    "attention": "executor.attend",
    "global_indices": "executor.layout",
    "memory_bytes": "executor.memory",
    "position_ids": "executor.layout",
    "prepare": "executor.handle",
    "shard": "executor.layout",
    "shift_labels": "executor.layout",
    "unshard": "executor.layout",
    "warm_up": "executor.warming",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'executor' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
