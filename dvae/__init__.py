"""Discrete variational autoencoders with pluggable, certified gradient estimators, on PyTorch Lightning."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dvae import data, estimators, lab, latents, likelihoods, models, networks, priors, training
    from dvae.config import Module
    from dvae.errors import InputError, NonFiniteError
    from dvae.estimators import Estimate, GradientEstimator
    from dvae.lab.certify import certify
    from dvae.lab.evaluate import evaluate
    from dvae.models import VAE
    from dvae.training.module import DiscreteVAE
    from dvae.training.sweep import Replicas, replicate

__version__ = "0.1.0"

# Where each public name lives. Nothing is imported before it is asked for: PyTorch takes a second, Lightning three.
_HOMES = {
    "DiscreteVAE": "dvae.training.module",
    "Estimate": "dvae.estimators",
    "GradientEstimator": "dvae.estimators",
    "InputError": "dvae.errors",
    "Module": "dvae.config",
    "NonFiniteError": "dvae.errors",
    "Replicas": "dvae.training.sweep",
    "VAE": "dvae.models",
    "certify": "dvae.lab.certify",
    "evaluate": "dvae.lab.evaluate",
    "replicate": "dvae.training.sweep",
}
_PACKAGES = ("data", "estimators", "lab", "latents", "likelihoods", "models", "networks", "priors", "training")

__all__ = [
    "VAE",
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
    "lab",
    "latents",
    "likelihoods",
    "models",
    "networks",
    "priors",
    "replicate",
    "training",
]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"dvae.{name}")
    if name in _HOMES:
        found = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = found
        return found
    raise AttributeError(f"module 'dvae' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
