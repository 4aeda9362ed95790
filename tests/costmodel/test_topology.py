from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel import ProfileError, Source, load_profile
from costmodel.collectives import COLLECTIVES, UNEVEN
from costmodel.fit_collectives import fit_groups

MB = 2**20


@given(st.integers(1, 1024))
def test_nodes_are_filled_alike_by_default(ranks: int) -> None:
    per_node = load_profile("h100-sxm").network.per_node(ranks, None)
    assert 1 <= per_node <= 8
    assert ranks % per_node == 0
    if ranks <= 8:
        assert per_node == ranks


@given(
    st.sampled_from(COLLECTIVES),
    st.integers(1, 8),
    st.integers(2, 16),
    st.integers(0, 10**11),
)
def test_a_group_that_spans_nodes_is_reported_and_no_faster_than_its_node(
    name: str, per_node: int, nodes: int, size: int
) -> None:
    profile = load_profile("h100-sxm")
    spanning = profile.collective_us(name, size, per_node * nodes, ranks_per_node=per_node)
    assert spanning.source == Source.REPORTED
    if name in ("all_gather", "reduce_scatter"):
        assert spanning.us >= profile.collective_us(name, size, per_node).us


def test_one_rank_a_node_is_bound_by_its_interface() -> None:
    # 64 MB over 4 nodes of one GPU: each takes in 48 MB at 47 GB/s, in 3 steps of 14 us.
    estimate = load_profile("h100-sxm").collective_us("all_gather", 64 * MB, 4, ranks_per_node=1)
    assert estimate.us == pytest.approx(48 * MB / 47e3 + 3 * 14)


def test_an_all_to_all_over_nodes_is_bound_by_each_ranks_own_interface() -> None:
    # Each of 16 ranks sends 1/16 of its 256 MB to each of the 8 ranks on the other node.
    estimate = load_profile("h100-sxm").collective_us("all_to_all", 256 * MB, 16)
    assert estimate.us == pytest.approx(128 * MB / 47e3 + 14)


def test_a_ring_over_nodes_is_bound_by_the_step_between_them() -> None:
    estimate = load_profile("h100-sxm").collective_us("send_recv", 64 * MB, 16)
    assert estimate.us == pytest.approx(64 * MB / 47e3 + 14)


def test_eight_interfaces_together_keep_up_with_the_node_in_an_all_gather() -> None:
    profile = load_profile("h100-sxm")
    inside = profile.collective_us("all_gather", 256 * MB, 8)
    spanning = profile.collective_us("all_gather", 256 * MB, 16)
    assert spanning.us == pytest.approx(inside.us + 14)


def test_an_uneven_all_to_all_is_bound_by_what_crosses_or_by_all_of_it_inside() -> None:
    profile = load_profile("h100-sxm")
    inside = profile.all_to_all_v_us(64 * MB, 8).us
    # 32 MB over an interface of 47 GB/s take longer than 64 MB within the node, 1 MB does not.
    mostly = profile.all_to_all_v_us(64 * MB, 16, across_bytes=32 * MB)
    hardly = profile.all_to_all_v_us(64 * MB, 16, across_bytes=1 * MB)
    assert mostly.us == pytest.approx(32 * MB / 47e3 + 14)
    assert hardly.us == pytest.approx(inside + 14)
    assert mostly.source == hardly.source == Source.REPORTED


@given(size=st.integers(0, 10**10), per_node=st.integers(2, 8), nodes=st.integers(1, 8))
def test_an_all_to_all_that_stays_inside_its_nodes_knows_of_no_network(
    size: int, per_node: int, nodes: int
) -> None:
    profile = load_profile("h100-sxm")
    found = profile.all_to_all_v_us(size, per_node * nodes, ranks_per_node=per_node, across_bytes=0)
    assert found == profile.all_to_all_v_us(size, per_node, ranks_per_node=per_node)


