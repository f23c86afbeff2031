"""Toy problems with an exact expected loss: one Bernoulli variable, and the order of a few items.

The one idea: where the loss is known exactly, what an estimator's variance costs is seen by itself, in many seeds at once.
"""

from dvae.lab.toy.bernoulli import SoftSurrogate, toy, toy_estimator
from dvae.lab.toy.engine import ToyProblem, ToyRun, estimator_for, write_csv
from dvae.lab.toy.permutation import permutation_problem, permutation_toy

__all__ = [
    "SoftSurrogate",
    "ToyProblem",
    "ToyRun",
    "estimator_for",
    "permutation_problem",
    "permutation_toy",
    "toy",
    "toy_estimator",
    "write_csv",
]
