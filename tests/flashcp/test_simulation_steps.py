"""A training step's time and memory add up, and intervals cover as often as they say."""

import numpy as np
import pytest

from costmodel import load_model, load_profile
from flashcp.simulation.intervals import mean_interval, ratio_interval
from flashcp.simulation.memory import memory, parameters
from flashcp.simulation.step import StepModel, pack_times_us, slowest_of_steps

H100, LLAMA = load_profile("h100-sxm"), load_model("llama3-8b")


def test_a_step_is_its_layers_and_head_and_waits_for_the_slowest_replica():
    tokens, attention = np.array([16_384.0, 8_192.0]), np.array([9_000.0, 5_000.0])
    layer, packs = pack_times_us(tokens, attention, attention / 3, LLAMA, H100, 1, "none")
    flops = LLAMA.linear_flops_per_token()
    np.testing.assert_allclose(layer, attention + tokens * flops / (989.4 * 0.7 * 1e6))
    head = tokens * 6 * LLAMA.hidden_size * LLAMA.vocab_size / (989.4 * 0.7 * 1e6)
    np.testing.assert_allclose(packs, 32 * layer + head)
    full, _ = pack_times_us(tokens, attention, attention / 3, LLAMA, H100, 1, "full")
    np.testing.assert_allclose(full - layer, attention / 3 + (layer - attention) / 3)
    mlp, _ = pack_times_us(tokens, attention, attention / 3, LLAMA, H100, 1, "mlp")
    assert (layer < mlp).all()
    assert (mlp < full).all()
    np.testing.assert_array_equal(slowest_of_steps(np.array([1.0, 5, 3, 2, 9]), 2), [5, 3])


def test_tensor_parallelism_divides_linear_layers_and_adds_its_exchange():
    tokens, none = np.array([16_384.0]), np.zeros(1)
    one, _ = pack_times_us(tokens, none, none, LLAMA, H100, 1, "none")
    two, _ = pack_times_us(tokens, none, none, LLAMA, H100, 2, "none")
    gather = H100.collective_us("all_gather", 16_384 * 4096 * 2, 2).us
    scatter = H100.collective_us("reduce_scatter", 16_384 * 4096 * 2, 2).us
    assert two[0] == pytest.approx(one[0] / 2 + 4 * (gather + scatter), rel=1e-6)


def test_parameters_are_the_published_count():
    per_layer, outside = parameters(LLAMA)
    assert 32 * per_layer + outside == pytest.approx(8.03e9, rel=0.001)  # norms left out


def test_memory_adds_up_and_every_saving_saves():
    def total(cp=8, tensor_parallel=1, kept_tokens=100_000, **step):
        return memory(
            LLAMA, StepModel(**step), cp=cp, tensor_parallel=tensor_parallel,
            rank_tokens=131_072 / cp, kept_tokens=kept_tokens,
        ).total_bytes  # fmt: skip

    assert total(recompute="full") < total(recompute="mlp") < total(recompute="none")
    assert total(cp=16) < total()
    assert total(tensor_parallel=2) < total()
    assert total(kept_tokens=0) < total()
    assert total() < total(state_sharding="optimizer")
    # 8.03e9 parameters of 18 bytes over 8 ranks and a gathered layer; 32 inputs and one layer
    # of 69,632 elements for 16,384 tokens; nothing exchanged.
    state = 8.03e9 * 18 / 8 + 4 * 218e6
    activations = 16_384 * 2 * (32 * 4096 + 69_632)
    assert total(kept_tokens=0) == pytest.approx(state + activations, rel=0.01)


def test_intervals_cover_the_mean_as_often_as_they_say():
    rng = np.random.default_rng(7)
    inside = 0
    for _ in range(400):
        base = rng.gamma(4, 1, 60)
        ours = base * rng.uniform(0.5, 0.9, 60)
        interval = ratio_interval(base, ours)
        inside += interval.low <= 1 / 0.7 <= interval.high
        assert mean_interval(base).low < base.mean() < mean_interval(base).high
    assert 0.91 <= inside / 400 <= 0.98
