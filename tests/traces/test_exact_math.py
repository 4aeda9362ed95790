import numpy as np
from scipy.special import ndtri

from traces.exact_math import exp, log, normal_quantiles


def test_log_and_exp_agree_with_the_systems():
    x = np.linspace(-300, 300, 200_001)
    assert np.abs(exp(x) / np.exp(x) - 1).max() < 1e-14
    y = np.exp(x[x != 0])
    assert np.abs(log(y) / np.log(y) - 1).max() < 1e-14


def test_normal_quantiles_agree_with_scipys_into_the_far_tails():
    tails = 10.0 ** -np.arange(1, 300.0)
    u = np.concatenate([np.linspace(1e-6, 1 - 1e-6, 100_001), tails, 1 - tails[:15]])
    expected = ndtri(u)
    assert np.abs(normal_quantiles(u) - expected).max() < 1e-11
    central = np.abs(expected) > 1e-3
    ratio = normal_quantiles(u)[central] / expected[central]
    assert np.abs(ratio - 1).max() < 1e-12
