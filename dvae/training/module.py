"""The LightningModule that people train and subclass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from dvae.errors import InputError
from dvae.estimators import GradientEstimator
from dvae.latents import Latent
from dvae.likelihoods import Likelihood
from dvae.metrics import ActiveUnits, CodeEntropy, MeanWithError
from dvae.models import VAE
from dvae.models.building import require_at_least
from dvae.networks.convolutional import is_convolutional
from dvae.objectives import importance_weighted_bound
from dvae.priors import Prior
from dvae.training import lightning
from dvae.training.compilation import FAILURES, compiled, warn_not_compiled
from dvae.training.single import VALIDATE, Trainable
from dvae.training.step import StepOutput, step_loss

__all__ = ["DiscreteVAE"]

# Separates the noise of a prior's constant from that of training and validation under one seed.
_NORMALIZE = 2
# Updates from which on compiling is won back: some ten seconds at one ms an update, of convolutions a minute at 15.
_WORTH_COMPILING, _WORTH_COMPILING_CONVOLUTIONS = 10_000, 4_000


class DiscreteVAE(VAE, Trainable):
    r"""A variational autoencoder with discrete latents, trained with a pluggable gradient estimator.

    .. math:: \text{ELBO}(x) = E_{q(b|x)}[\log p(x|b) + \log p(b) - \log q(b|x)]

    The model is :class:`dvae.models.VAE`, where its mathematics stands; this adds what a Lightning Trainer needs. The encoder's
    centre and the outputs' start are set from the data when training starts.

    Arguments:
        estimator, encoder, decoder, prior, likelihood, num_pixels, num_latents, latent, num_classes, num_layers, kl, beta,
            free_bits, kl_balance, direct_gradient: of the model, see :class:`dvae.models.VAE`.
        image_shape: of the model, too.
        input_key: which part of a loader's batches is x: an index of a tuple, the first by default, or a key of a mapping.
        lr: learning rate of theta (encoder, decoder, prior).
        phi_lr: learning rate of phi (the estimator's parameters); as ``lr`` where it is None.
        betas: of Adam, its two decay rates; the paper's values.
        eps: of Adam.
        weight_decay: on theta. A network inside an estimator has its own.
        optimizer: a config of another class of ``torch.optim``, over the same groups and with the settings above that it knows,
            such as ``{"class_path": "torch.optim.AdamW"}``; Adam where it is None. Adam and AdamW are part of the compiled step.
        lr_scheduler: a config of a class of ``torch.optim.lr_scheduler``, stepped once per update, such as
            ``{"class_path": "torch.optim.lr_scheduler.CosineAnnealingLR", "init_args": {"T_max": 100000}}``. Values for each
            parameter group are two, theta's and phi's (theta's alone where there is no phi), also of one out of many replicas.
        gradient_clip_norm: largest norm of theta's gradient and, separately, of phi's; None for no clipping.
        accumulate_grad_batches: batches whose gradients are averaged before an update.
        phi_warmup_steps: the first updates change phi alone (1,000 in the paper for RELAX); skipped where there is no phi.
        val_num_samples: samples of the importance-weighted bound in validation.
        compile: run the whole step as one compiled function: faster after a compilation of some seconds. "auto" does so in runs of
            at least 10,000 updates, 4,000 with convolutions. The last batch of an epoch, if it is smaller, runs as it is. Where an
            estimator's or a subclass's code cannot be compiled, one warning says why and the step runs as it is. On a GPU a
            compiled step does not see what is changed meanwhile, tensors changed in place apart.
        steps_per_execution: batches that one ``training_step`` takes, so that Lightning's own work is done once for all of them. It
            changes no number: steps, logs, validations, schedules and checkpoints are where they are with 1. Where a callback has
            hooks around a batch, it is 1, and a warning says so.
        seed: of the sampling noise; PyTorch's seed where it is None. The noise of an iteration is a function of (seed, process,
            iteration) alone.

    Raises:
        InputError: an argument is outside its range or does not fit the others.

    Example:
        >>> model = dvae.DiscreteVAE(num_pixels=6, num_latents=4)
        >>> model.elbo(torch.zeros(3, 6)).shape
        torch.Size([3])
    """

    def __init__(
        self,
        estimator: GradientEstimator | dict[str, Any] | None = None,
        encoder: nn.Module | dict[str, Any] | list[Any] | None = None,
        decoder: nn.Module | dict[str, Any] | list[Any] | None = None,
        prior: Prior | dict[str, Any] | None = None,
        likelihood: Likelihood | dict[str, Any] | None = None,
        *,
        num_pixels: int | None = None,
        image_shape: Sequence[int] | None = None,
        num_latents: int = 200,
        latent: str | type[Latent] = "Bernoulli",
        num_classes: int | None = None,
        num_layers: int = 1,
        kl: Literal["sampled", "analytic"] = "sampled",
        beta: float = 1.0,
        free_bits: float | None = None,
        kl_balance: float | None = None,
        direct_gradient: bool | None = None,
        lr: float = 1e-3,
        phi_lr: float | None = None,
        betas: tuple[float, float] = (0.9, 0.99999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        optimizer: dict[str, Any] | None = None,
        lr_scheduler: dict[str, Any] | None = None,
        gradient_clip_norm: float | None = None,
        accumulate_grad_batches: int = 1,
        phi_warmup_steps: int = 0,
        val_num_samples: int = 100,
        compile: bool | Literal["auto"] = "auto",
        steps_per_execution: int = 1,
        seed: int | None = None,
        input_key: int | str | None = None,
    ) -> None:
        super().__init__(
            estimator,
            encoder,
            decoder,
            prior,
            likelihood,
            num_pixels=num_pixels,
            image_shape=image_shape,
            num_latents=num_latents,
            latent=latent,
            num_classes=num_classes,
            num_layers=num_layers,
            kl=kl,
            beta=beta,
            free_bits=free_bits,
            kl_balance=kl_balance,
            direct_gradient=direct_gradient,
        )
        self.save_hyperparameters(self.config["init_args"])
        require_at_least(1, val_num_samples=val_num_samples)
        require_at_least(0, phi_lr=phi_lr or 0.0, phi_warmup_steps=phi_warmup_steps)
        if compile not in (True, False, "auto"):
            raise InputError(f"compile must be true, false or 'auto', got {compile!r}")
        self.set_up(
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            gradient_clip_norm=gradient_clip_norm,
            accumulate_grad_batches=accumulate_grad_batches,
            steps_per_execution=steps_per_execution,
            seed=seed,
            input_key=input_key,
        )
        self.phi_lr, self.phi_warmup_steps = lr if phi_lr is None else phi_lr, phi_warmup_steps
        self.val_num_samples = val_num_samples
        self.compile_step = compile
        self.start_metrics()
        self._compiling = compile is True
        self._compiled_step: Callable[..., StepOutput] | None = None

    def start_training(self, trainer: pl.Trainer) -> None:
        """Decide whether to compile, and set the data's mean where it is not set."""
        least = _WORTH_COMPILING_CONVOLUTIONS if is_convolutional(self) else _WORTH_COMPILING
        self._compiling = self.compile_step is True or (self.compile_step == "auto" and trainer.estimated_stepping_batches >= least)
        super().start_training(trainer)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Theta's group of the optimizer and, where there is a phi, phi's."""
        groups: list[dict[str, Any]] = [{"params": self.theta(), "lr": self.lr, "weight_decay": self.weight_decay}]
        if self.phi():
            groups.append({"params": self.phi(), "lr": self.phi_lr, "weight_decay": 0.0})
        return groups

    @property
    def compiles(self) -> bool:
        """Whether the step of this run is compiled."""
        return self._compiling

    def stop_compiling(self, error: Exception) -> None:
        """Say why the step is not compiled, and run it as it is from here on."""
        warn_not_compiled(error)
        self._compiling = False

    def _may_be_whole(self) -> bool:
        alone = self.accumulate_grad_batches == 1 and type(self).step is DiscreteVAE.step
        return self._compiling and alone and super()._may_be_whole()

    def step(self, x: Tensor, noise: Sequence[Tensor]) -> StepOutput:
        """The loss of one step, compiled if the model is to be; see :func:`dvae.training.step.step_loss`."""
        if not self._compiling:
            return step_loss(self, x, noise)
        if self._compiled_step is None:
            self._compiled_step = compiled(step_loss)
        try:
            return self._compiled_step(self, x, noise)
        except FAILURES as error:
            self.stop_compiling(error)
            return step_loss(self, x, noise)

    def replace_estimator(self, given: GradientEstimator | dict[str, Any]) -> None:
        """As in :class:`dvae.models.VAE`; an InputError in the middle of a fit, whose optimizer has the old one's parameters."""
        if lightning.is_fitted(self):
            raise InputError("estimator cannot be replaced in the middle of a fit: assign it before Trainer.fit or after it")
        super().replace_estimator(given)
        self.save_hyperparameters(self.config["init_args"])

    def keep_direct_gradient(self) -> None:
        super().keep_direct_gradient()
        self.save_hyperparameters(self.config["init_args"])

    def replace_prior(self, prior: Prior) -> None:
        """As in :class:`dvae.models.VAE`; an InputError in the middle of a fit, whose optimizer has the old one's parameters."""
        if lightning.is_fitted(self):
            raise InputError("prior cannot be replaced in the middle of a fit: do so before Trainer.fit or after it")
        super().replace_prior(prior)
        self.save_hyperparameters(self.config["init_args"])

    def start_metrics(self, **options: Any) -> None:
        """Make what validation adds up in; the options are of ``torchmetrics.Metric``."""
        self.val_elbo, self.val_bound = MeanWithError(**options), MeanWithError(**options)
        units = [ActiveUnits(self.latent.sample_shape, **options) for _ in range(self.num_layers)]
        self.val_units: Sequence[ActiveUnits] = nn.ModuleList(units)  # type: ignore[assignment]
        entropies = [CodeEntropy(self.latent.place_shape, **options) for _ in range(self.num_layers) if self.latent.num_values]
        self.val_entropies: Sequence[CodeEntropy] = nn.ModuleList(entropies)  # type: ignore[assignment]

    def measure(self, x: Tensor, rank: int, batch_idx: int) -> None:
        """Add a validation batch to what :meth:`start_metrics` made."""
        if batch_idx == 0:
            self.prior.normalize(self._seeded(_NORMALIZE, 0, 0))
        layers = self.sample_layers(x, self.val_num_samples, self._seeded(VALIDATE, rank, batch_idx))
        weights = self.terms(self.check_input(x), layers, kl="sampled").elbo
        self.val_elbo.update(weights.mean(0))
        self.val_bound.update(importance_weighted_bound(weights))
        for metric, layer in zip(self.val_units, layers, strict=True):
            metric.update(layer.q.mean.reshape(-1, *self.latent.sample_shape))
        for entropy, layer in zip(self.val_entropies, layers, strict=False):
            entropy.update(layer.q.mean)

    @property
    def figures(self) -> list[str]:
        """Names of what validation measures."""
        return ["elbo", "importance_weighted_bound", "active_units", *(["code_entropy"] if self.val_entropies else [])]

    def measured(self) -> dict[str, Tensor]:
        """The validation's :attr:`figures` by name, [] each: active units over all layers, entropy a mean over latents."""
        units = torch.stack([metric.compute() for metric in self.val_units]).sum()
        figures = {"elbo": self.val_elbo.compute(), "importance_weighted_bound": self.val_bound.compute()}
        if self.val_entropies:
            entropy = torch.cat([metric.compute().reshape(-1) for metric in self.val_entropies]).mean()
            figures["code_entropy"] = entropy.to(self.mean.dtype)
        return {**figures, "active_units": units.to(self.mean.dtype)}

    def reset_metrics(self) -> None:
        """Let the next validation start from nothing."""
        for metric in (self.val_elbo, self.val_bound, *self.val_units, *self.val_entropies):
            metric.reset()
