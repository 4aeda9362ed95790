"""A training step of a small language model under context parallelism, equal to one process.

    torchrun --nproc-per-node 2 examples/training_step.py

Every rank holds its shard of one packed window. Token ids, positions and labels are sharded with
the plan's global indices; labels are shifted before, because a token's successor may be on another
rank. Each layer calls `executor.attention`; everything else works token by token and needs no
change. The loss is the sum over all tokens by their number in the whole pack, so gradients are
summed over ranks. Rank 0 then runs the same step on the whole pack by itself and prints both losses
and the largest difference of any gradient.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as f

import executor
import flashcp

VOCABULARY, WIDTH, Q_HEADS, KV_HEADS, LAYERS = 97, 64, 4, 2, 2
HEAD_DIM = WIDTH // Q_HEADS
LENGTHS = [120, 64, 40, 31, 1]

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


class Layer(nn.Module):
    """A transformer layer whose attention is given from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.qkv = nn.Linear(WIDTH, (Q_HEADS + 2 * KV_HEADS) * HEAD_DIM)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)
        )

    def forward(self, x: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        """Return the layer's output [tokens, width]."""
        heads = self.qkv(self.norms[0](x)).view(len(x), -1, HEAD_DIM)
        q, k, v = heads.split([Q_HEADS, KV_HEADS, KV_HEADS], dim=1)
        mixed = attention(rotated(q, positions), rotated(k, positions), v.contiguous())
        x = x + self.out(mixed.flatten(1))
        return x + self.mlp(self.norms[1](x))


class Model(nn.Module):
    """Embeddings, layers, and a head that predicts the next token."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def loss(
        self, ids: Tensor, positions: Tensor, labels: Tensor, tokens: int, attention: Attention
    ) -> Tensor:
        """Return the summed loss of these tokens over the number of all `tokens`."""
        x = self.embedding(ids)
        for layer in self.layers:
            x = layer(x, positions, attention)
        return f.cross_entropy(self.head(x), labels, reduction="sum") / tokens


def rotated(x: Tensor, positions: Tensor) -> Tensor:
    """Apply rotary embeddings to [tokens, heads, head_dim] at the given positions."""
    rates = 10000 ** (-torch.arange(0, HEAD_DIM, 2, dtype=x.dtype) / HEAD_DIM)
    angles = positions.to(x.dtype).outer(rates).unsqueeze(1)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], -1)


def train_step(model: Model, plan: flashcp.Plan, ids: Tensor) -> Tensor:
    """Run forward and backward of this rank's shard; gradients end up summed on every rank."""
    rank = dist.get_rank()
    handle = executor.prepare(plan, rank)
    labels = executor.shift_labels(ids, plan)
    tokens = int((labels != -100).sum())
    loss = model.loss(
        executor.shard(ids, plan, rank),
        executor.position_ids(plan, rank),
        executor.shard(labels, plan, rank),
        tokens,
        lambda q, k, v: executor.attention(q, k, v, handle),
    )
    loss.backward()
    for parameter in model.parameters():
        dist.all_reduce(parameter.grad)
    total = loss.detach().clone()
    dist.all_reduce(total)
    return total


def whole_step(model: Model, plan: flashcp.Plan, ids: Tensor) -> Tensor:
    """Run the same step on the whole pack, one document at a time, without this library."""
    labels = executor.shift_labels(ids, plan)
    positions = torch.cat([torch.arange(int(n)) for n in plan.lengths])

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        parts = [x.split(plan.lengths.tolist()) for x in (q, k, v)]
        outs = [
            f.scaled_dot_product_attention(
                *(x.transpose(0, 1) for x in document), is_causal=True, enable_gqa=True
            ).transpose(0, 1)
            for document in zip(*parts, strict=True)
        ]
        return torch.cat(outs)

    loss = model.loss(ids, positions, labels, int((labels != -100).sum()), attention)
    loss.backward()
    return loss.detach()


def main() -> None:
    """Run both steps and compare them."""
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    model = Model().double()
    ids = torch.randint(VOCABULARY, (sum(LENGTHS),))
    plan = flashcp.plan(np.array(LENGTHS), cp=dist.get_world_size(), strategy="flashcp")
    loss = train_step(model, plan, ids)
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    if dist.get_rank() == 0:
        model.zero_grad()
        whole = whole_step(model, plan, ids)
        worst = max(
            float((a - b.grad).abs().max() / b.grad.abs().max().clamp(min=1e-3))
            for a, b in zip(gradients, model.parameters(), strict=True)
        )
        print(f"loss over {dist.get_world_size()} ranks {loss:.15f}, on one process {whole:.15f}")
        print(f"largest relative difference of a gradient: {worst:.1e}")
        if not math.isclose(loss, whole, rel_tol=1e-12) or worst > 1e-10:
            raise SystemExit(1)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
