"""Several independent models trained in one run: seeds, or a sweep of hyper-parameters, as one vectorized step."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn

from dvae.config import instantiate
from dvae.data import TensorLoader
from dvae.errors import InputError, NonFiniteError
from dvae.execution import block, count_updates, logs_now, usual_batch_size
from dvae.models import DiscreteVAE, culprits
from dvae.update import FAILURES, NotCompilable, Update, fits

__all__ = ["Replicas", "joint_adam", "models_of", "replicate"]

# What an update takes as numbers of each model's own; everything else that is no tensor is part of its code.
_OWN = ("lr", "phi_lr", "weight_decay", "seed")


class Replicas(pl.LightningModule):
    r"""R models of one architecture, trained side by side as if each had a run of its own.

    Replica r is, up to rounding, the model that a run of its own gives: it has its own initial weights, noise (``model.seed``),
    batches (those of the data module's ``seed`` + ``seed_offsets[r]``), optimizer state and learning rates. One step does
    all: ``torch.vmap`` over stacked parameters (:class:`dvae.update.Update`). A replica whose loss turns non-finite stays as it was
    before, is named, and is left out of the means.

    Each training and validation metric is logged as its mean over replicas, with ``_std_error`` (standard deviation over the root
    of R), and for each replica, with ``/r``. A checkpoint holds all; :func:`dvae.checkpoints.extract` takes one out.

    Arguments:
        models: R >= 2 of them, which may differ in tensors (initial temperatures, for example), ``lr``, ``phi_lr``,
            ``weight_decay`` and ``seed`` alone. Blocks of steps and compilation are as the first one says.
        settings: for each, what distinguishes it, for tables.
        seed_offsets: for each, what to add to the data module's seed; by default 0, 1, ... With another loader than
            :class:`dvae.data.TensorLoader` all see the same batches.

    Raises:
        InputError: there are fewer than two, they differ in more, or they accumulate gradients; in training, if there are several
            processes, another optimizer than Adam, scaled gradients, or a callback that wants to see gradients.
    """

    def __init__(
        self,
        models: Sequence[DiscreteVAE],
        settings: Sequence[Mapping[str, Any]] | None = None,
        seed_offsets: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        if len(models) < 2:
            raise InputError(f"models must be at least two, got {len(models)}; one is trained by itself")
        for index, model in enumerate(models):
            _require_alike(models[0], model, index)
        if models[0].accumulate_grad_batches > 1:
            raise InputError("accumulate_grad_batches must be 1 for replicas; a larger batch is the same")
        self.models: Sequence[DiscreteVAE] = nn.ModuleList(models)  # type: ignore[assignment]
        self.seed_offsets = list(range(len(models)) if seed_offsets is None else seed_offsets)
        self.settings = [dict(own) for own in settings] if settings is not None else [{"seed": model.seed} for model in models]
        for name, given in {"settings": self.settings, "seed_offsets": self.seed_offsets}.items():
            if len(given) != len(models):
                raise InputError(f"{name} must be as many as models, {len(models)}, got {len(given)}")
        self.iteration = 0
        self._stopped: dict[int, int] = {}  # the iterations at which replicas failed
        self._update: Update | None = None
        self._running: dict[str, Tensor] = {}
        self._num_running = 0
        self._train_elbo: dict[int, Tensor] = {}  # of each replica, what was logged last

    def label(self, replica: int) -> str:
        """What distinguishes a replica, as text."""
        return ", ".join(f"{name}={value}" for name, value in self.settings[replica].items())

    @property
    def active(self) -> list[int]:
        """The replicas that are still trained."""
        return [index for index in range(len(self.models)) if index not in self._stopped]

    def configure_optimizers(self) -> Any:
        optimizer = joint_adam(self.models)
        scheduler = self.models[0].lr_scheduler
        if scheduler is None:
            return optimizer
        return [optimizer], [instantiate(scheduler, torch.optim.lr_scheduler.LRScheduler, "lr_scheduler", optimizer=optimizer)]

    def on_train_start(self) -> None:
        for model in self.models:
            model.start_training(self.trainer)
        self._update = None

    def on_train_end(self) -> None:
        self._update = None

    def training_step(self, batch: Any, batch_idx: int) -> None:
        start, model = self.iteration, self.models[0]
        phi, global_step = bool(model.phi()), self.trainer.global_step
        for one in block(self.trainer, self, batch, model.steps_per_execution):
            x = self._batches(one)
            self._step(x, not phi or global_step + self.iteration - start >= model.phi_warmup_steps)
            self.iteration += 1
        self._num_running += self.iteration - start
        count_updates(self.trainer, self.iteration - start)
        assert self._update is not None
        self._end_block(self._update, start)
        if logs_now(self.trainer):
            self._log_training()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        for index in self.active:
            self.models[index].measure(batch, 0, batch_idx)

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        for name in ("elbo", "importance_weighted_bound"):
            metrics = [getattr(model, "val_elbo" if name == "elbo" else "val_bound") for model in self.models]
            self._log_each(f"val/{name}", torch.stack([metrics[index].compute() for index in self.active]), prog_bar=True)
            for metric in metrics:
                metric.reset()

    on_test_epoch_end = on_validation_epoch_end

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        data = getattr(self.trainer.datamodule, "config", None) if self._trainer else None  # type: ignore[attr-defined]
        checkpoint["hyper_parameters"] = {}
        checkpoint["dvae"] = {
            "class_path": f"{Replicas.__module__}.{Replicas.__qualname__}",
            "data": data,
            "iteration": self.iteration,
            "running": {name: totals.clone() for name, totals in self._running.items()},
            "num_running": self._num_running,
            "replicas": [self._entry(index, model) for index, model in enumerate(self.models)],
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        saved = checkpoint.get("dvae", {})
        labels = [entry["setting"] for entry in saved.get("replicas") or []]
        if labels != self.settings:
            raise InputError(
                f"the checkpoint must hold the same replicas as the run, {self.settings}, but holds {labels or 'a single model'}"
            )
        self.iteration = saved["iteration"]
        self._running, self._num_running = dict(saved["running"]), saved["num_running"]
        for index, (model, entry) in enumerate(zip(self.models, saved["replicas"], strict=True)):
            model.seed = entry["seed"]
            if entry["train_elbo"] is not None:
                self._train_elbo[index] = torch.tensor(entry["train_elbo"], dtype=torch.float64)
            if entry["iteration"] < self.iteration:
                self._stopped[index] = entry["iteration"]
        if checkpoint["state_dict"]["models.0.mean"].dtype == torch.float64:
            self.double()  # Lightning sets the precision after it has loaded the parameters, which would be rounded

    def _entry(self, index: int, model: DiscreteVAE) -> dict[str, Any]:
        """What an ordinary checkpoint holds of one model."""
        config, elbo = model.config, self._train_elbo.get(index)
        return {
            "class_path": config["class_path"],
            "hyper_parameters": config["init_args"],
            "setting": self.settings[index],
            "seed": model.seed,
            "seed_offset": self.seed_offsets[index],
            "iteration": self._stopped.get(index, self.iteration),
            "train_elbo": None if elbo is None else elbo.item(),
        }

    # The step ---------------------------------------------------------------------------------------------------------------

    def _batches(self, batch: Any) -> Tensor:
        """[R, B, num_pixels]."""
        model, loader = self.models[0], self.trainer.train_dataloader
        if isinstance(loader, TensorLoader) and loader.several:
            return batch.to(model.mean.dtype)
        x = model.check_input(batch[0] if isinstance(batch, (list, tuple)) else batch)
        return x.expand(len(self.models), *x.shape)

    def _step(self, x: Tensor, move_theta: bool) -> None:
        if self._update is None:
            self._update = self._new_update(x)
        try:
            self._update(x, self.iteration, move_theta)
        except FAILURES as error:
            self.models[0].stop_compiling(error)
            self._update = self._new_update(x)
            self._update(x, self.iteration, move_theta)
        if self.models[0].lr_scheduler is not None:
            self.lr_schedulers().step()  # type: ignore[union-attr]

    def _new_update(self, x: Tensor) -> Update:
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        if not fits(self.trainer, optimizer.optimizer):
            raise InputError(
                "replicas are trained in one process, with Adam, without scaled gradients and without callbacks that look at "
                "gradients; one of these is otherwise"
            )
        try:
            adam: Any = optimizer.optimizer
            batch_size = usual_batch_size(self.trainer, x.shape[1])
            update = Update(self.models, adam, x[0], batch_size, compile=self.models[0].compiles)
        except NotCompilable as error:
            raise InputError(f"replicas need a step that is a function of parameters, batch and noise, but {error}") from None
        for index in self._stopped:
            update.failed[index] = True
        if self._running:
            update.tally.copy_(torch.stack([self._running[name] for name in update.names], dim=-1))
        return update

    def _end_block(self, update: Update, start: int) -> None:
        self._running = dict(zip(update.names, update.tally.unbind(-1), strict=True))
        for index, done in enumerate(update.end_block()):
            if index in self._stopped or start + done == self.iteration:
                continue
            self._stopped[index] = start + done
            metrics = dict(zip(update.names, update.last[index].unbind(), strict=True))
            message = (
                f"replica {index} ({self.label(index)}) stopped at iteration {start + done}: its loss became "
                f"{update.loss[index].item()}; not finite: {culprits(metrics)}. Its parameters are "
                "those of the step before"
            )
            if not self.active:
                raise NonFiniteError(f"{message}. It was the last one")
            rank_zero_warn(f"{message}; the others go on")

    def _log_training(self) -> None:
        means = {name: totals / self._num_running for name, totals in self._running.items()}
        self._train_elbo |= {index: means["elbo"][index] for index in self.active}
        for name, values in means.items():
            self._log_each(f"train/{name}", values[self.active], prog_bar=name == "elbo")
        self._running, self._num_running = {}, 0
        if self._update is not None:
            self._update.tally.zero_()

    def _log_each(self, name: str, values: Tensor, prog_bar: bool) -> None:
        self.log(name, values.mean(), prog_bar=prog_bar)
        if len(values) > 1:
            self.log(f"{name}_std_error", values.std() / len(values) ** 0.5)
        self.log_dict({f"{name}/{index}": value for index, value in zip(self.active, values, strict=True)})


def replicate(model: DiscreteVAE, replicas: int = 1, sweep: Mapping[str, Sequence[Any]] | None = None) -> Replicas:
    """Replicas of a model with new initial weights: for each setting of a sweep, ``replicas`` seeds.

    Replica k of a setting is built, and makes its noise, from PyTorch's seed + k; if the model was given a ``seed``, it makes its
    noise from that + k.

    Arguments:
        model: what to build; all of its arguments must be plain values, configs or of classes derived from ``dvae.Module``.
        replicas: models of each setting.
        sweep: for each argument, with dots below it (``estimator.temperature``), the values that it takes; every combination is a
            setting.

    Raises:
        InputError: the model's arguments are not recorded, an argument does not exist, or a sweep changes more than tensors,
            learning rates and weight decay.
    """
    if replicas < 1:
        raise InputError(f"replicas must be at least 1, got {replicas}")
    sweep = dict(sweep or {})
    for name, values in sweep.items():
        if not isinstance(values, (list, tuple)) or not values:
            raise InputError(f"sweep must give a list of values for each argument, got {values!r} for {name}")
    seed, state = torch.initial_seed(), torch.get_rng_state()
    models, settings, offsets = [], [], []
    for values in itertools.product(*sweep.values()):
        config = copy.deepcopy(model.config)
        for name, value in zip(sweep, values, strict=True):
            _set_argument(config, model, name, value)
        own_seed = config["init_args"].get("seed")
        for offset in range(replicas):
            torch.manual_seed(seed + offset)
            if own_seed is not None:
                config["init_args"]["seed"] = own_seed + offset
            models.append(instantiate(config, DiscreteVAE, "model"))
            settings.append({**dict(zip(sweep, values, strict=True)), "seed": models[-1].seed})
            offsets.append(offset)
    torch.manual_seed(seed)
    torch.set_rng_state(state)
    return Replicas(models, settings, offsets)


def models_of(module: pl.LightningModule) -> list[DiscreteVAE]:
    """The models that a module trains: itself, or the replicas that have not failed; none of another project's module."""
    if isinstance(module, Replicas):
        return [module.models[index] for index in module.active]
    return [module] if isinstance(module, DiscreteVAE) else []


def _set_argument(config: dict[str, Any], model: DiscreteVAE, name: str, value: Any) -> None:
    node, *path = config, *name.split(".")
    for key in path[:-1]:
        arguments = node.setdefault("init_args", {})
        if arguments.get(key) is None and key == "estimator":
            arguments[key] = copy.deepcopy(model.estimators[0].config)
        node = arguments.get(key)
        if not isinstance(node, dict) or "class_path" not in node:
            raise InputError(f"sweep: there is no argument {name}: {key} is not a module with a class_path")
    node.setdefault("init_args", {})[path[-1]] = value


def joint_adam(models: Sequence[DiscreteVAE]) -> torch.optim.Adam:
    """One optimizer over the groups of each model's own."""
    groups = []
    for model in models:
        configured = model.configure_optimizers()
        optimizer = configured[0][0] if isinstance(configured, (list, tuple)) else configured
        groups += [{**group, "fused": None} for group in optimizer.param_groups]
    return torch.optim.Adam(groups, fused=True)


def _require_alike(first: DiscreteVAE, other: DiscreteVAE, index: int) -> None:
    """An InputError where a model differs from the first in more than its tensors' values and what an update sets."""
    for (name, module), (other_name, twin) in zip(first.named_modules(), other.named_modules(), strict=False):
        if name != other_name or type(module) is not type(twin):
            raise InputError(f"replicas must be of one architecture, but model {index} has {type(twin).__name__} for {name!r}")
        for key, value in vars(module).items():
            given = vars(twin).get(key)
            private = key.startswith("_") and isinstance(module, pl.LightningModule)
            if private or (name == "" and key in _OWN):
                continue
            if isinstance(value, (bool, int, float, str, tuple, type(None))) and value != given:
                where = f"{name}.{key}".lstrip(".")
                raise InputError(
                    f"replicas may differ in tensors, {', '.join(_OWN[:-1])} alone, but {where} is {value!r} in the first and "
                    f"{given!r} in model {index}"
                )
    if first.lr_scheduler != other.lr_scheduler:
        raise InputError("replicas must have the same lr_scheduler")
    shapes, given_shapes = ({name: tensor.shape for name, tensor in m.state_dict().items()} for m in (first, other))
    if shapes != given_shapes:
        raise InputError(f"replicas must have tensors of the same shapes, but those of model {index} differ from the first's")
