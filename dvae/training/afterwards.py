"""Priors that are fitted afterwards, on the codes of a trained model."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor

from dvae.config import instantiate
from dvae.data import x_of
from dvae.errors import InputError
from dvae.metrics import MeanWithError
from dvae.models import VAE
from dvae.models.building import require_at_least
from dvae.noise import noise_stream, place, seeded_generator, uniform
from dvae.priors import Prior

__all__ = ["FittedPrior", "fit_prior"]

# Separates the noise of codes, of chains and of log Z, in training and in validation, under one seed.
_CODES, _CHAINS, _VALID_CODES, _NORMALIZE = range(4)


class FittedPrior(NamedTuple):
    """What :func:`fit_prior` did.

    model: a copy of the model, in evaluation mode, with the new prior.
    log_prob: the mean of log p(b) over validation codes, nats, where it was best; of the last training batch without a validation
        set.
    standard_error: of it, over examples; not a number without a validation set.
    step: updates after which the prior is taken.
    """

    model: Any
    log_prob: float
    standard_error: float
    step: int


def fit_prior(
    model: VAE,
    prior: Prior | Mapping[str, Any],
    data: pl.LightningDataModule,
    *,
    max_steps: int = 20_000,
    lr: float = 1e-3,
    val_check_interval: int = 1000,
    patience: int = 5,
    seed: int = 0,
    **trainer: Any,
) -> FittedPrior:
    r"""Fit another prior to the codes of a model, whose other parts stay as they are.

    .. math:: \max_p \; E_{x} E_{q(b|x)}[\log p(b)]

    The ELBO grows by as much as this does: what is left of the KL is how far p is from the mean of q over the data. Codes are drawn
    afresh for each batch of the training split; the prior that is best on the validation split's is kept.

    Arguments:
        model: which is left as it was.
        prior: a new one, or its config.
        data: whose training and validation batches are encoded.
        max_steps: updates by Adam.
        lr: its learning rate.
        val_check_interval: updates between validations.
        patience: validations without a better one after which fitting ends.
        seed: of the noise and of the prior's initial weights.
        trainer: further arguments of Lightning's Trainer, such as ``logger`` and ``accelerator``.

    Raises:
        InputError: a number is out of its range, or the prior is not for the model's latents or its ``kl``.

    Example:
        >>> from dvae.training.afterwards import fit_prior
        >>> data = dvae.data.ArrayData(torch.eye(16).repeat(8, 1), valid_fraction=0.25, batch_size=8)
        >>> model = dvae.VAE(num_pixels=16, num_latents=4)
        >>> quiet = dict(logger=False, enable_progress_bar=False, accelerator="cpu")
        >>> fitted = fit_prior(model, dvae.priors.Autoregressive(), data, max_steps=4, **quiet)
        >>> type(fitted.model.prior).__name__, type(model.prior).__name__
        ('Autoregressive', 'Factorial')
    """
    require_at_least(1, max_steps=max_steps, val_check_interval=val_check_interval, patience=patience)
    if not lr > 0:
        raise InputError(f"lr must be positive, got {lr}")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        prior = instantiate(prior, Prior, "prior")
        prior.build(model.latent)
    new = copy.deepcopy(model).eval()
    new.replace_prior(prior)
    module = _Fit(new, lr, patience, seed)
    quiet = {"enable_checkpointing": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    options = {"max_epochs": -1, "devices": 1, **quiet, **trainer}
    interval = min(val_check_interval, max_steps)
    pl.Trainer(max_steps=max_steps, val_check_interval=interval, check_val_every_n_epoch=None, **options).fit(
        module, datamodule=data
    )
    return module.result()


class _Fit(pl.LightningModule):
    """The fit of a model's prior on codes that are drawn from its encoder."""

    def __init__(self, model: VAE, lr: float, patience: int, seed: int) -> None:
        super().__init__()
        self.model, self.lr, self.patience, self.seed = model, lr, patience, seed
        self.model.requires_grad_(False)
        self.model.prior.requires_grad_(True)
        self.mean = MeanWithError()
        self.best: dict[str, Tensor] | None = None
        self.best_figures, self.last = (-math.inf, math.nan, 0), math.nan
        self.waited = 0

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.model.prior.parameters(), lr=self.lr)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        prior, step = self.model.prior, self.global_step
        if prior.noise_shape is not None:
            counter = torch.tensor(step, device=self.device)
            noise = uniform(place(noise_stream(self.seed, _CHAINS), counter), prior.noise_shape, self.model.mean.dtype)
            prior.advance(noise)
        value = prior().log_prob(self._codes(batch, _CODES, step)).mean()
        self.log("train/log_prob", value.detach(), prog_bar=True)
        self.last = float("nan") if not torch.isfinite(value) else value.item()
        if not math.isfinite(self.last):
            raise InputError(f"lr must be smaller: log p(b) is no longer finite after {step} updates, got lr={self.lr}")
        return -value

    def on_validation_epoch_start(self) -> None:
        self.mean.reset()
        self.model.prior.normalize(self._generator(_NORMALIZE))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.mean.update(self.model.prior().log_prob(self._codes(batch, _VALID_CODES, batch_idx)))

    def on_validation_epoch_end(self) -> None:
        value, error = self.mean.compute().item(), self.mean.standard_error.item()
        self.log("val/log_prob", value, prog_bar=True)
        if value > self.best_figures[0]:
            self.best = {name: tensor.clone() for name, tensor in self.model.prior.state_dict().items()}
            self.best_figures, self.waited = (value, error, self.global_step), 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            self.trainer.should_stop = True

    def result(self) -> FittedPrior:
        """The model with the best prior, or the last one where none was validated."""
        model = self.model.requires_grad_(True).eval()
        if self.best is None:
            model.prior.normalize(self._generator(_NORMALIZE))
            return FittedPrior(model, self.last, math.nan, self.global_step)
        model.prior.load_state_dict(self.best)
        return FittedPrior(model, *self.best_figures)

    @torch.no_grad()
    def _codes(self, batch: Any, *counters: int) -> Tensor:
        """The top layer's sample of each example, [B, *sample]."""
        x = x_of(batch, getattr(self.model, "input_key", None))
        return self.model.sample_layers(x, 1, self._generator(*counters))[-1].sample[0]

    def _generator(self, *counters: int) -> torch.Generator:
        return seeded_generator(torch.Generator(), self.seed, *counters)
