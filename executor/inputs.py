"""The tensors that a run attends to: drawn from a seed, the same on every rank.

Shapes: T tokens of the pack, Hq query heads, Hkv key/value heads, D head size.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from executor.job import Job
from flashcp.plans import Plan

DTYPES = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
    "float64": torch.float64,
}


@dataclass(frozen=True, eq=False)
class Inputs:
    """Tensors of a whole pack.

    Attributes:
        q: queries [T, Hq, D].
        k: keys [T, Hkv, D].
        v: values [T, Hkv, D].
        dout: gradient of the output [T, Hq, D].
    """

    q: Tensor
    k: Tensor
    v: Tensor
    dout: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> "Inputs":
        """Return the inputs with every tensor changed by `change`."""
        return Inputs(*(change(x) for x in (self.q, self.k, self.v, self.dout)))


def draw(plan: Plan, job: Job, device: torch.device) -> Inputs:
    """Draw the inputs of a pack; equal seeds on equal devices give equal tensors."""
    # As torch takes negative seeds, and in the same way those that it finds too large.
    generator = torch.Generator(device).manual_seed(job.options.seed % 2**64)
    dtype, model, tokens = DTYPES[job.options.dtype], job.model, plan.context_tokens
    shapes = [(tokens, heads, model.head_dim) for heads in (model.q_heads, model.kv_heads)]
    return Inputs(
        *(
            torch.randn(shape, generator=generator, device=device, dtype=dtype)
            for shape in (shapes[0], shapes[1], shapes[1], shapes[0])
        )
    )
