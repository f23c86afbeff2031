"""Discrete variational autoencoders with pluggable, certified gradient estimators, on PyTorch Lightning.

The hard part of a model with discrete latent variables b is the gradient of :math:`E_{q(b|x)}[f(b)]` with respect to the parameters
of q. Here the gradient estimator is a part to choose, as an optimizer is in PyTorch. `DiscreteVAE` is the model, a LightningModule:

```python
# a model, trained and evaluated
import pytorch_lightning as pl

import dvae

model = dvae.DiscreteVAE(estimator=dvae.estimators.REBAR())
trainer = pl.Trainer(max_steps=20, enable_progress_bar=False, enable_model_summary=False, logger=False)
trainer.fit(model, datamodule=dvae.data.BinarizedMNIST())
trainer.save_checkpoint("model.ckpt")
print(dvae.evaluate("model.ckpt", num_samples=5).elbo.mean)
```

The rooms of the house, each a chapter; a room imports from those above it alone:

- `dvae.latents`: families of latents, their noise and relaxations
- `dvae.networks`: encoders, decoders, control variates' networks
- `dvae.likelihoods` and `dvae.priors`: p(x | b) and p(b)
- `dvae.estimators`: gradient estimators, one family a file
- `dvae.models`: the autoencoder's mathematics, without a trainer
- `dvae.data`: data sets
- `dvae.report`: tables, pictures and plots
- `dvae.training`: fitting: steps, checkpoints, long runs, speed, many models at once
- `dvae.rl`: policies, trained with the same estimators
- `dvae.lab`: certificates, evaluation, variance, the toy problem, timing
- `dvae.cli`: the `dvae` command
- `dvae.recipes`: estimators on expectations that are not a VAE's, in short programs to copy

On the ground floor are `dvae.config`, `dvae.errors`, `dvae.metrics`, `dvae.noise` and `dvae.objectives`; `dvae.testing` is for test
suites.

The examples on these pages that begin with `>>>` run after `import torch` and `import dvae`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dvae import data, estimators, lab, latents, likelihoods, models, networks, priors, rl, training
    from dvae.config import Module
    from dvae.errors import InputError, NonFiniteError
    from dvae.estimators import Estimate, GradientEstimator
    from dvae.lab.certify import certify
    from dvae.lab.evaluate import evaluate
    from dvae.models import VAE
    from dvae.training.checkpoints import init_from
    from dvae.training.module import DiscreteVAE
    from dvae.training.quantized import QuantizedAutoencoder
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
    "QuantizedAutoencoder": "dvae.training.quantized",
    "Replicas": "dvae.training.sweep",
    "VAE": "dvae.models",
    "certify": "dvae.lab.certify",
    "evaluate": "dvae.lab.evaluate",
    "init_from": "dvae.training.checkpoints",
    "replicate": "dvae.training.sweep",
}
_PACKAGES = ("data", "estimators", "lab", "latents", "likelihoods", "models", "networks", "priors", "rl", "training")

__all__ = [
    "VAE",
    "DiscreteVAE",
    "Estimate",
    "GradientEstimator",
    "InputError",
    "Module",
    "NonFiniteError",
    "QuantizedAutoencoder",
    "Replicas",
    "certify",
    "data",
    "estimators",
    "evaluate",
    "init_from",
    "lab",
    "latents",
    "likelihoods",
    "models",
    "networks",
    "priors",
    "replicate",
    "rl",
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
