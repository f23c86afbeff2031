"""Gradient estimators, one file per family."""

from dvae.estimators.base import Draw, Estimate, GradientEstimator
from dvae.estimators.concrete import Concrete
from dvae.estimators.reinforce import LOO, NVIL, REINFORCE
from dvae.estimators.relax import REBAR, RELAX

__all__ = ["LOO", "NVIL", "REBAR", "REINFORCE", "RELAX", "Concrete", "Draw", "Estimate", "GradientEstimator"]