@given(
    sizes=st.tuples(st.integers(0, 10**10), st.integers(0, 10**10)).map(sorted),
    per_node=st.integers(1, 8),
    nodes=st.integers(2, 8),
    gbps=st.tuples(st.floats(1, 1000), st.floats(1, 1000)).map(sorted),
)
def test_less_across_and_a_faster_interface_never_take_longer(
    sizes: list[int], per_node: int, nodes: int, gbps: list[float]
) -> None:
    profile = load_profile("h100-sxm")
    less, more = sizes

    def us(across_bytes: int, nic_gbps: float) -> float:
        nic = replace(profile.network.nic_gbps, value=nic_gbps)
        other = replace(profile, network=replace(profile.network, nic_gbps=nic))
        return other.all_to_all_v_us(
            more, per_node * nodes, ranks_per_node=per_node, across_bytes=across_bytes
        ).us

    assert us(less, gbps[0]) <= us(more, gbps[0])
    assert us(more, gbps[1]) <= us(more, gbps[0])


def test_more_across_than_in_all_is_refused() -> None:
    with pytest.raises(ProfileError, match="across_bytes is 9, more than largest_bytes, 8"):
        load_profile("h100-sxm").all_to_all_v_us(8, 16, across_bytes=9)


@pytest.mark.parametrize("per_node", [0, -1, 3, 16])
def test_ranks_per_node_must_divide_the_ranks(per_node: int) -> None:
    with pytest.raises(ProfileError, match=f"{per_node} ranks per node do not divide 8 ranks"):
        load_profile("h100-sxm").collective_us("all_gather", MB, 8, ranks_per_node=per_node)


def test_half_a_rank_per_node_is_refused() -> None:
    with pytest.raises(ProfileError, match=r"ranks per node is 2\.5"):
        load_profile("h100-sxm").collective_us("all_gather", MB, 5, ranks_per_node=2.5)  # type: ignore[arg-type]


def measured_across(points, model):
    return replace(model, curves=(*model.curves, *fit_groups(points).curves))


def across_rows(name, ranks, per_node):
    return [(name, ranks, per_node, float(2**p), 500.0 + 2**p / 100.0) for p in range(12, 25)]


@given(st.sampled_from(COLLECTIVES), st.floats(2**12, 2**24))
def test_a_group_that_was_measured_across_nodes_follows_its_own_times(
    name: str, size: float
) -> None:
    h100 = load_profile("h100-sxm")
    model = measured_across(across_rows(name, 16, 8), h100.collectives)
    profile = replace(h100, collectives=model)
    found = profile.collective_us(name, size, 16, ranks_per_node=8)
    assert found.us == pytest.approx(500.0 + size / 100.0)
    assert found.source <= Source.INTERPOLATED
    # Neither other groups nor the node's own do.
    for other in ((32, 8), (16, 16), (16, 4)):
        before = h100.collective_us(name, size, other[0], ranks_per_node=other[1])
        assert profile.collective_us(name, size, other[0], ranks_per_node=other[1]) == before


@given(st.floats(2**12, 2**24), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_uneven_parts_across_nodes_start_from_what_was_measured(
    largest: float, one: float, other: float
) -> None:
    h100 = load_profile("h100-sxm")
    model = measured_across(across_rows(UNEVEN, 16, 8), h100.collectives)
    profile = replace(h100, collectives=model)

    def us(across_bytes: float | None) -> float:
        return profile.all_to_all_v_us(largest, 16, ranks_per_node=8, across_bytes=across_bytes).us

    assert us(None) == pytest.approx(500.0 + largest / 100.0)
    assert us(largest * 8 / 15) == pytest.approx(us(None))
    low, high = sorted((one, other))
    assert us(low * largest) <= us(high * largest) * (1 + 1e-9)
    assert us(0.0) == h100.all_to_all_v_us(largest, 16, ranks_per_node=8, across_bytes=0.0).us


def test_uneven_parts_within_a_node_follow_what_was_measured_of_such() -> None:
    h100 = load_profile("h100-sxm")
    model = measured_across(across_rows(UNEVEN, 8, 8), h100.collectives)
    profile = replace(h100, collectives=model)
    assert profile.all_to_all_v_us(2**20, 8).us == pytest.approx(500.0 + 2**20 / 100.0)
    assert profile.all_to_all_v_us(2**20, 4) == h100.all_to_all_v_us(2**20, 4)
