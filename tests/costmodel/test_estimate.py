import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel import Estimate, Source

estimates = st.builds(Estimate, st.floats(0, 1e9, allow_nan=False), st.sampled_from(list(Source)))


@given(st.lists(estimates))
def test_a_sum_keeps_the_worst_source(items: list[Estimate]) -> None:
    total = Estimate.total(items)
    assert total.us == pytest.approx(sum(item.us for item in items))
    assert total.source == max((item.source for item in items), default=Source.MEASURED)


def test_sources_are_ordered_from_most_to_least_trustworthy() -> None:
    assert Source.MEASURED < Source.INTERPOLATED < Source.EXTRAPOLATED < Source.REPORTED


@pytest.mark.parametrize("source", list(Source))
def test_a_label_names_its_source(source: Source) -> None:
    assert Source.from_label(source.label) is source


def test_scaling_by_a_reported_factor_makes_a_measured_time_reported() -> None:
    assert Estimate(10.0, Source.MEASURED).scaled(1.5, Source.REPORTED) == Estimate(
        15.0, Source.REPORTED
    )
