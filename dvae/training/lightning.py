"""All that the project knows of Lightning's private parts (2.6): its loops' counters, its connectors, its ``ddp`` strategy.

Several batches in one ``training_step``: how many, where the next one comes from, and what Lightning is told about them, so that
steps, logs, validations and checkpoints are where they would be with one batch at a time. The public way, a batch at a time,
makes a compiled step through ``Trainer.fit`` 1.65 times as slow for REINFORCE and 1.23 times for RELAX (batch 24, one thread). A
loader of whole blocks would have Lightning count blocks where it is asked for batches, in ``val_check_interval`` and
``log_every_n_steps``.
"""

from __future__ import annotations

import copy
import math
import os
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from lightning_utilities.core.rank_zero import rank_zero_warn
from pytorch_lightning.callbacks import (
    ModelCheckpoint,
    ModelSummary,
    ProgressBar,
    StochasticWeightAveraging,
    Timer,
    WeightAveraging,
)
from pytorch_lightning.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy
from pytorch_lightning.trainer.states import TrainerFn, TrainerStatus
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch.utils.data import DataLoader, default_collate

from dvae.data import TensorLoader
from dvae.errors import InputError
from dvae.training.adam import understands

__all__ = [
    "block",
    "count_updates",
    "data_module_of",
    "done_batches",
    "drop_cuda_check",
    "gathered",
    "gone_through_apart",
    "is_attached",
    "is_fitted",
    "keeps_its_place",
    "largest_block",
    "loader_places",
    "logged_row",
    "logs_now",
    "note_fit",
    "put_loader_places",
    "restore_cuda_check",
    "train_apart",
    "updates_alone",
    "usual_batch_size",
    "validates_now",
]


# Blocks of steps


def block(
    trainer: pl.Trainer, module: pl.LightningModule, batch: Any, limit: int, accumulate_grad_batches: int = 1, accumulated: int = 0
) -> Iterator[Any]:
    """The batch at hand, and those that the same ``training_step`` takes after it: ``limit``, or fewer where something is due.

    ``trainer.is_last_batch`` speaks of the batch that was handed out. When all are taken, Lightning is told of them.

    Arguments:
        trainer, module, batch: in ``training_step``.
        limit: the most; blocks end at its multiples within an epoch.
        accumulate_grad_batches: batches of one update.
        accumulated: batches whose gradients wait for their update.
    """
    size, taken = _block_size(trainer, limit, accumulate_grad_batches, accumulated), 1
    as_is = size > 1 and _stays_as_it_is(trainer, module)
    yield batch
    while taken < size and not trainer.is_last_batch:
        try:
            following = _next_batch(trainer, module, as_is)
        except StopIteration:  # resumed from the end of an epoch, Lightning expects more batches than there are
            break
        yield following
        taken += 1
    loop = trainer.fit_loop.epoch_loop
    loop.batch_progress.increment_by(taken - 1, loop.batch_progress.is_last_batch)
    loop._batches_that_stepped += taken - 1


def _block_size(trainer: pl.Trainer, limit: int, accumulate_grad_batches: int, accumulated: int) -> int:
    if limit == 1:
        return 1
    loop = trainer.fit_loop.epoch_loop
    batch, update = loop.batch_idx, trainer.global_step

    def until(updates: int) -> int:
        return updates * accumulate_grad_batches - accumulated

    ends: list[float] = [limit - batch % limit, trainer.num_training_batches - batch]
    if trainer.log_every_n_steps:  # type: ignore[attr-defined]
        ends.append(trainer.log_every_n_steps - loop._batches_that_stepped % trainer.log_every_n_steps)  # type: ignore[attr-defined]
    if trainer.max_steps and trainer.max_steps > 0:
        ends.append(until(trainer.max_steps - update))
    if trainer.min_steps and trainer.min_steps > update:
        ends.append(until(trainer.min_steps - update))
    if trainer.val_check_batch and math.isfinite(trainer.val_check_batch):
        current = loop.total_batch_idx if trainer.check_val_every_n_epoch is None else batch
        ends.append(trainer.val_check_batch - current % trainer.val_check_batch)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        every = getattr(callback, "every_n_train_steps", None) or getattr(callback, "_every_n_train_steps", None)
        if every:
            ends.append(until(every - update % every))
    return max(1, int(min(ends)))


# Lightning's own callbacks whose hooks around a batch lose nothing when they are called once for a block: what they do at steps
# ends a block, or is about the clock.
_INDIFFERENT = (ModelCheckpoint, ModelSummary, ProgressBar, Timer)


def largest_block(trainer: pl.Trainer, module: pl.LightningModule, limit: int) -> int:
    """``limit``, or 1 where a callback's or the module's hooks around a batch want to see every batch; then a warning says so.

    A callback that is content with one call for a block says so with an attribute, ``takes_blocks = True``.
    """
    if limit == 1:
        return 1
    hooks = ("on_train_batch_start", "on_train_batch_end")
    watching = [
        type(owner).__name__
        for owner in (module, *trainer.callbacks)  # type: ignore[attr-defined]
        if not isinstance(owner, _INDIFFERENT)
        and not getattr(owner, "takes_blocks", False)
        and any(is_overridden(hook, owner, pl.LightningModule if owner is module else pl.Callback) for hook in hooks)
    ]
    if watching:
        rank_zero_warn(
            f"{', '.join(watching)} wants to see every batch: one step at a time (steps_per_execution 1 in place of {limit}). A "
            "callback that is content with one call for a block of steps has an attribute takes_blocks = True"
        )
        return 1
    return limit


