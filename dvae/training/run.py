"""A training run with Lightning: of one model, or of several side by side."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from dvae.config import instantiate
from dvae.data import DataModule, x_of
from dvae.errors import InputError, NonFiniteError
from dvae.training import collapse, lightning, record
from dvae.training.compilation import FAILURES, NotCompilable
from dvae.training.lr_scheduler import joint_scheduler
from dvae.training.whole_step import WholeStep

if TYPE_CHECKING:
    from dvae.training.module import DiscreteVAE
    from dvae.training.single import Trainable

__all__ = ["Training", "joint_optimizer"]


class Training(pl.LightningModule):
    """The training of :attr:`models`, which are of one architecture; of most runs there is one, and it is the module itself.

    Manual optimization: an iteration is one loss, one backward and one update of theta and phi. Where an update is no more than
    that, it is a :class:`dvae.training.whole_step.WholeStep`, of all models at once; otherwise Lightning's optimizer takes one
    model's steps one by one. How many batches a ``training_step`` takes, the warm-up of phi, the schedule and the compilation are
    as the first model says.
    """

    apart = False
    """Whether each model is trained as if it had a run of its own; several processes then exchange no parameters or gradients."""
    models: Sequence[DiscreteVAE]
    """R of them; in each process."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.iteration = 0
        # Indices into models: the iteration at which a model's loss was not finite, what was logged last of each, and those that
        # were named because they do not use their code.
        self.stopped: dict[int, int] = {}
        self.train_elbo: dict[int, Tensor] = {}
        self.collapsed: set[int] = set()
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
        lightning.note_fit(self, self.models)
        optimizer = joint_optimizer(self.models)
        scheduler = self.models[0].lr_scheduler
        if scheduler is None:
            return optimizer
        return [optimizer], [joint_scheduler(scheduler, optimizer, len(self.models), lambda: joint_optimizer(self.models[:1]))]

    def on_fit_start(self) -> None:
        """Check the data before anything is made of them; loaders of others are checked batch by batch."""
        if isinstance(data := lightning.data_module_of(self), DataModule):
            self.models[0].check_data(data)

    def on_train_start(self) -> None:
        self._cuda_check = lightning.drop_cuda_check()
        for model in self.models:
            model.start_training(self.trainer)
        self._whole = None
        self._largest_block = lightning.largest_block(self.trainer, self, self.models[0].steps_per_execution)

    def on_train_end(self) -> None:
        self._whole = None  # what it holds would go into every copy of the model
        lightning.restore_cuda_check(self._cuda_check)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        start, accumulate = self.iteration, self.models[0].accumulate_grad_batches
        whole: WholeStep | None = None
        for one in lightning.block(self.trainer, self, batch, self._largest_block, accumulate, start % accumulate):
            x = self._batches_of(one)
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

    def _batches_of(self, batch: Any) -> Tensor:
        """What a loader gave as [B, num_pixels]; of several models [R, B, num_pixels]."""
        return self._input(self.models[0], batch)

    def _input(self, model: Trainable, batch: Any) -> Tensor:
        x, data = x_of(batch, model.input_key), lightning.data_module_of(self)
        # What is held in memory was checked as a whole when training started.
        return model.flat_input(x) if isinstance(data, DataModule) and data.in_memory else model.check_input(x)

    def changes_theta(self, global_step: int) -> bool:
        """Whether the update of this index, from 0, changes theta, or phi alone."""
        return not self.models[0].phi() or global_step >= self.models[0].phi_warmup_steps

    def _whole_step(self, x: Tensor) -> WholeStep | None:
        """A step of all models as one function, where it does all that an update of this run has to do."""
        if self._whole is not None or not self._may_be_whole():
            return self._whole
        optimizer: Any = self.optimizers()
        one = x[0] if self.apart else x
        size, compiles = lightning.usual_batch_size(self.trainer, x.shape[-2]), self.models[0].compiles
        try:
            self._whole = WholeStep(self.models, optimizer.optimizer, one, size, compile=compiles, stacked=self.apart)
        except NotCompilable as error:
            self._cannot_be_whole(error)
            return None
        for index in self.stopped:
            self._whole.failed.view(-1)[index] = True
        self._keep_tally(self._whole.names)
        if self.tally is not None:
            tally = dict(zip(self.metric_names, self.tally.unbind(-1), strict=True))
            self._whole.tally.copy_(torch.stack([tally[name] for name in self._whole.names], -1).view_as(self._whole.tally))
        return self._whole

    def _may_be_whole(self) -> bool:
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        return lightning.updates_alone(self.trainer, optimizer.optimizer, apart=self.apart)

    def _cannot_be_whole(self, error: NotCompilable) -> None:
        self.models[0].stop_compiling(error)

    def _try(self, whole: WholeStep, x: Tensor, global_step: int) -> WholeStep | None:
        """One whole step; None where it cannot be compiled, and nothing was done."""
        try:
            whole(x, self.iteration, self.changes_theta(global_step))
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
        self._keep_tally(output.metrics)
        measured = torch.stack([scalar.to(model.mean.dtype) for scalar in output.metrics.values()])[None]
        self.metric_names = list(output.metrics)
        self.tally = measured if self.tally is None else self.tally + measured
        self.manual_backward(output.loss / model.accumulate_grad_batches)
        if (self.iteration + 1) % model.accumulate_grad_batches == 0 or self.trainer.is_last_batch:
            self._optimize(model)

    def _keep_tally(self, names: Collection[str]) -> None:
        """Drop what was measured since the last log where it was with an estimator that was since replaced."""
        if set(names) != set(self.metric_names):
            self.tally, self.num_tallied = None, 0

    def _optimize(self, model: DiscreteVAE) -> None:
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        if not self.changes_theta(self.trainer.global_step):
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
                f"replica {self.global_index(index)} ({self.label(index)}) stopped at iteration {start + done[index]}: its loss "
                f"became {loss.item()}; not finite: {_culprits(metrics)}. Its parameters are those of the step before"
            )
            if not self.active and self.trainer.world_size == 1:
                raise NonFiniteError(f"{message}. It was the last one")
            warnings.warn(f"{message}; the others go on", stacklevel=2)  # of this process's models, whichever it is

    def _non_finite(self, loss: Tensor, metrics: Mapping[str, Tensor]) -> NonFiniteError:
        return NonFiniteError(
            f"the loss became {loss.item()} at iteration {self.iteration} (global step {self.trainer.global_step}); not finite: "
            f"{_culprits(metrics)}. The parameters are those of the step before"
        )

    # Logs

    def _log_training(self) -> None:
        assert self.tally is not None
        means = dict(zip(self.metric_names, (self.tally / self.num_tallied).unbind(-1), strict=True))
        if "elbo" in means:
            self.train_elbo |= {index: means["elbo"][index] for index in self.active}
        for name, values in means.items():
            self.log_each(f"train/{name}", values[self.active], prog_bar=name == self.models[0].headline)
        nats = {index: means["kl"][index].item() for index in self.active} if "kl" in means else {}
        self._warn_of_collapse({index: collapse.low_kl(own) for index, own in nats.items() if own < collapse.LEAST_KL})
        self.tally, self.num_tallied = None, 0
        if self._whole is not None:
            self._whole.tally.zero_()

    def _log_measured(self, stage: str) -> None:
        figures = [self.models[index].measured() for index in self.active]
        for name in self.models[0].figures:
            values = torch.stack([own[name] for own in figures]) if figures else torch.zeros(0)
            self.log_each(f"{stage}/{name}", values, prog_bar=name in (self.models[0].headline, "importance_weighted_bound"))
        if stage == "val" and "active_units" in self.models[0].figures:
            silent = {index: own["active_units"] == 0 for index, own in zip(self.active, figures, strict=True)}
            # Of a single example no mean varies.
            several = [index for index, none in silent.items() if none and self.models[index].val_units[0].count > 1]
            self._warn_of_collapse(dict.fromkeys(several, collapse.NO_UNITS))
        for model in self.models:
            model.reset_metrics()

    def _warn_of_collapse(self, figures: Mapping[int, str]) -> None:
        """Name the models that do not use their code, each once; not before they had the time to learn to."""
        warmup = self.models[0].phi_warmup_steps if self.models[0].phi() else 0
        if self.trainer.global_step < warmup + collapse.PATIENCE:
            return
        # Where the KL costs nothing, nothing has pushed it down, and it may still grow.
        new = [index for index in figures if index not in self.collapsed and self.models[index].beta > 0]
        self.collapsed.update(new)
        names = {index: f"replica {self.global_index(index)} ({self.label(index)})" if self.apart else "the model" for index in new}
        if new:
            message = collapse.sentence({names[index]: figures[index] for index in new}, self.trainer.global_step)
            (warnings.warn if self.apart else rank_zero_warn)(message, stacklevel=2)

    def log_each(self, name: str, values: Tensor, prog_bar: bool) -> None:
        """Log a figure of each active model, [R]."""
        self.log(name, values[0], prog_bar=prog_bar, sync_dist=True)


