"""From a pack's tensors to a rank's and back.

The global index of every local token is the coordinate that all else is taken by: input ids,
position ids and labels are sharded with the same indices, so a layer sees the same tokens whatever
the plan. Labels are shifted before sharding, because a token's successor may lie on another rank.

Shapes: T tokens of the pack, t tokens of the rank.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from executor.errors import RunError
from executor.placement import Placement, place, ranges
from executor.rows import on_device
from flashcp.plans import Plan

IGNORED_LABEL = -100


@lru_cache(maxsize=16)
def placement(plan: Plan) -> Placement:
    """Return the local orders of `plan`, computed once for the plans in use."""
    return place(plan)


def global_indices(plan: Plan, rank: int) -> Tensor:
    """Return the index within the pack of each of `rank`'s tokens, int64 [t].

    Raises:
        RunError: the plan has no such rank.
    """
    return torch.from_numpy(_global(plan, rank))


def position_ids(plan: Plan, rank: int) -> Tensor:
    """Return the position within its document of each of `rank`'s tokens, int64 [t].

    Raises:
        RunError: the plan has no such rank.
    """
    _check_rank(plan, rank)
    placed = placement(plan)
    mine = placed.shards(rank)
    return torch.from_numpy(ranges(placed.start[mine], placed.size[mine]))


def shard(tensor: Tensor, plan: Plan, rank: int) -> Tensor:
    """Return `rank`'s tokens of a pack's tensor.

    Args:
        tensor: [T, ...], in the order of the pack's documents.
        plan: the plan.
        rank: the rank, 0 to cp - 1.

    Returns:
        [t, ...] in the rank's local order, differentiable.

    Raises:
        RunError: the tensor is of another number of tokens than the plan.
    """
    if tensor.shape[0] != plan.context_tokens:
        raise RunError(
            f"a tensor of {tensor.shape[0]} tokens is not of this plan's {plan.context_tokens}"
        )
    return tensor.index_select(0, on_device(global_indices(plan, rank).numpy(), tensor.device))


def unshard(shards: "list[Tensor]", plan: Plan) -> Tensor:
    """Put the tokens of all ranks back into the order of the pack; the inverse of `shard`.

    Args:
        shards: of each rank, [t, ...].
        plan: the plan.

    Returns:
        [T, ...].

    Raises:
        RunError: a rank's tensor is missing, or of another number of tokens than the plan gives it.
    """
    if len(shards) != plan.cp:
        raise RunError(f"{len(shards)} tensors are not of this plan's {plan.cp} ranks")
    for rank, (local, tokens) in enumerate(zip(shards, plan.rank_tokens, strict=True)):
        if local.shape[0] != tokens:
            raise RunError(f"rank {rank}'s tensor has {local.shape[0]} tokens, its plan {tokens}")
    together = torch.cat(shards)
    indices = torch.from_numpy(np.concatenate([_global(plan, rank) for rank in range(plan.cp)]))
    result = torch.empty_like(together)
    result[indices.to(together.device)] = together
    return result


def shift_labels(input_ids: Tensor, plan: Plan, *, ignored: int = IGNORED_LABEL) -> Tensor:
    """Return each token's label, the next token of its document; shard them afterwards.

    Args:
        input_ids: [T], in the order of the pack's documents.
        plan: the plan.
        ignored: the label of each document's last token, which has no successor.

    Returns:
        [T].
    """
    labels = torch.full_like(input_ids, ignored)
    labels[:-1] = input_ids[1:]
    last = np.cumsum(plan.lengths, dtype=np.int64) - 1
    labels[torch.from_numpy(last).to(labels.device)] = ignored
    return labels


def _global(plan: Plan, rank: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    _check_rank(plan, rank)
    placed = placement(plan)
    mine = placed.shards(rank)
    first = np.concatenate([[0], np.cumsum(plan.lengths, dtype=np.int64)])
    return ranges(first[placed.document[mine]] + placed.start[mine], placed.size[mine])


def _check_rank(plan: Plan, rank: int) -> None:
    if not 0 <= rank < plan.cp:
        raise RunError(f"rank {rank} is not in 0..{plan.cp - 1}, the ranks of this plan")
