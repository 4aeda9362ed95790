"""Memory of one rank: model state, activations, and KV that others sent.

State: 18 bytes a parameter (bf16 weight and gradient in use, fp32 gradient, master weight and two
Adam moments; 2 + 4 + 12), the last 12 or all of it sharded over CP and data parallel ranks;
tensor parallelism divides it first. With everything sharded, one layer is gathered at a time.

Activations a token and layer, in elements, with FlashAttention (nothing of the square is kept), a
gated feed-forward layer, fused activation functions, no dropout; divided by the tensor-parallel
degree (sequence parallelism included):

    none   4h + 2·Hq·D + 2·Hkv·D + 3F   residuals, norms, Q, K, V, O, gate, up and their product
    mlp    2h + 2·Hq·D + 2·Hkv·D        two residuals, and what attention's backward needs
    full    h                           the layer's input; plus one layer's `none` while it runs

KV from other ranks: one layer's, gathered and its gradients, while it runs; without full
recomputation every layer keeps what it gathered until its backward.

Not counted: logits (the loss is taken in chunks), the allocator's waste, CUDA's and NCCL's own. Of
a mixture of experts only the experts that see a token.
"""

from dataclasses import dataclass

from costmodel.model_shape import ModelShape
from flashcp.simulation.step import StepModel

# Data sheets; other hardware needs --memory-gb. 1 GB = 10^9 bytes.
CAPACITY_GB = {"a100-sxm": 80.0, "h100-sxm": 80.0, "h200-sxm": 141.0}


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on the fullest rank."""

    state_bytes: float
    activation_bytes: float
    kv_bytes: float

    @property
    def total_bytes(self) -> float:
        """All of it."""
        return self.state_bytes + self.activation_bytes + self.kv_bytes


def memory(
    model: ModelShape,
    step: StepModel,
    *,
    cp: int,
    tensor_parallel: int,
    rank_tokens: float,
    kept_tokens: float,
) -> Memory:
    """Return the memory of the fullest rank.

    Args:
        model: the whole model's shape, with linear layers.
        step: how it is trained.
        cp: CP degree.
        tensor_parallel: ranks that share each layer.
        rank_tokens: tokens on the rank.
        kept_tokens: tokens of other ranks' KV that a layer holds from forward to backward.
    """
    per_layer, outside = parameters(model)
    ranks = cp * step.replicas
    parameter_bytes = (model.layers * per_layer + outside) / tensor_parallel
    if step.state_sharding == "full":
        state = parameter_bytes * 18 / ranks + 4 * per_layer / tensor_parallel
    else:
        state = parameter_bytes * (6 + 12 / ranks)
    element = rank_tokens * model.dtype_bytes / tensor_parallel
    layers = model.layers
    if step.recompute == "full":
        activations = element * (layers * _elements(model, "full") + _elements(model, "none"))
    else:
        activations = element * layers * _elements(model, step.recompute)
    heads = max(model.kv_heads // tensor_parallel, 1)
    kept = kept_tokens * 2 * heads * model.head_dim * model.dtype_bytes
    held = 2 if step.recompute == "full" else layers + 1
    return Memory(state_bytes=state, activation_bytes=activations, kv_bytes=kept * held)


def parameters(model: ModelShape) -> tuple[float, float]:
    """Return the parameters of one layer, and of embedding and output head."""
    return model.linear_flops_per_token() / 6, 2.0 * model.hidden_size * model.vocab_size


def _elements(model: ModelShape, recompute: str) -> float:
    hidden, queries = model.hidden_size, model.q_heads * model.head_dim
    keys = model.kv_heads * model.head_dim
    if recompute == "full":
        return hidden
    attended = 2 * queries + 2 * keys
    if recompute == "mlp":
        return 2 * hidden + attended
    matrices = 3 if model.ffn_gated else 2
    return 4 * hidden + attended + matrices * model.ffn_size * model.ffn_experts