def joint_optimizer(models: Sequence[DiscreteVAE]) -> torch.optim.Optimizer:
    """One optimizer over the groups of each model's own, of the class that the first one names; Adam by default.

    Raises:
        InputError: the class does not exist or does not take its arguments, sets what each group has of its own, or wants to
            compute the loss itself.
    """
    groups, first = [group for model in models for group in model.parameter_groups()], models[0]
    if first.optimizer is None:
        return torch.optim.Adam(groups, betas=first.betas, eps=first.eps, fused=True)
    given = first.optimizer.get("init_args") or {}
    for name in ("lr", "weight_decay"):
        if name in given:
            raise InputError(f"optimizer must not set {name}, which is the model's own argument, got {given[name]!r}")
    known = {name: value for name, value in (("betas", first.betas), ("eps", first.eps)) if name not in given}
    try:
        optimizer = instantiate(first.optimizer, torch.optim.Optimizer, "optimizer", optional=known, params=groups)
    except InputError:
        raise
    except (TypeError, ValueError) as error:  # PyTorch's, about a value
        raise InputError(f"optimizer: {first.optimizer['class_path']} cannot be built: {error}") from None
    if isinstance(optimizer, torch.optim.LBFGS):
        raise InputError("optimizer must take one gradient a step, got torch.optim.LBFGS, which asks for several")
    return optimizer


def _culprits(metrics: Mapping[str, Tensor]) -> str:
    """The names of what is not finite, where a loss is not."""
    return ", ".join(name for name, scalar in metrics.items() if not math.isfinite(scalar)) or "the penalty on phi"
