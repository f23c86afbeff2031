"""Discrete variational autoencoders with pluggable, certified gradient estimators, on PyTorch Lightning."""

from dvae import estimators, latents, networks
from dvae.certify import certify
from dvae.config import Module
from dvae.errors import InputError, NonFiniteError
from dvae.estimators import Estimate, GradientEstimator
from dvae.models import DiscreteVAE

__all__ = [
    "DiscreteVAE",
    "Estimate",
    "GradientEstimator",
    "InputError",
    "Module",
    "NonFiniteError",
    "certify",
    "estimators",
    "latents",
    "networks",
]
