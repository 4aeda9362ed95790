import json
from pathlib import Path
from typing import Any

import pytest

from costmodel import ModelShape, ProfileError, load_model
from costmodel.model_shape import model_presets

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
}


def config(tmp_path: Path, **changes: object) -> Path:
    path = tmp_path / "config.json"
    kept = {key: value for key, value in (LLAMA | changes).items() if value is not ...}
    path.write_text(json.dumps(kept))
    return path


def refusal(argument: Any) -> str:
    with pytest.raises(ProfileError) as caught:
        load_model(argument)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", list(model_presets()))
def test_every_preset_loads_under_its_name(name: str) -> None:
    shape = load_model(name)
    assert shape.name == name
    assert shape.kv_bytes_per_token == 2 * shape.kv_heads * shape.head_dim * 2


def test_the_presets_have_about_the_parameters_of_their_names() -> None:
    known = {"llama3-8b": 8, "llama3-70b": 70, "llama3-405b": 405, "qwen3-32b": 32}
    for name, billions in known.items():
        shape = load_model(name)
        weights = shape.layers * shape.linear_flops_per_token(training=False) / 2
        weights += 2 * shape.vocab_size * shape.hidden_size
        assert weights / 1e9 == pytest.approx(billions, rel=0.05), name


def test_a_hugging_face_config_gives_the_preset(tmp_path: Path) -> None:
    read = load_model(config(tmp_path))
    preset = load_model("llama3-8b")
    assert {**read.to_json(), "name": ""} == {**preset.to_json(), "name": ""}
    assert load_model(tmp_path) == read
    assert load_model(str(tmp_path / "config.json")) == read


def test_what_a_config_leaves_out_is_what_the_library_assumes(tmp_path: Path) -> None:
    shape = load_model(
        config(
            tmp_path, num_key_value_heads=..., torch_dtype=..., intermediate_size=None, head_dim=64
        )
    )
    assert (shape.kv_heads, shape.head_dim, shape.dtype) == (32, 64, "bfloat16")
    assert shape.ffn_size == 4 * 4096


def test_a_decoder_one_level_down_is_found(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "vlm", "text_config": LLAMA}))
    assert load_model(path).kv_heads == 8


def test_experts_that_see_a_token_are_counted(tmp_path: Path) -> None:
    dense = load_model(config(tmp_path)).linear_flops_per_token()
    moe = load_model(
        config(tmp_path, num_experts_per_tok=2, moe_intermediate_size=7168)
    ).linear_flops_per_token()
    assert moe == dense


def test_training_takes_three_times_the_operations_of_inference() -> None:
    shape = load_model("llama3-8b")
    assert shape.linear_flops_per_token() == 3 * shape.linear_flops_per_token(training=False)


def test_attention_alone_has_no_linear_operations() -> None:
    with pytest.raises(ProfileError, match="paper-h32 has no hidden_size"):
        load_model("paper-h32").linear_flops_per_token()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_attention_heads": ...}, "num_attention_heads is missing"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"num_attention_heads": "32"}, 'num_attention_heads is "32", not a whole number'),
        ({"num_attention_heads": 32.0}, "num_attention_heads is 32.0, not a whole number"),
        ({"num_key_value_heads": 5}, "5 KV heads do not divide 32 query heads"),
        ({"num_key_value_heads": -8}, "num_key_value_heads is -8"),
        ({"hidden_size": 4100}, "hidden_size is 4100, not a multiple of 32 heads"),
        ({"head_dim": 0}, "head_dim is 0"),
        ({"torch_dtype": "int4"}, "dtype 'int4' is unknown"),
        ({"torch_dtype": 16}, "torch_dtype is 16, not a text"),
        ({"kv_lora_rank": 512}, "latent attention is not supported"),
        ({"vocab_size": -1}, "vocab_size is -1"),
    ],
)
def test_a_wrong_config_is_refused_naming_field_and_value(
    changes: dict[str, object], expected: str, tmp_path: Path
) -> None:
    assert expected in refusal(config(tmp_path, **changes))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llama3-8", "did you mean 'llama3-8b'?"),
        ("qwen3_8b", "did you mean 'qwen3-8b'?"),
        ("xyz", "there are: llama3-8b"),
        ("missing/config.json", "does not exist"),
    ],
)
def test_an_unknown_model_is_answered_with_the_nearest(name: str, expected: str) -> None:
    assert expected in refusal(name)


def test_a_config_that_is_not_an_object_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("[1]")
    assert "holds a list, not an object" in refusal(path)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"q_heads": 0}, "q_heads is 0"),
        ({"kv_heads": 3}, "3 KV heads do not divide 8 query heads"),
        ({"head_dim": 1.5}, "head_dim is 1.5, not a whole number"),
        ({"layers": True}, "layers is True, not a whole number"),
        ({"dtype": "bfloat61"}, "did you mean 'bfloat16'?"),
    ],
)
def test_a_shape_checks_itself(changes: dict[str, Any], expected: str) -> None:
    fields: dict[str, Any] = {"name": "x", "q_heads": 8, "kv_heads": 8, "head_dim": 64}
    with pytest.raises(ProfileError) as caught:
        ModelShape(**(fields | changes))
    assert expected in str(caught.value)
