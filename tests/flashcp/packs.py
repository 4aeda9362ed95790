"""Random packs for property tests: the lengths that break rules, not only typical ones."""

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray


def lengths(most_documents: int = 24) -> st.SearchStrategy[NDArray[np.int32]]:
    """Packs of slivers, of giants and of mixtures."""
    sliver = st.integers(1, 3)
    middle = st.integers(1, 200)
    giant = st.integers(1_000, 70_000)
    return st.lists(st.one_of(sliver, middle, giant), min_size=1, max_size=most_documents).map(
        lambda values: np.array(values, dtype=np.int32)
    )


def cp_degrees(most: int = 17) -> st.SearchStrategy[int]:
    """Degrees of every kind, not only powers of two."""
    return st.one_of(st.integers(1, most), st.sampled_from([1, 2, 3, 4, 7, 8, 16]))
