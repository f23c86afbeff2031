"""Gradient estimators, one file per family."""

from dvae.estimators.antithetic import ARM, ARMS, U2G, DisARM
from dvae.estimators.base import Draw, Estimate, GradientEstimator
from dvae.estimators.catalogue import CATALOGUE, Facts, facts
from dvae.estimators.concrete import Concrete
from dvae.estimators.exact import Exact
from dvae.estimators.multi_sample import VIMCO, MultiSampleDisARM
from dvae.estimators.reinforce import LOO, NVIL, REINFORCE
from dvae.estimators.relax import REBAR, RELAX
from dvae.estimators.reparameterization import LAX, Reparameterization
from dvae.estimators.stein import RODEO
from dvae.estimators.straight_through import GumbelStraightThrough, ReinMax, StraightThrough
from dvae.estimators.taylor import DoubleCV, MuProp

__all__ = [
    "ARM",
    "ARMS",
    "CATALOGUE",
    "LAX",
    "LOO",
    "NVIL",
    "REBAR",
    "REINFORCE",
    "RELAX",
    "RODEO",
    "U2G",
    "VIMCO",
    "Concrete",
    "DisARM",
    "DoubleCV",
    "Draw",
    "Estimate",
    "Exact",
    "Facts",
    "GradientEstimator",
    "GumbelStraightThrough",
    "MuProp",
    "MultiSampleDisARM",
    "ReinMax",
    "Reparameterization",
    "StraightThrough",
    "facts",
]
