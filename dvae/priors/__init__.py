"""Distributions of the top layer's code, p(b)."""

from dvae.priors.base import Prior
from dvae.priors.factorial import Factorial

__all__ = ["Factorial", "Prior"]
