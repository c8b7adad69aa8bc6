"""Fractions of a number of units or prompts, exact."""

import math
from fractions import Fraction


def scope_count(fraction: float, n: int) -> int:
    """How many of n units a fraction (0-1) selects: int(fraction * n), of the fraction as it was written.

    0.29 of 100 units is 29; the original code's floating point makes that int(28.999999999999996) = 28. So the
    product is exact here, with the fraction read as the nearest ratio whose denominator is at most 1e9.
    """
    return int(Fraction(fraction).limit_denominator(10**9) * n)


def needed_prompts(presence: float, n: int) -> int:
    """How many of n prompts a presence (0-1] asks for: their product, exact, rounded up, at least 1."""
    return max(1, math.ceil(Fraction(presence).limit_denominator(10**9) * n))
