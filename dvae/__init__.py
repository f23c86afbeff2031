"""Discrete variational autoencoders with pluggable, certified gradient estimators, on PyTorch Lightning."""

from dvae import data, estimators, latents, networks
from dvae.certify import certify
from dvae.config import Module
from dvae.errors import InputError, NonFiniteError
from dvae.estimators import Estimate, GradientEstimator
from dvae.evaluate import evaluate
from dvae.models import DiscreteVAE
from dvae.replicas import Replicas, replicate

__version__ = "0.1.0"

__all__ = [
    "DiscreteVAE",
    "Estimate",
    "GradientEstimator",
    "InputError",
    "Module",
    "NonFiniteError",
    "Replicas",
    "certify",
    "data",
    "estimators",
    "evaluate",
    "latents",
    "networks",
    "replicate",
]