def count_updates(trainer: pl.Trainer, number: int) -> None:
    """Tell Lightning of updates that were done without its optimizer: they count in ``global_step``.

    A whole step as an ``Optimizer``, whose ``step`` Lightning counts itself, took 1.1 times as long (REINFORCE, in blocks).
    """
    trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress.increment_by(number)


def done_batches(trainer: pl.Trainer) -> int:
    """Index of the epoch's last batch so far, those of the current block included."""
    return trainer.fit_loop.epoch_loop.batch_idx


def usual_batch_size(trainer: pl.Trainer, at_hand: int) -> int | None:
    """The size of the training batches but for an epoch's last; None where the loader does not say, or a batch says otherwise.

    Arguments:
        trainer: in ``training_step``.
        at_hand: the size of the batch that was handed out.
    """
    loader: Any = trainer.train_dataloader
    known = isinstance(loader, TensorLoader) or (isinstance(loader, DataLoader) and loader.collate_fn is default_collate)
    if not known or loader.batch_size is None or trainer.num_training_batches == 1:
        return None
    return loader.batch_size if at_hand == loader.batch_size or trainer.is_last_batch else None


def _stays_as_it_is(trainer: pl.Trainer, module: pl.LightningModule) -> bool:
    """Whether batches come from the device that they are needed on, and no hook of the user's wants to see them."""
    loader, owners = trainer.train_dataloader, (module, data_module_of(module))
    hooks = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
    watched = any(is_overridden(hook, owner) for owner in owners if owner is not None for hook in hooks)
    return isinstance(loader, TensorLoader) and loader.data.device == module.device and not watched


def _next_batch(trainer: pl.Trainer, module: pl.LightningModule, as_is: bool) -> Any:
    fetcher = trainer.fit_loop._data_fetcher
    assert fetcher is not None
    batch, _, _ = next(fetcher)
    trainer.fit_loop.epoch_loop.batch_progress.is_last_batch = fetcher.done
    if as_is:
        return batch
    batch = module._on_before_batch_transfer(trainer.precision_plugin.convert_input(batch), dataloader_idx=0)
    return trainer.strategy.batch_to_device(batch, dataloader_idx=0)


def keeps_its_place(trainer: pl.Trainer) -> bool:
    """Whether a checkpoint holds where the training loader is in its epoch; in training."""
    loader: Any = trainer.train_dataloader
    return hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")


def gone_through_apart(loader: Any) -> Any:
    """The same batches, from an iterator that leaves alone the one that Lightning makes before training starts.

    A loader that keeps its place keeps that of the last iterator that was made of it.
    """
    if isinstance(loader, TensorLoader) or not hasattr(loader, "state_dict"):
        return loader
    twin = copy.copy(loader)
    twin._iterator = None
    return twin


def loader_places(trainer: pl.Trainer) -> list[Any]:
    """What the training loaders that keep their place say of it; in training, or when it ends."""
    return list(trainer.fit_loop.on_save_checkpoint().get("combined_loader", []))


def put_loader_places(checkpoint: dict[str, Any], places: list[Any]) -> None:
    """Have a run that goes on from a checkpoint start its loaders at these places."""
    if places:
        checkpoint["loops"]["fit_loop"]["state_dict"]["combined_loader"] = places


# What Lightning is about to do


def logs_now(trainer: pl.Trainer) -> bool:
    """Whether Lightning writes what is logged now."""
    return trainer._logger_connector.should_update_logs


def logged_row(trainer: pl.Trainer) -> dict[str, float]:
    """What was logged in this step, which Lightning writes after the callbacks' hooks; nothing where no log is due."""
    connector = trainer._logger_connector
    if not connector.should_update_logs:
        return {}
    row = {name: float(value) for name, value in connector.metrics["log"].items()}
    return row | {"epoch": trainer.current_epoch, "step": trainer.fit_loop.epoch_loop._batches_that_stepped}


def validates_now(trainer: pl.Trainer) -> bool:
    """Whether a validation follows this batch."""
    loop = trainer.fit_loop.epoch_loop
    return loop._should_check_val_fx(trainer.fit_loop._data_fetcher)  # type: ignore[arg-type]


def is_attached(module: pl.LightningModule) -> bool:
    """Whether a module is in a trainer."""
    return module._trainer is not None


# A replica is in no trainer. Beside the models, for a trainer has no place in their copies.
_FITS: weakref.WeakKeyDictionary[pl.LightningModule, weakref.ref[pl.Trainer]] = weakref.WeakKeyDictionary()


