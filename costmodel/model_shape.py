"""What a model's attention layers look like, from a preset or a Hugging Face config.json.

Only shapes are kept: heads and head size give the sizes of KV and the work of attention; hidden
size, FFN size and the number of experts that see a token give the floating-point operations of the
linear layers, so that an attention speed-up can be set against the whole layer.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from costmodel.checks import Fields, read_json
from costmodel.errors import ProfileError
from costmodel.names import nearest

DTYPE_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
_MOST = 2**24


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """The shape of one transformer layer.

    Attributes:
        name: preset name or path it came from.
        q_heads: query heads.
        kv_heads: key/value heads; divides `q_heads`.
        head_dim: size of a head, in elements.
        dtype: "bfloat16", "float16" or "float32".
        hidden_size: size of the residual stream; 0 where only attention is described.
        ffn_size: inner size of the feed-forward layer, of one expert where there are several.
        ffn_gated: whether the feed-forward layer has a third, gating matrix.
        ffn_experts: experts that see each token; 1 in a dense model.
        layers: number of layers.
        vocab_size: entries of the vocabulary.
    """

    name: str
    q_heads: int
    kv_heads: int
    head_dim: int
    dtype: str = "bfloat16"
    hidden_size: int = 0
    ffn_size: int = 0
    ffn_gated: bool = True
    ffn_experts: int = 1
    layers: int = 1
    vocab_size: int = 0

    def __post_init__(self) -> None:
        """Check every field; raises ProfileError naming the field and value."""
        for field, least in (
            ("q_heads", 1),
            ("kv_heads", 1),
            ("head_dim", 1),
            ("hidden_size", 0),
            ("ffn_size", 0),
            ("ffn_experts", 1),
            ("layers", 1),
            ("vocab_size", 0),
        ):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int):
                raise ProfileError(f"model {self.name}: {field} is {value!r}, not a whole number")
            if not least <= value <= _MOST:
                raise ProfileError(f"model {self.name}: {field} is {value}, not {least}..{_MOST}")
        if self.q_heads % self.kv_heads:
            raise ProfileError(
                f"model {self.name}: {self.kv_heads} KV heads do not divide"
                f" {self.q_heads} query heads"
            )
        if self.dtype not in DTYPE_BYTES:
            raise ProfileError(
                f"model {self.name}: dtype {self.dtype!r} is unknown;"
                f" {nearest(str(self.dtype), DTYPE_BYTES)}"
            )

    @property
    def dtype_bytes(self) -> int:
        """Bytes of one element."""
        return DTYPE_BYTES[self.dtype]

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of one token's K and V in one layer."""
        return 2 * self.kv_heads * self.head_dim * self.dtype_bytes

    @property
    def attention_only(self) -> bool:
        """Whether the shape says nothing of the linear layers."""
        return self.hidden_size == 0

    def linear_flops_per_token(self, *, training: bool = True) -> float:
        """Return the floating-point operations of one layer's linear layers for one token.

        Two for each weight forward (a multiplication and an addition); training adds twice as many
        for the gradients of inputs and weights. Attention itself is not counted.

        Raises:
            ProfileError: the shape describes attention only.
        """
        if self.attention_only:
            raise ProfileError(f"model {self.name} has no hidden_size: it describes attention only")
        attention = self.hidden_size * self.head_dim * (2 * self.q_heads + 2 * self.kv_heads)
        matrices = 3 if self.ffn_gated else 2
        ffn = matrices * self.hidden_size * self.ffn_size * self.ffn_experts
        return float((6 if training else 2) * (attention + ffn))

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a JSON object."""
        return asdict(self)


def model_presets() -> dict[str, ModelShape]:
    """Return the shapes that are known by name."""
    path = Path(str(files("costmodel") / "data" / "models.json"))
    document = read_json(path, "model presets")
    return {
        name: ModelShape(name=name, **{k: v for k, v in shape.items() if k != "reference"})
        for name, shape in document.items()
    }


def load_model(name_or_path: str | Path) -> ModelShape:
    """Return a preset by name, or the shape that a Hugging Face config.json describes.

    Args:
        name_or_path: a name of `model_presets()`, a config.json, or the folder that holds one.

    Raises:
        ProfileError: an unknown name (the nearest is suggested) or a wrong file.
    """
    presets = model_presets()
    if str(name_or_path) in presets:
        return presets[str(name_or_path)]
    path = Path(name_or_path)
    if name_or_path != "" and path.is_dir():  # an empty path would be the current folder
        path = path / "config.json"
    if path.suffix == ".json" or path.is_file():
        return _from_config(path)
    raise ProfileError(
        f"model {str(name_or_path)!r} is neither a preset nor a config.json;"
        f" {nearest(str(name_or_path), presets)}"
    )


def _from_config(path: Path) -> ModelShape:
    """Read the fields that Hugging Face's configurations of decoders share."""
    document = read_json(path, "model config")
    # Models that also see keep their decoder's shape one level down.
    inner = document.get("text_config")
    fields = Fields(
        inner if isinstance(inner, dict) and "num_attention_heads" not in document else document,
        f"model config {path}",
    )
    if fields.document.get("kv_lora_rank") is not None:
        raise fields.fail("kv_lora_rank", "is set: latent attention is not supported")
    known = fields.document

    def whole(key: str, otherwise: int, *, least: int = 1) -> int:
        return otherwise if known.get(key) is None else fields.whole(key, least=least, most=_MOST)

    q_heads = fields.whole("num_attention_heads", least=1, most=_MOST)
    hidden = fields.whole("hidden_size", least=1, most=_MOST)
    if known.get("head_dim") is None and hidden % q_heads:
        raise fields.fail("hidden_size", f"is {hidden}, not a multiple of {q_heads} heads")
    # Where the file says nothing, what the library itself assumes: as many KV heads as query
    # heads, and a feed-forward layer of four times the hidden size.
    experts = whole("num_experts_per_tok", 1)
    ffn_key = "moe_intermediate_size" if known.get("moe_intermediate_size") else "intermediate_size"
    dtype_key = "dtype" if known.get("dtype") is not None else "torch_dtype"
    dtype = "bfloat16" if known.get(dtype_key) is None else fields.text(dtype_key)
    activation = "silu" if known.get("hidden_act") is None else fields.text("hidden_act")
    return ModelShape(
        name=str(path),
        q_heads=q_heads,
        kv_heads=whole("num_key_value_heads", q_heads),
        head_dim=whole("head_dim", hidden // q_heads),
        dtype=dtype.removeprefix("torch."),
        hidden_size=hidden,
        ffn_size=whole(ffn_key, 4 * hidden),
        ffn_gated=activation in ("silu", "swish", "gelu_pytorch_tanh"),
        ffn_experts=experts,
        layers=whole("num_hidden_layers", 1),
        vocab_size=whole("vocab_size", 0, least=0),
    )
