"""From attention to a training step: linear layers, recomputation, tensor and data parallelism.

    layer = attention + linear FLOPs at the profile's rate + tensor-parallel exchange
            + what recomputation runs again
    pack  = layers · layer + output head
    step  = the slowest of the packs that the replicas hold

With tensor parallelism of degree t and sequence parallelism, each layer all-gathers and
reduce-scatters its t ranks' tokens twice forward and twice backward; none of it is hidden. Not
counted, because they are the same for every strategy and are usually hidden: exchange of gradients
and parameters between replicas, the optimiser, norms and other element-wise kernels, pipeline
bubbles. So a real step is longer, and its speed-up smaller, than what is said here.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from costmodel.model_shape import ModelShape
from costmodel.profile import Profile

Recompute = Literal["none", "mlp", "full"]
RECOMPUTE: tuple[Recompute, ...] = get_args(Recompute)


@dataclass(frozen=True, kw_only=True)
class StepModel:
    """How a model is trained around its attention.

    Attributes:
        recompute: what backward runs again: "none", "mlp" (all but attention) or "full" layers.
        replicas: data-parallel replicas; a step waits for the slowest of their packs.
        state_sharding: "full" spreads weights, gradients and optimiser state over all ranks,
            "optimizer" only the last.
    """

    recompute: Recompute = "full"
    replicas: int = 1
    state_sharding: Literal["full", "optimizer"] = "full"


def pack_times_us(
    rank_tokens: NDArray[np.float64],
    total_us: NDArray[np.float64],
    forward_us: NDArray[np.float64],
    model: ModelShape,
    profile: Profile,
    tensor_parallel: int,
    recompute: Recompute,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the time of one layer and of the whole model, forward + backward, of each pack.

    Args:
        rank_tokens: tokens on the fullest rank of each pack, [packs].
        total_us: attention of one layer, forward + backward, [packs].
        forward_us: of which forward, [packs].
        model: the whole model's shape; with linear layers.
        profile: hardware.
        tensor_parallel: ranks that share each layer.
        recompute: what backward runs again.

    Returns:
        Microseconds [packs] of a layer, and of all layers with the output head.

    Raises:
        ProfileError: the shape describes attention only.
    """
    again = {"none": 0.0, "mlp": _ffn_flops(model), "full": model.linear_flops_per_token() / 3}
    flops = model.linear_flops_per_token() + again[recompute]
    flop_us = profile.linear_us(1e12).us / 1e12 / tensor_parallel
    layer = total_us + rank_tokens * flops * flop_us
    passes = 1.5 if recompute == "full" else 1.0  # the forward half runs twice
    if recompute == "full":
        layer = layer + forward_us
    if tensor_parallel > 1:
        layer = layer + passes * _tensor_parallel_us(rank_tokens, model, profile, tensor_parallel)
    head = rank_tokens * 6.0 * model.hidden_size * model.vocab_size * flop_us
    return layer, model.layers * layer + head


def slowest_of_steps(pack_us: NDArray[np.float64], replicas: int) -> NDArray[np.float64]:
    """Return the time of each step: the slowest of `replicas` packs that follow one another.

    Packs that fill no step are left out.
    """
    steps = pack_us.size // replicas
    slowest: NDArray[np.float64] = pack_us[: steps * replicas].reshape(steps, replicas).max(axis=1)
    return slowest


def _ffn_flops(model: ModelShape) -> float:
    matrices = 3 if model.ffn_gated else 2
    return 2.0 * matrices * model.hidden_size * model.ffn_size * model.ffn_experts


def _tensor_parallel_us(
    rank_tokens: NDArray[np.float64], model: ModelShape, profile: Profile, degree: int
) -> NDArray[np.float64]:
    sizes = rank_tokens * model.hidden_size * model.dtype_bytes
    return sum(
        (
            4 * profile.collective_us_array(name, sizes, degree, ranks_per_node=degree)[0]
            for name in ("all_gather", "reduce_scatter")
        ),
        np.zeros(sizes.size),
    )