def note_fit(module: pl.LightningModule, models: Sequence[pl.LightningModule]) -> None:
    """Remember, where an optimizer is made for a module's models, which trainer they are in."""
    if module._trainer is not None:
        _FITS.update(dict.fromkeys(models, weakref.ref(module._trainer)))


def is_fitted(model: pl.LightningModule) -> bool:
    """Whether a model is in the middle of a fit: its optimizer was made, and the run has not ended."""
    trainer = _FITS[model]() if model in _FITS else None
    return trainer is not None and (trainer.state.fn, trainer.state.status) == (TrainerFn.FITTING, TrainerStatus.RUNNING)


def data_module_of(module: pl.LightningModule) -> Any:
    """The data module that a module is trained on, None without one; the module need not be in a trainer."""
    return getattr(module._trainer, "datamodule", None)


# What a step may do for itself


def updates_alone(trainer: pl.Trainer, optimizer: torch.optim.Optimizer, apart: bool = False) -> bool:
    """Whether an update of this run is no more than a :class:`dvae.training.whole_step.WholeStep`.

    Not so with another optimizer than Adam, several processes that exchange gradients, scaled gradients, or anything that wants to
    see the gradients.

    Arguments:
        trainer: in training.
        optimizer: Lightning's.
        apart: whether several processes exchange no gradients.
    """
    hooks = ("on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step", "optimizer_step")
    module: Any = trainer.lightning_module
    watched = any(is_overridden(hook, callback) for callback in trainer.callbacks for hook in hooks[:-1])  # type: ignore[attr-defined]
    watched = watched or any(is_overridden(hook, module) for hook in hooks)
    watched = watched or bool(optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks)
    plain = understands(optimizer)
    scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
    if plain:
        # Learning-rate schedulers warn where they are stepped without the optimizer's own step.
        optimizer._opt_called = True  # type: ignore[attr-defined]
    return plain and not watched and not scaled and (apart or trainer.world_size == 1)


_CUDA_CHECK = "PYTORCH_NVML_BASED_CUDA_CHECK"


def drop_cuda_check() -> str | None:
    """Without a GPU, stop PyTorch from looking for one in every optimizer step, which costs .2 ms; returns what to restore.

    Lightning has it look by loading the driver's library, for the sake of forked processes.
    """
    return None if torch.cuda.is_available() else os.environ.pop(_CUDA_CHECK, None)


def restore_cuda_check(before: str | None) -> None:
    """Undo :func:`drop_cuda_check`."""
    if before is not None:
        os.environ[_CUDA_CHECK] = before


# Several processes, each with models of its own


_AVERAGING = (StochasticWeightAveraging, WeightAveraging)


def train_apart(trainer: pl.Trainer, module: pl.LightningModule) -> Callable[[], None]:
    """Have the processes of Lightning's ``ddp`` launcher share neither parameters, gradients nor the user's own loaders.

    Arguments:
        trainer: in the module's ``setup``, before anything is shared.
        module: what is trained.

    Returns:
        what undoes it, for another module in the same trainer.

    Raises:
        InputError: the strategy is another one, or a callback does not go together with it.
    """
    strategy: Any = trainer.strategy
    if isinstance(strategy, SingleDeviceStrategy):
        return lambda: None
    if not isinstance(strategy, DDPStrategy) or isinstance(strategy, DeepSpeedStrategy):
        raise InputError(f"replicas need the strategy auto or ddp, got {type(strategy).__name__}")
    if trainer.world_size > 1 and strategy._start_method != "popen":
        raise InputError(f"replicas need the strategy auto or ddp, got ddp_{strategy._start_method}")
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    if trainer.world_size > 1 and any(isinstance(callback, _AVERAGING) for callback in callbacks):
        raise InputError("replicas on several processes cannot have their weights averaged by a callback: it copies those of all")
    connector = trainer._accelerator_connector
    shared_sampler = connector.use_distributed_sampler
    connector.use_distributed_sampler = False
    # Training is not wrapped in DistributedDataParallel; in an evaluation, which never is, Lightning would copy the first process's
    # tensors to all.
    strategy.configure_ddp = lambda: None  # type: ignore[method-assign]
    names = [name for name, _ in (*module.named_parameters(), *module.named_buffers())]
    module._ddp_params_and_buffers_to_ignore = names  # type: ignore[assignment]
    # It recommends the mean over processes for what is logged, which here is that of all models already.
    warnings.filterwarnings("ignore", message="It is recommended to use `self.log.*sync_dist=True")

    def undo() -> None:
        connector.use_distributed_sampler = shared_sampler
        del strategy.configure_ddp

    return undo


def gathered(trainer: pl.Trainer, value: Any) -> list[Any]:
    """What each process gives, in their order, on all of them, with tensors on the CPU; the value as it is where there is one."""
    if trainer.world_size == 1:
        return [value]
    everybody: list[Any] = [None] * trainer.world_size
    # A copy of each: with a tensor that is a part of a larger one, all of that would be sent and saved.
    own = apply_to_collection(value, torch.Tensor, lambda tensor: tensor.detach().to("cpu", copy=True))
    torch.distributed.all_gather_object(everybody, own)
    return everybody
