"""Several independent models trained in one run: seeds, or a sweep of hyper-parameters, as one vectorized step."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from dvae.config import Module, instantiate
from dvae.data import TensorLoader
from dvae.errors import InputError, NonFiniteError
from dvae.training import lightning
from dvae.training.compilation import NotCompilable
from dvae.training.module import DiscreteVAE
from dvae.training.run import Training

__all__ = ["Replicas", "models_of", "replicate"]

# What an update takes as numbers of each model's own; everything else that is no tensor is part of its code.
_OWN = ("lr", "phi_lr", "weight_decay", "seed")
_PLAIN = (bool, int, float, str, tuple, type(None))


class Replicas(Training):
    r"""R models of one architecture, trained side by side as if each had a run of its own.

    Replica r is, up to rounding, the model that a run of its own gives: it has its own initial weights, noise (``model.seed``),
    batches (those of the data module's ``seed`` + ``seed_offsets[r]``), optimizer state and learning rates. One step does
    all: ``torch.vmap`` over stacked parameters (:class:`dvae.training.whole_step.WholeStep`). A replica whose loss turns non-finite
    stays as it was before, is named, and is left out of the means.

    Each training and validation metric is logged as its mean over replicas, with ``_std_error`` (standard deviation over the root
    of R), and for each replica, with ``/r``. A checkpoint holds all; ``dvae extract`` takes one out.

    Under several processes (``strategy="ddp"``) each trains its share of the models, on the whole data set, and exchanges nothing
    but what is logged and saved: both are, up to rounding, those of one process. In Python each process holds its own models alone
    after the run. A shuffled loader of the user's own is in the same order everywhere if all processes are seeded alike.

    Arguments:
        models: R >= 2 of them, which may differ in tensors (initial temperatures, for example), ``lr``, ``phi_lr``,
            ``weight_decay`` and ``seed`` alone. Blocks of steps and compilation are as the first one says.
        settings: for each, what distinguishes it, for tables.
        seed_offsets: for each, what to add to the data module's seed; by default 0, 1, ... With another loader than
            :class:`dvae.data.TensorLoader` all see the same batches.

    Raises:
        InputError: there are fewer than two, they differ in more, or they accumulate gradients; in training, if there are more
            processes than models, another strategy than auto or ddp, another optimizer than Adam, scaled gradients, or a callback
            that wants to see gradients.
    """

    def __init__(
        self,
        models: Sequence[DiscreteVAE],
        settings: Sequence[Mapping[str, Any]] | None = None,
        seed_offsets: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
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
        self.all_settings = self.settings
        self.share = range(len(models))
        self._undo: Callable[[], None] | None = None

    apart = True

    def setup(self, stage: str) -> None:
        """Under several processes, keep this one's share of the models."""
        count, processes, rank = len(self.all_settings), self.trainer.world_size, self.trainer.global_rank
        if processes > count:
            raise InputError(f"replicas must be at least as many as processes, {processes}, got {count}")
        share = range(rank * count // processes, (rank + 1) * count // processes)
        if len(self.share) < count and self.share != share:
            raise InputError(f"replicas must be made anew, got those that an earlier run left in this process, {list(self.share)}")
        if self.share != share:
            self.models = nn.ModuleList([self.models[index] for index in share])  # type: ignore[assignment]
            self.settings = [self.all_settings[index] for index in share]
            self.seed_offsets = [self.seed_offsets[index] for index in share]
            self.share = share
            for model in self.models:
                # What another process measures is of another model.
                model.start_metrics(sync_on_compute=False)
        for index, model in enumerate(self.models):  # an estimator may have been replaced
            _require_same_code(self.models[0].estimators, model.estimators, index)  # type: ignore[arg-type]
        self._undo = lightning.train_apart(self.trainer, self)

    def teardown(self, stage: str) -> None:
        if self._undo is not None:
            self._undo()
            self._undo = None

    def on_train_start(self) -> None:
        seeks_mean = not self.models[0].mean_is_set and getattr(self.trainer.datamodule, "mean", None) is None  # type: ignore[attr-defined]
        before, after = self.share.start * seeks_mean, (len(self.all_settings) - self.share.stop) * seeks_mean
        # The order of a loader of the user's own may depend on how often it was gone through: as often as in one process.
        for _ in range(before):
            self.models[0].mean_of_batches(self.trainer)
        super().on_train_start()
        for _ in range(after):
            self.models[0].mean_of_batches(self.trainer)

    def label(self, index: int) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.settings[index].items())

    def global_index(self, index: int) -> int:
        return self.share[index]

    def _batches_of(self, batch: Any) -> Tensor:
        model, loader = self.models[0], self.trainer.train_dataloader
        if isinstance(loader, TensorLoader) and loader.several:
            return batch.to(model.mean.dtype)
        x = super()._batches_of(batch)
        return x.expand(len(self.models), *x.shape)

    def _may_be_whole(self) -> bool:
        if not super()._may_be_whole():
            raise InputError(
                "replicas are trained with Adam or AdamW, without scaled gradients and without callbacks that look at gradients; "
                "one of these is otherwise"
            )
        return True

    def _cannot_be_whole(self, error: NotCompilable) -> None:
        raise InputError(f"replicas need a step that is a function of parameters, batch and noise, but {error}") from None

    def log_each(self, name: str, values: Tensor, prog_bar: bool) -> None:
        figures: dict[int, Tensor] = {}
        for part in lightning.gathered(self.trainer, {self.share[i]: v for i, v in zip(self.active, values, strict=True)}):
            figures |= part
        if not figures:
            raise NonFiniteError("every replica has stopped; each was named when it did")
        values = torch.stack([value.to(values.device) for value in figures.values()])
        self.log(name, values.mean(), prog_bar=prog_bar)
        if len(values) > 1:
            self.log(f"{name}_std_error", values.std() / len(values) ** 0.5)
        self.log_dict({f"{name}/{index}": value for index, value in zip(figures, values, strict=True)})


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
    if not isinstance(model, DiscreteVAE):
        raise InputError(f"replicas are of a DiscreteVAE, got {type(model).__name__}: give each seed a run of its own")
    sweep = dict(sweep or {})
    for name, values in sweep.items():
        if not isinstance(values, (list, tuple)) or not values:
            raise InputError(f"sweep must give a list of values for each argument, got {values!r} for {name}")
    if "estimator" in sweep:
        raise InputError(
            "sweep cannot change the estimator, for replicas are of one architecture: dvae compare --estimators '[RELAX, REBAR]' "
            "trains each in a run of its own"
        )
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
    """The models that a module trains in this process and that have not failed; none of another project's module."""
    return [module.models[index] for index in module.active] if isinstance(module, Training) else []


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


def _require_alike(first: DiscreteVAE, other: DiscreteVAE, index: int) -> None:
    """An InputError where a model differs from the first in more than its tensors' values and what an update sets."""
    _require_same_code(first, other, index)
    if first.lr_scheduler != other.lr_scheduler:
        raise InputError("replicas must have the same lr_scheduler")
    shapes, given_shapes = ({name: tensor.shape for name, tensor in m.state_dict().items()} for m in (first, other))
    if shapes != given_shapes:
        raise InputError(f"replicas must have tensors of the same shapes, but those of model {index} differ from the first's")


def _require_same_code(first: nn.Module, other: nn.Module, index: int) -> None:
    for (name, module), (other_name, twin) in zip(first.named_modules(), other.named_modules(), strict=False):
        if name != other_name or type(module) is not type(twin):
            raise InputError(f"replicas must be of one architecture, but model {index} has {type(twin).__name__} for {name!r}")
        for key, value in vars(module).items():
            given = vars(twin).get(key)
            private = key.startswith("_") and isinstance(module, pl.LightningModule)
            if private or (name == "" and key in _OWN):
                continue
            if isinstance(value, _PLAIN) and value != given:
                where, value, given = _argument_behind(first, other, name) or (f"{name}.{key}".lstrip("."), value, given)
                raise InputError(
                    f"replicas may differ in tensors, {', '.join(_OWN[:-1])} alone, but {where} is {value!r} in the first and "
                    f"{given!r} in model {index}"
                )


def _argument_behind(first: nn.Module, other: nn.Module, name: str) -> tuple[str, Any, Any] | None:
    """Where a part differs, the argument of the innermost module around it that was given two values, and these."""
    while name:
        module, twin = first.get_submodule(name), other.get_submodule(name)
        if isinstance(module, Module) and isinstance(twin, Module):
            arguments, given = module.config["init_args"], twin.config["init_args"]
            for key, value in arguments.items():
                if not isinstance(value, Mapping) and value != given.get(key):
                    return f"{name}.{key}", value, given.get(key)
        name = name.rpartition(".")[0]
    return None
