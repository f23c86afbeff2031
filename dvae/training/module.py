"""Training with Lightning: of one model, and of several side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn

from dvae.config import instantiate
from dvae.data import DataModule
from dvae.errors import InputError, NonFiniteError
from dvae.estimators import GradientEstimator
from dvae.latents import Latent
from dvae.likelihoods import Likelihood
from dvae.metrics import MeanWithError
from dvae.models import VAE
from dvae.models.building import require_at_least
from dvae.noise import noise_stream, seeded_generator
from dvae.objectives import importance_weighted_bound
from dvae.priors import Prior
from dvae.training import lightning, record
from dvae.training.compilation import FAILURES, NotCompilable, compiled, warn_not_compiled
from dvae.training.step import StepOutput, step_loss
from dvae.training.whole_step import WholeStep

__all__ = ["DiscreteVAE", "Training", "joint_optimizer"]

# Separates the noise of validation from the noise of training under one seed.
_TRAIN, _VALIDATE = 0, 1
# Updates from which on compiling, some ten seconds, is won back.
_WORTH_COMPILING = 10_000


class Training(pl.LightningModule):
    """The training of :attr:`models`, which are of one architecture; of most runs there is one, and it is the module itself.

    Manual optimization: an iteration is one loss, one backward and one update of theta and phi. Where an update is no more than
    that, it is a :class:`dvae.training.whole_step.WholeStep`, of all models at once; otherwise Lightning's optimizer takes one model's
    steps one by one. How many batches a ``training_step`` takes, the warm-up of phi, the schedule and the compilation are as the
    first model says.
    """

    apart = False
    """Whether there are several models, and each is trained as if it had a run of its own; several processes then exchange nothing."""
    models: Sequence[DiscreteVAE]
    """R of them; in each process."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.iteration = 0
        # Indices into models: the iteration at which a model's loss was not finite, and what was logged last of each.
        self.stopped: dict[int, int] = {}
        self.train_elbo: dict[int, Tensor] = {}
        # Sums of what the iterations since the last log measured, [R, M].
        self.metric_names: list[str] = []
        self.tally: Tensor | None = None
        self.num_tallied = 0
        self._whole: WholeStep | None = None
        self._largest_block = 1
        self._cuda_check: str | None = None

    @property
    def active(self) -> list[int]:
        """Indices of the models that are still trained."""
        return [index for index in range(len(self.models)) if index not in self.stopped]

    def label(self, index: int) -> str:
        """What distinguishes a model, as text."""
        raise NotImplementedError(f"{type(self).__name__} must define label(index)")

    def global_index(self, index: int) -> int:
        """The place of a model among those of all processes."""
        return index

    # Lightning's hooks

    def configure_optimizers(self) -> Any:
        optimizer = joint_optimizer(self.models)
        scheduler = self.models[0].lr_scheduler
        if scheduler is None:
            return optimizer
        return [optimizer], [instantiate(scheduler, torch.optim.lr_scheduler.LRScheduler, "lr_scheduler", optimizer=optimizer)]

    def on_train_start(self) -> None:
        self._cuda_check = lightning.plain_cuda_check()
        for model in self.models:
            model.start_training(self.trainer)
        self._whole = None
        self._largest_block = lightning.largest_block(self.trainer, self, self.models[0].steps_per_execution)

    def on_train_end(self) -> None:
        self._whole = None  # what it holds would go into every copy of the model
        lightning.plain_cuda_check(self._cuda_check, restore=True)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        start, accumulate = self.iteration, self.models[0].accumulate_grad_batches
        whole: WholeStep | None = None
        for one in lightning.block(self.trainer, self, batch, self._largest_block, accumulate, start % accumulate):
            x = self.batches(one)
            if self.iteration == start:
                whole = self._whole_step(x)
            if whole is not None:
                whole = self._try(whole, x, self.trainer.global_step + self.iteration - start)
            if whole is None:
                self._iterate(x)
            self.iteration += 1
        self.num_tallied += self.iteration - start
        if whole is not None:
            self._end_block(whole, start)
        if lightning.logs_now(self.trainer):
            self._log_training()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        rank = 0 if self.apart else self.global_rank
        for index in self.active:
            model = self.models[index]
            model.measure(self._input(model, batch), rank, batch_idx)

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        self._log_measured("val")

    def on_test_epoch_end(self) -> None:
        self._log_measured("test")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        record.save(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        record.load(self, checkpoint)

    # A step

    def batches(self, batch: Any) -> Tensor:
        """What a loader gave as [B, num_pixels]; of several models [R, B, num_pixels]."""
        return self._input(self.models[0], batch)

    def _input(self, model: DiscreteVAE, batch: Any) -> Tensor:
        x = batch[0] if isinstance(batch, (list, tuple)) else batch
        # The project's own data modules have checked the whole data set when they loaded it.
        return model.flat_input(x) if isinstance(lightning.data_module_of(self), DataModule) else model.check_input(x)

    def _moves_theta(self, global_step: int) -> bool:
        return not self.models[0].phi() or global_step >= self.models[0].phi_warmup_steps

    def _whole_step(self, x: Tensor) -> WholeStep | None:
        """A step of all models as one function, where it does all that an update of this run has to do."""
        if self._whole is not None or not self._may_be_whole():
            return self._whole
        optimizer: Any = self.optimizers()
        first, several = self.models[0], len(self.models) > 1
        size = lightning.usual_batch_size(self.trainer, x.shape[-2])
        try:
            self._whole = WholeStep(self.models, optimizer.optimizer, x[0] if several else x, size, compile=first.compiles)
        except NotCompilable as error:
            self._cannot_be_whole(error)
            return None
        for index in self.stopped:
            self._whole.failed.view(-1)[index] = True
        if self.tally is not None:
            tally = dict(zip(self.metric_names, self.tally.unbind(-1), strict=True))
            self._whole.tally.copy_(torch.stack([tally[name] for name in self._whole.names], -1).view_as(self._whole.tally))
        return self._whole

    def _may_be_whole(self) -> bool:
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        return lightning.fits(self.trainer, optimizer.optimizer, apart=self.apart)

    def _cannot_be_whole(self, error: NotCompilable) -> None:
        self.models[0].stop_compiling(error)

    def _try(self, whole: WholeStep, x: Tensor, global_step: int) -> WholeStep | None:
        """One whole step; None where it cannot be compiled, and nothing was done."""
        try:
            whole(x, self.iteration, self._moves_theta(global_step))
        except FAILURES as error:
            self.models[0].stop_compiling(error)
            self._whole = None
            again = self._whole_step(x)  # several models have no other step than this one, as it is
            return None if again is None else self._try(again, x, global_step)
        self._step_schedule()
        return whole

    def _iterate(self, x: Tensor) -> None:
        """One step of one model: loss, backward, Lightning's optimizer."""
        model = self.models[0]
        output = model.step(x, model.training_noise(x.shape[0], model.noise_stream(self.global_rank), self.iteration))
        if not torch.isfinite(output.loss):
            raise self._non_finite(output.loss, output.metrics)
        measured = torch.stack([scalar.to(model.mean.dtype) for scalar in output.metrics.values()])[None]
        self.metric_names = list(output.metrics)
        self.tally = measured if self.tally is None else self.tally + measured
        self.manual_backward(output.loss / model.accumulate_grad_batches)
        if (self.iteration + 1) % model.accumulate_grad_batches == 0 or self.trainer.is_last_batch:
            self._optimize(model)

    def _optimize(self, model: DiscreteVAE) -> None:
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        if not self._moves_theta(self.trainer.global_step):
            for parameter in model.theta():
                parameter.grad = None
        if model.gradient_clip_norm is not None:
            for group in optimizer.param_groups:
                nn.utils.clip_grad_norm_(group["params"], model.gradient_clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        self._step_schedule()

    def _step_schedule(self) -> None:
        if self.models[0].lr_scheduler is not None:
            self.lr_schedulers().step()  # type: ignore[union-attr]

    def _end_block(self, whole: WholeStep, start: int) -> None:
        self.metric_names, self.tally = whole.names, whole.tally.view(len(self.models), -1)
        done = whole.end_block()
        failed = [index for index, steps in enumerate(done) if index not in self.stopped and start + steps < self.iteration]
        lightning.count_updates(self.trainer, self.iteration - start if self.apart else done[0])
        for index in failed:
            metrics = dict(zip(whole.names, whole.last.view(len(self.models), -1)[index].unbind(), strict=True))
            loss = whole.loss.view(-1)[index]
            if not self.apart:
                self.iteration = start + done[0]
                raise self._non_finite(loss, metrics)
            self.stopped[index] = start + done[index]
            message = (
                f"replica {self.global_index(index)} ({self.label(index)}) stopped at iteration {start + done[index]}: its loss became "
                f"{loss.item()}; not finite: {_culprits(metrics)}. Its parameters are those of the step before"
            )
            if not self.active and self.trainer.world_size == 1:
                raise NonFiniteError(f"{message}. It was the last one")
            rank_zero_warn(f"{message}; the others go on")

    def _non_finite(self, loss: Tensor, metrics: Mapping[str, Tensor]) -> NonFiniteError:
        return NonFiniteError(
            f"the loss became {loss.item()} at iteration {self.iteration} (global step {self.trainer.global_step}); not finite: "
            f"{_culprits(metrics)}. The parameters are those of the step before"
        )

    # Logs

    def _log_training(self) -> None:
        assert self.tally is not None
        means = dict(zip(self.metric_names, (self.tally / self.num_tallied).unbind(-1), strict=True))
        self.train_elbo |= {index: means["elbo"][index] for index in self.active}
        for name, values in means.items():
            self.log_each(f"train/{name}", values[self.active], prog_bar=name == "elbo")
        self.tally, self.num_tallied = None, 0
        if self._whole is not None:
            self._whole.tally.zero_()

    def _log_measured(self, stage: str) -> None:
        for name, attribute in (("elbo", "val_elbo"), ("importance_weighted_bound", "val_bound")):
            metrics = [getattr(model, attribute) for model in self.models]
            values = [metrics[index].compute() for index in self.active]
            self.log_each(f"{stage}/{name}", torch.stack(values) if values else torch.zeros(0), prog_bar=True)
            for metric in metrics:
                metric.reset()

    def log_each(self, name: str, values: Tensor, prog_bar: bool) -> None:
        """Log a figure of each active model, [R]."""
        self.log(name, values[0], prog_bar=prog_bar, sync_dist=True)


class DiscreteVAE(VAE, Training):
    r"""A variational autoencoder with discrete latents, trained with a pluggable gradient estimator.

    .. math:: \text{ELBO}(x) = E_{q(b|x)}[\log p(x|b) + \log p(b) - \log q(b|x)]

    The model is :class:`dvae.models.VAE`, where its mathematics stands; this adds what a Lightning Trainer needs. The encoder's
    centre and the outputs' start are set from the data when training starts.

    Arguments:
        estimator, encoder, decoder, prior, likelihood, num_pixels, num_latents, latent, num_classes, num_layers, kl: of the model, see
            :class:`dvae.models.VAE`.
        lr: learning rate of theta (encoder, decoder, prior).
        phi_lr: learning rate of phi (the estimator's parameters); as ``lr`` where it is None.
        betas: of Adam, its two decay rates; the paper's values.
        eps: of Adam.
        weight_decay: on theta. A network inside an estimator has its own.
        optimizer: a config of another class of ``torch.optim``, over the same groups and with the settings above that it knows, such
            as ``{"class_path": "torch.optim.AdamW"}``; Adam where it is None. Adam and AdamW are part of the compiled step.
        lr_scheduler: a config of a class of ``torch.optim.lr_scheduler``, stepped once per update, such as
            ``{"class_path": "torch.optim.lr_scheduler.CosineAnnealingLR", "init_args": {"T_max": 100000}}``.
        gradient_clip_norm: largest norm of theta's gradient and, separately, of phi's; None for no clipping.
        accumulate_grad_batches: batches whose gradients are averaged before an update.
        phi_warmup_steps: the first updates change phi alone (1,000 in the paper for RELAX); skipped where there is no phi.
        val_num_samples: samples of the importance-weighted bound in validation.
        compile: run the whole step as one compiled function: faster after a compilation of some seconds. "auto" does so in runs of at
            least 10,000 updates. The last batch of an epoch, if it is smaller, runs as it is. Where an estimator's or a subclass's
            code cannot be compiled, one warning says why and the step runs as it is. On a GPU a compiled step does not see what is
            changed meanwhile, tensors changed in place apart.
        steps_per_execution: batches that one ``training_step`` takes, so that Lightning's own work is done once for all of them. It
            changes no number: steps, logs, validations, schedules and checkpoints are where they are with 1. Where a callback has
            hooks around a batch, it is 1, and a warning says so.
        seed: of the sampling noise; PyTorch's seed where it is None. The noise of an iteration is a function of (seed, process,
            iteration) alone.

    Raises:
        InputError: an argument is outside its range or does not fit the others.

    >>> model = DiscreteVAE(num_pixels=6, num_latents=4)
    >>> model.elbo(torch.zeros(3, 6)).shape
    torch.Size([3])
    """

    def __init__(
        self,
        estimator: GradientEstimator | dict | None = None,
        encoder: nn.Module | dict | list | None = None,
        decoder: nn.Module | dict | list | None = None,
        prior: Prior | dict | None = None,
        likelihood: Likelihood | dict | None = None,
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
        optimizer: dict | None = None,
        lr_scheduler: dict | None = None,
        gradient_clip_norm: float | None = None,
        accumulate_grad_batches: int = 1,
        phi_warmup_steps: int = 0,
        val_num_samples: int = 100,
        compile: bool | Literal["auto"] = "auto",
        steps_per_execution: int = 1,
        seed: int | None = None,
    ) -> None:
        super().__init__(
            estimator,
            encoder,
            decoder,
            prior,
            likelihood,
            num_pixels=num_pixels,
            num_latents=num_latents,
            latent=latent,
            num_classes=num_classes,
            num_layers=num_layers,
            kl=kl,
        )
        self.save_hyperparameters(self.config["init_args"])
        require_at_least(1, accumulate_grad_batches=accumulate_grad_batches, val_num_samples=val_num_samples)
        require_at_least(1, steps_per_execution=steps_per_execution)
        require_at_least(0, lr=lr, phi_lr=phi_lr or 0.0, weight_decay=weight_decay, phi_warmup_steps=phi_warmup_steps, eps=eps)
        if compile not in (True, False, "auto"):
            raise InputError(f"compile must be true, false or 'auto', got {compile!r}")
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise InputError(f"betas must be two numbers in [0, 1), got {betas}")
        if gradient_clip_norm is not None and not gradient_clip_norm > 0:
            raise InputError(f"gradient_clip_norm must be positive or None, got {gradient_clip_norm}")
        self.lr, self.phi_lr = lr, lr if phi_lr is None else phi_lr
        self.betas, self.eps, self.weight_decay = (betas[0], betas[1]), eps, weight_decay
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        self.gradient_clip_norm = gradient_clip_norm
        self.accumulate_grad_batches = accumulate_grad_batches
        self.phi_warmup_steps = phi_warmup_steps
        self.val_num_samples = val_num_samples
        self.compile_step, self.steps_per_execution = compile, steps_per_execution
        self.seed = torch.initial_seed() if seed is None else seed
        self.val_elbo, self.val_bound = MeanWithError(), MeanWithError()
        self._compiling = compile is True
        self._compiled_step: Callable[..., StepOutput] | None = None
        self._generator: torch.Generator | None = None

    @property
    def models(self) -> Sequence[DiscreteVAE]:  # type: ignore[override]
        return [self]

    # What changes from step to step without being a tensor; a compiled step must not look at it.

    clock_was_read = False

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

    def start_training(self, trainer: pl.Trainer) -> None:
        """Decide whether to compile, and set the data's mean where it is not set."""
        self._compiling = self.compile_step is True or (
            self.compile_step == "auto" and trainer.estimated_stepping_batches >= _WORTH_COMPILING
        )
        if isinstance(data := trainer.datamodule, DataModule) and not self.likelihood.covers(data.split("train")[:1000]):  # type: ignore[attr-defined]
            rank_zero_warn(
                f"the data have values that {type(self.likelihood).__name__} gives no probability to, such as grey levels: what is "
                "trained and called ELBO is a cross-entropy and no bound on log p(x)"
            )
        if self.mean_is_set:
            return
        mean = getattr(trainer.datamodule, "mean", None)  # type: ignore[attr-defined]
        if mean is None:
            mean = self._mean_of_batches(trainer)
        self.set_mean(mean.to(self.mean))

    def _mean_of_batches(self, trainer: pl.Trainer) -> Tensor:
        total, count = torch.zeros_like(self.mean), 0
        for batch in trainer.train_dataloader or ():
            x = self.flat_input((batch[0] if isinstance(batch, (list, tuple)) else batch).to(self.mean.device))
            total, count = total + x.sum(0), count + x.shape[0]
        return trainer.strategy.reduce(total / max(count, 1), reduce_op="mean")

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

    def noise_stream(self, rank: int) -> int:
        """Where the training noise of one process comes from; see :meth:`dvae.models.VAE.training_noise`."""
        return noise_stream(self.seed, _TRAIN, rank)

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The codes of a batch, see :meth:`dvae.models.VAE.codes`."""
        return self.codes(self._input(self, batch))

    def measure(self, x: Tensor, rank: int, batch_idx: int) -> None:
        """Add a validation batch to :attr:`val_elbo` and :attr:`val_bound`."""
        weights = self.log_weights(x, self.val_num_samples, self._seeded(_VALIDATE, rank, batch_idx))
        self.val_elbo.update(weights.mean(0))
        self.val_bound.update(importance_weighted_bound(weights))

    def _seeded(self, *counters: int) -> torch.Generator:
        if self._generator is None or self._generator.device != self.mean.device:
            self._generator = torch.Generator(self.mean.device)
        return seeded_generator(self._generator, self.seed, *counters)


def joint_optimizer(models: Sequence[DiscreteVAE]) -> torch.optim.Optimizer:
    """One optimizer over the groups of each model's own, of the class that the first one names; Adam by default."""
    groups, first = [group for model in models for group in model.parameter_groups()], models[0]
    if first.optimizer is None:
        return torch.optim.Adam(groups, betas=first.betas, eps=first.eps, fused=True)
    given = first.optimizer.get("init_args") or {}
    known = {name: value for name, value in (("betas", first.betas), ("eps", first.eps)) if name not in given}
    return instantiate(first.optimizer, torch.optim.Optimizer, "optimizer", optional=known, params=groups)


def _culprits(metrics: Mapping[str, Tensor]) -> str:
    """The names of what is not finite, where a loss is not."""
    return ", ".join(name for name, scalar in metrics.items() if not math.isfinite(scalar)) or "the penalty on phi"
