"""Exact counts from fractions of units or prompts."""

import math
from fractions import Fraction


def scope_count(fraction: float, n: int) -> int:
    """Number of n units that a fraction (0-1) selects: int(fraction * n), with exact arithmetic.

    0.29 of 100 units is 29, but in floating point, as in the original code, it is int(28.999999999999996) = 28. Here
    the fraction is converted to the nearest ratio with a denominator of at most 1e9, and the product is exact.
    """
    return int(Fraction(fraction).limit_denominator(10**9) * n)


def needed_prompts(presence: float, n: int) -> int:
    """Number of n prompts that a presence (0-1] requires: the exact product, rounded up, at least 1."""
    return max(1, math.ceil(Fraction(presence).limit_denominator(10**9) * n))
