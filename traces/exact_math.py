"""Normal quantiles and exponentials that are the same bits on every machine.

The system's log and exp differ in the last bit between C libraries and vector units. Here they are
built from additions, multiplications, divisions and square roots, which IEEE 754 fixes; a generated
trace, and so its fingerprint, does not depend on where it was generated. Relative error against
the C library's: below 1e-14 for both, below 1e-12 for the quantiles (tested).
"""

import numpy as np
from numpy.typing import NDArray

_LN2_HIGH = 0.6931471803691238  # its low 21 bits are zero, so that k * _LN2_HIGH is exact
_LN2_LOW = 1.9082149292705877e-10

# Wichura's AS 241 (PPND16): numerator and denominator, highest power first.
_CENTRAL = (
    (2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457,
     13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.387132872796366608),
    (5226.495278852545925, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867,
     5394.1960214247511077, 687.1870074920579083, 42.313330701600911252, 1.0),
)  # fmt: skip
_MIDDLE = (
    (7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177,
     1.27045825245236838258, 3.64784832476320460504, 5.7694972214606914055, 4.6303378461565452959,
     1.42343711074968357734),
    (1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966,
     0.14810397642748007459, 0.68976733498510000455, 1.6763848301838038494, 2.05319162663775882187,
     1.0),
)  # fmt: skip
_TAIL = (
    (2.01033439929228813265e-7, 2.71155556874348757815e-5, 0.0012426609473880784386,
     0.026532189526576123093, 0.29656057182850489123, 1.7848265399172913358,
     5.4637849111641143699, 6.6579046435011037772),
    (2.04426310338993978564e-15, 1.4215117583164458887e-7, 1.8463183175100546818e-5,
     7.868691311456132591e-4, 0.0148753612908506148525, 0.13692988092273580531,
     0.59983220655588793769, 1.0),
)  # fmt: skip

Floats = NDArray[np.float64]


def _ratio(table: tuple[tuple[float, ...], tuple[float, ...]], x: Floats) -> Floats:
    top, bottom = (np.zeros_like(x), np.zeros_like(x))
    for high, low in zip(*table, strict=True):
        top = top * x + high
        bottom = bottom * x + low
    return top / bottom


def log(x: Floats) -> Floats:
    """Return the natural logarithms of positive `x`: 2 atanh((m - 1)/(m + 1)) of the mantissa m."""
    mantissa, exponent = np.frexp(x)
    small = mantissa < 0.7071067811865476
    mantissa = np.where(small, mantissa * 2.0, mantissa)
    power = exponent.astype(np.float64) - small
    s = (mantissa - 1.0) / (mantissa + 1.0)
    square = s * s
    series = np.zeros_like(s)
    for odd in range(23, 0, -2):
        series = series * square + 2.0 / odd
    return power * _LN2_HIGH + (power * _LN2_LOW + s * series)


def exp(x: Floats) -> Floats:
    """Return e to the power of `x`: a Taylor polynomial after taking out powers of two."""
    power = np.rint(x / (_LN2_HIGH + _LN2_LOW))
    rest = (x - power * _LN2_HIGH) - power * _LN2_LOW
    series = np.ones_like(rest)
    for divisor in range(15, 0, -1):
        series = series * rest / divisor + 1.0
    return np.ldexp(series, power.astype(np.int32))


def normal_quantiles(u: Floats) -> Floats:
    """Return the standard normal quantiles of `u`, each in the open interval (0, 1).

    Source: Wichura, "Algorithm AS 241: the percentage points of the normal distribution"
    (Applied Statistics 37, 1988).
    """
    q = u - 0.5
    central = np.abs(q) <= 0.425
    out = q * _ratio(_CENTRAL, np.where(central, 0.180625 - q * q, 0.0))
    outer = ~central
    tail = np.sqrt(-log(np.minimum(u[outer], 1.0 - u[outer])))
    far = tail > 5.0
    value = np.where(far, _ratio(_TAIL, tail - 5.0), _ratio(_MIDDLE, tail - 1.6))
    out[outer] = np.copysign(value, q[outer])
    return out
