import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import costmodel
from costmodel import Profile, ProfileError, Source, load_profile

SHAPE = {"q_heads": 32, "kv_heads": 8, "head_dim": 128, "direction": "forward"}


@pytest.fixture(scope="module")
def profile() -> Profile:
    return load_profile("h100-sxm")


def refusal(function: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(ProfileError) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


BAD_ATTENTION: dict[str, tuple[Any, Any, dict[str, Any], str]] = {
    "different counts": ([1, 2], [1], {}, "there are 2 q_lens and 1 k_lens"),
    "fewer keys than queries": (
        [8, 9],
        [8, 5],
        {},
        "segment 1 has 9 query tokens but 5 key",
    ),
    "negative queries": ([4, -1], [4, 4], {}, "q_lens[1] is -1"),
    "negative keys": ([0], [-7], {"causal": False}, "k_lens[0] is -7"),
    "half tokens": ([0.5], [1], {}, "q_lens holds 0.5, not whole numbers"),
    "NaN tokens": ([1], [float("nan")], {}, "k_lens holds nan"),
    "text": (["many"], [1], {}, "q_lens holds 'many'"),
    "nested lists": ([[1]], [[1]], {}, "q_lens has shape (1, 1)"),
    "ragged lists": ([[1], [1, 2]], [1], {}, "q_lens is not a flat list"),
    "too many tokens": ([2**41], [2**41], {}, "q_lens[0] is 2199023255552"),
    "an unknown direction": ([1], [1], {"direction": "forwards"}, "did you mean 'forward'?"),
    "heads that do not divide": (
        [1],
        [1],
        {"kv_heads": 5},
        "query heads are not a multiple of 5",
    ),
    "no heads": ([1], [1], {"q_heads": 0}, "q_heads is 0"),
    "half a head": ([1], [1], {"kv_heads": 0.5}, "kv_heads is 0.5, not a whole number"),
    "a head of no size": ([1], [1], {"head_dim": 0}, "head_dim is 0"),
    "a head too large": ([1], [1], {"head_dim": 10**6}, "1000000"),
}


@pytest.mark.parametrize("case", list(BAD_ATTENTION))
def test_wrong_attention_arguments_are_named(profile: Profile, case: str) -> None:
    q_lens, k_lens, other, expected = BAD_ATTENTION[case]
    assert expected in refusal(profile.attention_us, q_lens, k_lens, **(SHAPE | other))


BAD_COLLECTIVES: dict[str, tuple[tuple[Any, ...], str]] = {
    "an unknown name": (("allgather", 1, 2), "did you mean 'all_gather'?"),
    "a name that was never measured": (("all_reduce", 1, 2), "collective 'all_reduce' is unknown"),
    "negative bytes": (("all_gather", -1, 2), "total_bytes is -1"),
    "infinite bytes": (("all_gather", float("inf"), 2), "total_bytes is inf"),
    "NaN bytes": (("all_gather", float("nan"), 2), "total_bytes is nan"),
    "bytes as text": (("all_gather", "1k", 2), "total_bytes is '1k'"),
    "no ranks": (("all_gather", 1, 0), "ranks is 0"),
    "negative ranks": (("all_gather", 1, -8), "ranks is -8"),
    "half a rank": (("all_gather", 1, 2.5), "ranks is 2.5"),
    "ranks that are true": (("all_gather", 1, True), "ranks is True"),
    "too many ranks": (("all_gather", 1, 2**21), "ranks is 2097152"),
}


@pytest.mark.parametrize("case", list(BAD_COLLECTIVES))
def test_wrong_collective_arguments_are_named(profile: Profile, case: str) -> None:
    arguments, expected = BAD_COLLECTIVES[case]
    assert expected in refusal(profile.collective_us, *arguments)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [([1.0, -2.0], "holds -2.0"), ([[1.0]], "shape (1, 1)"), ([float("nan")], "holds nan")],
)
def test_wrong_messages_are_named(profile: Profile, sizes: Any, expected: str) -> None:
    assert expected in refusal(profile.collective_us_array, "all_gather", sizes, 2)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((-1, 1, "in-place"), "moved_bytes is -1"),
        ((1, float("nan"), "in-place"), "pieces is nan"),
        ((1, 1, "inplace"), "did you mean 'in-place'?"),
    ],
)
def test_wrong_copies_are_named(profile: Profile, arguments: Any, expected: str) -> None:
    assert expected in refusal(profile.copy_us, *arguments)


def test_wrong_operations_are_named(profile: Profile) -> None:
    assert "flops is -1" in refusal(profile.linear_us, -1)
    assert "largest_bytes is -1" in refusal(profile.all_to_all_v_us, -1, 8)


segments = st.lists(
    st.tuples(st.integers(0, 20_000), st.integers(0, 20_000)), min_size=0, max_size=12
)


@given(segments, st.sampled_from(["forward", "backward"]))
@settings(max_examples=50)
def test_attention_takes_no_less_with_a_segment_more(
    parts: list[tuple[int, int]], direction: str
) -> None:
    profile = load_profile("h100-sxm")
    q_lens = [tokens for tokens, _ in parts]
    k_lens = [tokens + prefix for tokens, prefix in parts]
    shape: dict[str, Any] = SHAPE | {"direction": direction}
    times = [
        profile.attention_us(q_lens[:count], k_lens[:count], **shape).us
        for count in range(len(parts) + 1)
    ]
    assert times[0] == 0
    assert times == sorted(times)
    assert np.isfinite(times).all()


def test_backward_is_reported_and_mixed_lengths_are_extrapolated(profile: Profile) -> None:
    shape: dict[str, Any] = SHAPE
    mixed = profile.attention_us([100, 5000], [100, 5000], **shape)
    assert mixed.source == Source.EXTRAPOLATED
    prefix = profile.attention_us(np.array([64]), np.array([4096]), **shape)
    assert prefix.source == Source.EXTRAPOLATED
    backward = profile.attention_us([512], [512], **(shape | {"direction": "backward"}))
    assert backward.source == Source.REPORTED


def test_the_cache_write_of_the_measurements_can_be_left_out(profile: Profile) -> None:
    shape: dict[str, Any] = SHAPE
    with_write = profile.attention_us([4096] * 4, [4096] * 4, **shape, cache_write=True)
    without = profile.attention_us([4096] * 4, [4096] * 4, **shape)
    assert without.us < with_write.us


def test_linear_layers_take_their_operations_at_the_reported_rate(profile: Profile) -> None:
    estimate = profile.linear_us(989.4e12 * 0.7)
    assert estimate.us == pytest.approx(1e6)
    assert estimate.source == Source.REPORTED


def test_every_public_name_is_there() -> None:
    for name in costmodel.__all__:
        assert getattr(costmodel, name) is not None
    assert set(costmodel.__all__) <= set(dir(costmodel))
    with pytest.raises(AttributeError, match="no attribute 'Timelines'"):
        _ = costmodel.Timelines


def test_importing_the_package_loads_neither_numba_nor_numpy() -> None:
    code = "import sys, costmodel; print({'numba', 'numpy', 'pandas'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert result.stdout.strip() == b"set()"
