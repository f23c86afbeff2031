"""DiscreteVAE: a LightningModule around encoder, decoder, prior and gradient estimator."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from dvae.config import Configurable, import_class, instantiate
from dvae.errors import InputError, NonFiniteError
from dvae.estimators import RELAX, GradientEstimator
from dvae.execution import block, count_updates, logs_now, usual_batch_size
from dvae.latents import Latent
from dvae.metrics import MeanWithError
from dvae.networks import FactorialPrior, Linear
from dvae.noise import noise_stream, place, seeded_generator, uniform
from dvae.objectives import ELBOTerms, bernoulli_log_likelihood, importance_weighted_bound
from dvae.step import Layer, StepOutput, step_loss
from dvae.update import FAILURES, NotCompilable, Update, compiled, fits, warn_not_compiled

__all__ = ["DiscreteVAE"]

# Separates the noise of validation from the noise of training under one seed.
_TRAIN, _VALIDATE = 0, 1
# Updates from which on compiling, some ten seconds, is won back.
_WORTH_COMPILING = 10_000


class DiscreteVAE(Configurable, pl.LightningModule):
    r"""A variational autoencoder with discrete latents, trained with a pluggable gradient estimator.

    .. math:: \text{ELBO}(x) = E_{q(b|x)}[\log p(x|b) + \log p(b) - \log q(b|x)]

    With L stochastic layers, :math:`q = \prod_l q(b_l | b_{l-1})`, b_0 = x, and :math:`p = p(b_L) \prod_l p(b_{l-1} | b_l)`. The
    defaults are the linear model L1 of Grathwohl et al. 2018; ``num_layers=2`` is their L2, and :class:`dvae.networks.MLP` as
    encoder and decoder their NL1. The encoder sees x less the training set's mean, further maps see 2b - 1, and the pixels' logits
    have the logit of the mean added: both are set from the data when training starts.

    Every module argument is an instance or a config ``{"class_path": ..., "init_args": {...}}``.

    Arguments:
        estimator: the gradient estimator; RELAX by default. With several layers each gets a copy.
        encoder: features to latent logits; with several layers a list, from the pixels up.
        decoder: 2b - 1 to logits of the layer below; with several layers a list, from the pixels up.
        prior: a module that returns the top layer's prior logits [D].
        num_pixels: size of x.
        num_latents: D, latents in each layer.
        latent: their family: "Bernoulli", "Categorical" or "Gaussian" (continuous), or a class derived from
            :class:`dvae.latents.Latent`, or its import path.
        num_classes: C of categorical latents; None for the others.
        num_layers: L, stochastic layers.
        kl: "sampled", as in the paper, or "analytic", with closed forms where they exist (lower variance).
        lr: learning rate of theta (encoder, decoder, prior).
        phi_lr: learning rate of phi (the estimator's parameters); as ``lr`` where it is None.
        betas, eps: of Adam; the paper's values.
        weight_decay: L2 penalty on theta. A network inside an estimator has its own.
        lr_scheduler: a config of a class of ``torch.optim.lr_scheduler``, stepped once per update, such as
            ``{"class_path": "torch.optim.lr_scheduler.CosineAnnealingLR", "init_args": {"T_max": 100000}}``.
        gradient_clip_norm: largest norm of theta's gradient and, separately, of phi's; None for no clipping.
        accumulate_grad_batches: batches whose gradients are averaged before an update.
        phi_warmup_steps: the first updates change phi alone (1,000 in the paper for RELAX); skipped where there is no phi.
        val_num_samples: samples of the importance-weighted bound in validation.
        compile: run the whole step as one compiled function, :class:`dvae.update.Update`: faster after a compilation of some
            seconds. "auto" does so in runs of at least 10,000 updates. The last batch of an epoch, if it is smaller, runs as it is.
            Where an estimator's or a subclass's code cannot be compiled, one warning says why and the step runs as it is. On a GPU
            a compiled step does not see what is changed meanwhile, tensors changed in place apart.
        steps_per_execution: batches that one ``training_step`` takes, so that Lightning's own work is done once for all of them. It
            changes no number: steps, logs, validations, schedules and checkpoints are where they are with 1. Only callbacks'
            hooks around a batch are called once for all.
        seed: of the sampling noise; PyTorch's seed where it is None. The noise of an iteration is a function of (seed, process,
            iteration) alone.

    Raises:
        InputError: an argument is outside its range or does not fit the others.

    >>> model = DiscreteVAE(num_pixels=6, num_latents=4)
    >>> model.elbo(torch.zeros(3, 6)).shape
    torch.Size([3])
    """

    mean: Tensor
    output_bias: Tensor
    mean_is_set: Tensor

    def __init__(
        self,
        estimator: GradientEstimator | dict | None = None,
        encoder: nn.Module | dict | list | None = None,
        decoder: nn.Module | dict | list | None = None,
        prior: nn.Module | dict | None = None,
        *,
        num_pixels: int = 784,
        num_latents: int = 200,
        latent: str | type[Latent] = "Bernoulli",
        num_classes: int | None = None,
        num_layers: int = 1,
        kl: Literal["sampled", "analytic"] = "sampled",
        lr: float = 1e-3,
        phi_lr: float | None = None,
        betas: tuple[float, float] = (0.9, 0.99999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        lr_scheduler: dict | None = None,
        gradient_clip_norm: float | None = None,
        accumulate_grad_batches: int = 1,
        phi_warmup_steps: int = 0,
        val_num_samples: int = 100,
        compile: bool | Literal["auto"] = "auto",
        steps_per_execution: int = 1,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.save_hyperparameters(self.config["init_args"])
        _require_at_least(1, num_pixels=num_pixels, num_latents=num_latents, num_layers=num_layers)
        _require_at_least(1, accumulate_grad_batches=accumulate_grad_batches, val_num_samples=val_num_samples)
        _require_at_least(1, steps_per_execution=steps_per_execution)
        if compile not in (True, False, "auto"):
            raise InputError(f"compile must be true, false or 'auto', got {compile!r}")
        _require_at_least(0, lr=lr, phi_lr=phi_lr or 0.0, weight_decay=weight_decay, phi_warmup_steps=phi_warmup_steps)
        _require_at_least(0, eps=eps)
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise InputError(f"betas must be two numbers in [0, 1), got {betas}")
        if kl not in ("sampled", "analytic"):
            raise InputError(f"kl must be 'sampled' or 'analytic', got {kl!r}")
        if gradient_clip_norm is not None and not gradient_clip_norm > 0:
            raise InputError(f"gradient_clip_norm must be positive or None, got {gradient_clip_norm}")
        self.num_pixels, self.num_latents, self.num_layers = num_pixels, num_latents, num_layers
        self.kl = kl
        self.lr, self.phi_lr = lr, lr if phi_lr is None else phi_lr
        self.betas, self.eps, self.weight_decay = (betas[0], betas[1]), eps, weight_decay
        self.lr_scheduler = lr_scheduler
        self.gradient_clip_norm = gradient_clip_norm
        self.accumulate_grad_batches = accumulate_grad_batches
        self.phi_warmup_steps = phi_warmup_steps
        self.val_num_samples = val_num_samples
        self.seed = torch.initial_seed() if seed is None else seed
        self.clock_was_read = False
        self.iteration = 0

        self.latent = latent_family(latent)
        self.logits_shape, self.sample_shape = self.latent.shapes(num_latents, num_classes)
        num_logits, num_features = math.prod(self.logits_shape), math.prod(self.sample_shape)
        features = [num_pixels] + [num_features] * num_layers
        logits = [num_pixels] + [num_logits] * num_layers
        # The estimator first, then from the pixels up: as they would be made before they are handed over, from the same seed.
        first = RELAX() if estimator is None else instantiate(estimator, GradientEstimator, "estimator")
        self.encoders = self._layers(encoder, "encoder", features[:-1], logits[1:])
        self.decoders = self._layers(decoder, "decoder", features[1:], logits[:-1])
        self.prior = FactorialPrior(num_logits) if prior is None else instantiate(prior, nn.Module, "prior")
        first.require_support(self.latent)
        if first.multi_sample and kl != "sampled":
            raise InputError(f"kl must be 'sampled' for the K-sample bound of {type(first).__name__}, got {kl!r}")
        estimators = [first] + [copy.deepcopy(first) for _ in range(num_layers - 1)]
        for index, layer_estimator in enumerate(estimators):
            layer_estimator.ensure_built(num_features, num_pixels + index * num_features)
        self.estimators: Sequence[GradientEstimator] = nn.ModuleList(estimators)  # type: ignore[assignment]

        self.register_buffer("mean", torch.full((num_pixels,), 0.5))
        self.register_buffer("output_bias", torch.zeros(num_pixels))
        self.register_buffer("mean_is_set", torch.tensor(False))
        self.val_elbo, self.val_bound = MeanWithError(), MeanWithError()
        self.compile_step, self.steps_per_execution = compile, steps_per_execution
        self._compiling = compile is True
        self._compiled_step: Callable[..., StepOutput] | None = None
        self._update: Update | None = None
        self._generator: torch.Generator | None = None
        self._running: dict[str, Tensor] = {}
        self._num_running = 0
        self._train_elbo: Tensor | None = None

    # What changes from step to step without being a tensor; a compiled step must not look at it.

    @property
    def iteration(self) -> int:
        """Batches trained on so far."""
        self.clock_was_read = True
        return self._iteration

    @iteration.setter
    def iteration(self, value: int) -> None:
        self._iteration = value

    @property
    def trainer(self) -> pl.Trainer:
        self.clock_was_read = True
        return super().trainer

    @trainer.setter
    def trainer(self, trainer: pl.Trainer | None) -> None:
        pl.LightningModule.trainer.fset(self, trainer)  # type: ignore[attr-defined]

    # The model ----------------------------------------------------------------------------------------------------------------

    def infer(self, index: int, x: Tensor, below: Sequence[Tensor]) -> Any:
        """q(b_index | ...): of x [B, num_pixels] for the first layer, else of the layer below, [*, B, D]."""
        features = x - self.mean if index == 0 else self.latent.features(below[index - 1])
        return self._distribution(self.encoders[index](features))

    def priors(self, layers: Sequence[Layer]) -> list[Any]:
        """p(b_l | b_{l+1}) of each layer, from the pixels up; the top one's is :attr:`prior`."""
        above = [self._distribution(self.decoders[i](self.latent.features(layers[i].sample))) for i in range(1, self.num_layers)]
        return [*above, self._distribution(self.prior())]

    def encode(self, x: Tensor) -> Any:
        """q(b_1 | x), the distribution of the code of x, logits [B, D]."""
        return self.infer(0, self.check_input(x), [])

    def decode(self, b: Tensor) -> Tensor:
        """Logits of the pixels given the first layer's sample: [*, B, D] to [*, B, num_pixels]."""
        return self.decoders[0](self.latent.features(b)) + self.output_bias

    def log_likelihood(self, x: Tensor, b: Tensor) -> Tensor:
        """log p(x | b), [*, B]; override it for pixels that are not binary."""
        return bernoulli_log_likelihood(x, self.decode(b))

    def rollout(
        self,
        x: Tensor,
        noise: Sequence[Tensor],
        known: Sequence[Layer] = (),
        temperature: Tensor | float | None = None,
    ) -> list[Layer]:
        """Sample the layers that are not yet known, from the pixels up: hard, or relaxed where a temperature is given."""
        layers = list(known)
        for index in range(len(layers), self.num_layers):
            q = self.infer(index, x, [layer.sample for layer in layers])
            z = q.relaxed(noise[index][0])
            layers.append(Layer(q, z, q.hard(z) if temperature is None else q.soft(z, temperature)))
        return layers

    def terms(self, x: Tensor, layers: Sequence[Layer], kl: str | None = None) -> ELBOTerms:
        """The ELBO's parts at these samples, [K, B] each; ``kl`` overrides the model's choice of sampled or analytic."""
        analytic = (kl or self.kl) == "analytic"
        reconstruction = self.log_likelihood(x, layers[0].sample)
        divergence = torch.zeros_like(reconstruction)
        for index, (layer, prior) in enumerate(zip(layers, self.priors(layers), strict=True)):
            if not analytic:
                divergence = divergence + layer.q.log_prob(layer.sample) - prior.log_prob(layer.sample)
            elif index == self.num_layers - 1:
                divergence = divergence + layer.q.kl(prior)
            else:
                # The prior of a lower layer depends on the layer above it, which depends on this sample: only q's part is closed.
                divergence = divergence - layer.q.entropy() - prior.log_prob(layer.sample)
        return ELBOTerms(reconstruction, divergence)

    def objective(self, terms: ELBOTerms) -> Tensor:
        """What training maximises, [K, B]: the ELBO. Override it for another objective made of the same terms."""
        return terms.elbo

    def context(self, x: Tensor, below: Sequence[Layer]) -> Tensor:
        """What an estimator's networks may look at: the centred input and 2b - 1 of the layers before, [*, B, C]."""
        centred = x - self.mean
        samples = [self.latent.features(layer.sample) for layer in below]
        if not samples:
            return centred
        return torch.cat([centred.expand(*samples[0].shape[:-1], -1), *samples], dim=-1)

    def noise(self, batch_size: int, *, num_samples: int | None = None, generator: torch.Generator | None = None) -> list[Tensor]:
        """Uniforms for :meth:`rollout`, [num_noise, K, batch_size, *sample_shape] for each layer, drawn anew.

        Training takes :meth:`training_noise` instead.
        """
        dtype, device = self._noise_dtype, self.mean.device
        shapes = self._noise_shapes(batch_size, num_samples)
        return [torch.rand(shape, generator=generator, dtype=dtype, device=device) for shape in shapes]

    def noise_stream(self, rank: int) -> int:
        """Where the training noise of one process comes from; see :meth:`training_noise`."""
        return noise_stream(self.seed, _TRAIN, rank)

    def training_noise(self, batch_size: int, stream: Tensor | int, iteration: Tensor | int) -> list[Tensor]:
        """The noise of one iteration of training, of the same shapes as :meth:`noise`.

        Arguments:
            batch_size: examples.
            stream: what :meth:`noise_stream` gave, or the same as a tensor [].
            iteration: from 0 on.
        """
        # Filled in on the device: a copy from the host would wait for it.
        counter = iteration if isinstance(iteration, Tensor) else torch.full((), iteration, device=self.mean.device)
        start, noise = place(stream, counter), []
        for shape in self._noise_shapes(batch_size):
            noise.append(uniform(start, shape, self._noise_dtype))
            start = start + math.prod(shape)
        return noise

    def _noise_shapes(self, batch_size: int, num_samples: int | None = None) -> list[tuple[int, ...]]:
        of_each = [
            (estimator.num_noise, estimator.num_samples) if num_samples is None else (1, num_samples)
            for estimator in self.estimators
        ]
        return [(*numbers, batch_size, *self.sample_shape) for numbers in of_each]

    @property
    def _noise_dtype(self) -> torch.dtype:
        return torch.float64 if self.mean.dtype == torch.float64 else torch.float32

    def sample_layers(self, x: Tensor, num_samples: int = 1, generator: torch.Generator | None = None) -> list[Layer]:
        """Hard samples of every layer, [num_samples, B, D]."""
        x = self.check_input(x)
        return self.rollout(x, self.noise(x.shape[0], num_samples=num_samples, generator=generator))

    def elbo(self, x: Tensor, num_samples: int = 1, generator: torch.Generator | None = None) -> Tensor:
        """The ELBO of each example in nats, [B], averaged over ``num_samples`` samples.

        Arguments:
            x: [B, num_pixels] or any [B, ...] of as many values, in [0, 1].

        Raises:
            InputError: x has another size, or values outside [0, 1].
        """
        layers = self.sample_layers(x, num_samples, generator)
        return self.terms(self.check_input(x), layers).elbo.mean(0)

    def log_weights(self, x: Tensor, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """log p(x, b) - log q(b | x) for samples from q, [num_samples, B]."""
        layers = self.sample_layers(x, num_samples, generator)
        return self.terms(self.check_input(x), layers, kl="sampled").elbo

    def importance_weighted_bound(self, x: Tensor, num_samples: int = 100, generator: torch.Generator | None = None) -> Tensor:
        """The multi-sample bound on log p(x) of each example in nats, [B] (Burda et al. 2016)."""
        return importance_weighted_bound(self.log_weights(x, num_samples, generator))

    def sample(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """Pixel probabilities of ancestral samples from the prior, [num_samples, num_pixels]."""
        logits = self.prior().expand(num_samples, -1)
        for decoder in reversed(list(self.decoders)[1:]):
            logits = decoder(self.latent.features(self._draw(logits, generator)))
        return torch.sigmoid(self.decode(self._draw(logits, generator)))

    def reconstruct(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Pixel probabilities given one sampled code of each x, [B, num_pixels]."""
        layers = self.sample_layers(x, 1, generator)
        return torch.sigmoid(self.decode(layers[0].sample[0]))

    def forward(self, x: Tensor) -> Tensor:
        """The most probable code of each x, [B, D] in {0, 1} ([B, D, C], one-hot, for categorical latents)."""
        return self.encode(x).mode()

    def check_input(self, x: Tensor) -> Tensor:
        """x as [B, num_pixels] of the model's type; an InputError says what is wrong with it."""
        x = self._flat(x)
        low, high = torch.aminmax(x) if x.numel() else (x.new_zeros(()), x.new_zeros(()))
        if not (low >= 0 and high <= 1):
            raise InputError(f"x must hold values in [0, 1], got values from {low.item():g} to {high.item():g}")
        return x

    def set_mean(self, mean: Tensor) -> None:
        """Centre the encoder's input at the data's mean, [num_pixels], and start the pixels' logits at its logit."""
        if mean.shape != self.mean.shape:
            raise InputError(f"mean must have shape {tuple(self.mean.shape)}, got {tuple(mean.shape)}")
        self.mean.copy_(mean)
        self.output_bias.copy_(torch.logit(mean.clamp(0.001, 0.999)))
        self.mean_is_set.fill_(True)

    # Training -----------------------------------------------------------------------------------------------------------------

    def named_theta(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters of encoder, decoder and prior; everything that is not an estimator's."""
        for name, parameter in self.named_parameters(remove_duplicate=False):
            if not name.startswith("estimators."):
                yield name, parameter

    def theta(self) -> list[nn.Parameter]:
        """Parameters of the model proper, trained on the ELBO."""
        return list(dict.fromkeys(parameter for _, parameter in self.named_theta()))

    def phi(self) -> list[nn.Parameter]:
        """Parameters of the estimators, trained on the variance of the gradient."""
        return [parameter for estimator in self.estimators for parameter in estimator.parameters()]

    def configure_optimizers(self) -> Any:
        if not torch.cuda.is_available():
            # Lightning makes PyTorch look for a GPU by loading its driver's library, for the sake of forked processes; every
            # optimizer step looks again, which costs 0.2 ms where there is none. Without a GPU the plain look is as safe.
            os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)
        groups: list[dict[str, Any]] = [{"params": self.theta(), "lr": self.lr, "weight_decay": self.weight_decay}]
        if self.phi():
            groups.append({"params": self.phi(), "lr": self.phi_lr, "weight_decay": 0.0})
        optimizer = torch.optim.Adam(groups, betas=self.betas, eps=self.eps, fused=True)
        if self.lr_scheduler is None:
            return optimizer
        scheduler = instantiate(self.lr_scheduler, torch.optim.lr_scheduler.LRScheduler, "lr_scheduler", optimizer=optimizer)
        return [optimizer], [scheduler]

    def on_train_end(self) -> None:
        self._update = None  # what it holds would go into every copy of the model

    def on_train_start(self) -> None:
        self.start_training(self.trainer)

    def start_training(self, trainer: pl.Trainer) -> None:
        """Decide whether to compile, and set the data's mean where it is not set."""
        self._compiling = self.compile_step is True or (
            self.compile_step == "auto" and trainer.estimated_stepping_batches >= _WORTH_COMPILING
        )
        self._update = None
        if self.mean_is_set:
            return
        mean = getattr(trainer.datamodule, "mean", None)  # type: ignore[attr-defined]
        if mean is None:
            mean = self._mean_of_batches(trainer)
        self.set_mean(mean.to(self.mean))

    def training_step(self, batch: Any, batch_idx: int) -> None:
        start, accumulate = self.iteration, self.accumulate_grad_batches
        update: Update | None = None
        for one in block(self.trainer, self, batch, self.steps_per_execution, accumulate, start % accumulate):
            x = self._batch(one)
            if self.iteration == start:
                update = self._whole_update(x)
            if update is not None:
                update = self._try(update, x, self.trainer.global_step + self.iteration - start)
            if update is None:
                self._iterate(x)
            self.iteration += 1
        self._num_running += self.iteration - start
        if update is not None:
            self._end_block(update, start)
        if logs_now(self.trainer):
            self._log_training()

    @property
    def compiles(self) -> bool:
        """Whether the step of this run is compiled."""
        return self._compiling

    def measure(self, batch: Any, rank: int, batch_idx: int) -> None:
        """Add a validation batch to :attr:`val_elbo` and :attr:`val_bound`."""
        x = self._batch(batch)
        weights = self.log_weights(x, self.val_num_samples, self._seeded(_VALIDATE, rank, batch_idx))
        self.val_elbo.update(weights.mean(0))
        self.val_bound.update(importance_weighted_bound(weights))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.measure(batch, self.global_rank, batch_idx)
        self.log("val/elbo", self.val_elbo, prog_bar=True)
        self.log("val/importance_weighted_bound", self.val_bound, prog_bar=True)

    test_step = validation_step

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        data = None
        if self._trainer:
            data = getattr(self.trainer.datamodule, "config", None)  # type: ignore[attr-defined]
            self._running = {name: self.trainer.strategy.reduce(total) for name, total in self._running.items()}
        checkpoint["dvae"] = {
            "class_path": self.config["class_path"],
            "data": data,
            "seed": self.seed,
            "iteration": self.iteration,
            "train_elbo": None if self._train_elbo is None else self._train_elbo.item(),
            "running": self._running,
            "num_running": self._num_running,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        saved = checkpoint.get("dvae", {})
        if "replicas" in saved:
            raise InputError(
                f"the checkpoint holds {len(saved['replicas'])} replicas, expected one model: take one out with dvae extract, or "
                "give the --replicas and --sweep of its run"
            )
        self.seed = saved.get("seed", self.seed)
        self.iteration = saved.get("iteration", 0)
        self._running, self._num_running = dict(saved.get("running", {})), saved.get("num_running", 0)
        elbo = saved.get("train_elbo")
        self._train_elbo = None if elbo is None else torch.tensor(elbo, dtype=torch.float64)
        if checkpoint["state_dict"]["mean"].dtype == torch.float64:
            self.double()  # Lightning sets the precision after it has loaded the parameters, which would be rounded

    def step(self, x: Tensor, noise: Sequence[Tensor]) -> StepOutput:
        """The loss of one step, compiled if the model is to be; see :func:`dvae.step.step_loss`."""
        if not self._compiling:
            return step_loss(self, x, noise)
        if self._compiled_step is None:
            self._compiled_step = compiled(step_loss)
        try:
            return self._compiled_step(self, x, noise)
        except FAILURES as error:
            self.stop_compiling(error)
            return step_loss(self, x, noise)

    # One step after the other: loss, backward, Lightning's optimizer.

    def _iterate(self, x: Tensor) -> None:
        output = self.step(x, self.training_noise(x.shape[0], self.noise_stream(self.global_rank), self.iteration))
        if not torch.isfinite(output.loss):
            raise self._non_finite(output.loss, output.metrics)
        for name, scalar in output.metrics.items():
            # A copy: an estimator's parameter, such as eta, is about to change in place.
            self._running[name] = self._running[name] + scalar if name in self._running else scalar.clone()
        self.manual_backward(output.loss / self.accumulate_grad_batches)
        if (self.iteration + 1) % self.accumulate_grad_batches == 0 or self.trainer.is_last_batch:
            self._optimize()

    def _optimize(self) -> None:
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        theta, *phi = optimizer.param_groups
        if phi and self.trainer.global_step < self.phi_warmup_steps:
            for parameter in theta["params"]:
                parameter.grad = None
        if self.gradient_clip_norm is not None:
            for group in optimizer.param_groups:
                nn.utils.clip_grad_norm_(group["params"], self.gradient_clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        if self.lr_scheduler is not None:
            self.lr_schedulers().step()  # type: ignore[union-attr]

    # The whole step as one compiled function.

    def _whole_update(self, x: Tensor) -> Update | None:
        """The compiled update, where it does all that an update of this run has to do."""
        if not self._compiling or self._update is not None:
            return self._update
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        alone = self.accumulate_grad_batches == 1 and type(self).step is DiscreteVAE.step
        if alone and fits(self.trainer, optimizer.optimizer):
            try:
                adam: Any = optimizer.optimizer
                self._update = Update([self], adam, x, usual_batch_size(self.trainer, len(x)))
            except NotCompilable as error:
                self.stop_compiling(error)
                return None
            if self._running:
                self._update.tally.copy_(torch.stack([self._running[name] for name in self._update.names]))
        return self._update

    def _try(self, update: Update, x: Tensor, global_step: int) -> Update | None:
        try:
            update(x, self.iteration, not self.phi() or global_step >= self.phi_warmup_steps)
        except FAILURES as error:
            self.stop_compiling(error)
            return None
        if self.lr_scheduler is not None:
            self.lr_schedulers().step()  # type: ignore[union-attr]
        return update

    def _end_block(self, update: Update, start: int) -> None:
        done = update.end_block()[0]
        self._running = dict(zip(update.names, update.tally.unbind(), strict=True))
        count_updates(self.trainer, done)
        if start + done < self.iteration:
            self.iteration = start + done
            raise self._non_finite(update.loss, dict(zip(update.names, update.last.unbind(), strict=True)))

    def stop_compiling(self, error: Exception) -> None:
        """Say why the step is not compiled, and run it as it is from here on."""
        warn_not_compiled(error)
        self._compiling, self._update = False, None

    def _non_finite(self, loss: Tensor, metrics: Mapping[str, Tensor]) -> NonFiniteError:
        return NonFiniteError(
            f"the loss became {loss.item()} at iteration {self.iteration} (global step {self.trainer.global_step}); not finite: "
            f"{culprits(metrics)}. The parameters are those of the step before"
        )

    def _log_training(self) -> None:
        means = {f"train/{name}": total / self._num_running for name, total in self._running.items()}
        self._train_elbo = means.pop("train/elbo")
        self.log("train/elbo", self._train_elbo, prog_bar=True, sync_dist=True)
        self.log_dict(means, sync_dist=True)
        self._running, self._num_running = {}, 0
        if self._update is not None:
            self._update.tally.zero_()

    def _mean_of_batches(self, trainer: pl.Trainer) -> Tensor:
        total, count = torch.zeros_like(self.mean), 0
        for batch in trainer.train_dataloader or ():
            x = self._flat(_first(batch).to(self.mean.device))
            total, count = total + x.sum(0), count + x.shape[0]
        return trainer.strategy.reduce(total / max(count, 1), reduce_op="mean")

    def _distribution(self, flat: Tensor) -> Any:
        return self.latent.from_flat(flat, self.num_latents)

    def _draw(self, flat: Tensor, generator: torch.Generator | None) -> Tensor:
        q = self._distribution(flat)
        return q.hard(q.relaxed(q.noise(generator=generator)))

    def _batch(self, batch: Any) -> Tensor:
        x = _first(batch)
        # The project's own data modules have checked the whole data set when they loaded it.
        checked = self._trainer is not None and isinstance(getattr(self._trainer, "datamodule", None), Configurable)
        return self._flat(x) if checked else self.check_input(x)

    def _flat(self, x: Tensor) -> Tensor:
        if not isinstance(x, Tensor) or x.dim() < 1 or x[0:1].numel() not in (0, self.num_pixels):
            given = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise InputError(f"x must be a tensor of {self.num_pixels} values per example, got {given}")
        return x.reshape(x.shape[0], self.num_pixels).to(self.mean.dtype)

    def _seeded(self, *counters: int) -> torch.Generator:
        if self._generator is None or self._generator.device != self.mean.device:
            self._generator = torch.Generator(self.mean.device)
        return seeded_generator(self._generator, self.seed, *counters)

    def _layers(
        self,
        given: nn.Module | Mapping | Sequence | None,
        name: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
    ) -> nn.ModuleList:
        if given is None:
            return nn.ModuleList(Linear(n_in, n_out) for n_in, n_out in zip(inputs, outputs, strict=True))
        listed = list(given) if isinstance(given, (list, tuple, nn.ModuleList)) else [given]
        if len(listed) != self.num_layers:
            raise InputError(f"{name} must be {self.num_layers} modules, one per stochastic layer, got {len(listed)}")
        modules = [instantiate(item, nn.Module, name) for item in listed]
        for module, n_in, n_out in zip(modules, inputs, outputs, strict=True):
            _check_sizes(module, name, n_in, n_out)
        return nn.ModuleList(modules)


def _check_sizes(module: nn.Module, name: str, n_in: int, n_out: int) -> None:
    try:
        with torch.no_grad():
            shape = tuple(module(torch.zeros(1, 2, n_in)).shape)
    except RuntimeError as error:
        raise InputError(f"{name} must take [*, {n_in}] to [*, {n_out}]; it raised: {str(error).splitlines()[0]}") from None
    if shape != (1, 2, n_out):
        raise InputError(f"{name} must take [*, {n_in}] to [*, {n_out}], but took (1, 2, {n_in}) to {shape}")


def _require_at_least(bound: float, **values: float) -> None:
    for name, value in values.items():
        if not value >= bound:
            raise InputError(f"{name} must be at least {bound}, got {value}")


def _first(batch: Any) -> Any:
    return batch[0] if isinstance(batch, (list, tuple)) else batch


def culprits(metrics: Mapping[str, Tensor]) -> str:
    """The names of what is not finite, where a loss is not."""
    return ", ".join(name for name, scalar in metrics.items() if not torch.isfinite(scalar)) or "the penalty on phi"


def latent_family(latent: str | type[Latent]) -> type[Latent]:
    """The class that ``latent`` names: itself, a class of :mod:`dvae.latents`, or an import path."""
    if isinstance(latent, type) and issubclass(latent, Latent):
        return latent
    if not isinstance(latent, str) or not latent:
        raise InputError(f"latent must be a class of dvae.latents, its name or an import path, got {latent!r}")
    return import_class(latent if "." in latent else f"{Latent.__module__}.{latent}", Latent, "latent")
