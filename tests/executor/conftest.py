"""Random tensors are the same in every run: a tolerance is not a matter of luck."""

import pytest


@pytest.fixture(autouse=True)
def seeded():
    """Seed torch before each test."""
    import torch

    torch.manual_seed(0)
