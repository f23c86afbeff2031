"""Several batches in one ``training_step``: how many, where the next one comes from, and what Lightning is told about them.

The one place that touches the counters of Lightning's loops (2.6), so that steps, logs, validations and checkpoints are where they
would be with one batch at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch.utils.data import DataLoader, default_collate

from dvae.data import TensorLoader

__all__ = ["block", "count_updates", "logs_now", "usual_batch_size"]


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


def count_updates(trainer: pl.Trainer, number: int) -> None:
    """Tell Lightning of updates that were done without its optimizer: they count in ``global_step``."""
    trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress.increment_by(number)


def logs_now(trainer: pl.Trainer) -> bool:
    """Whether Lightning writes what is logged now."""
    return trainer._logger_connector.should_update_logs


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
    loader, owners = trainer.train_dataloader, (module, trainer.datamodule)  # type: ignore[attr-defined]
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
