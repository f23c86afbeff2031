"""Several batches in one ``training_step``: how many, where the next one comes from, and what Lightning is told about them.

The one place that touches the counters of Lightning's loops (2.6), so that steps, logs, validations and checkpoints are where they
would be with one batch at a time.
"""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl

__all__ = ["block_size", "count_batches", "count_updates", "logs_now", "next_batch"]


def block_size(trainer: pl.Trainer, limit: int, accumulate_grad_batches: int = 1, accumulated: int = 0) -> int:
    """How many batches to take now, the one at hand included: ``limit``, or fewer where something is due after one of them.

    Arguments:
        trainer: in ``training_step``.
        limit: the most; blocks end at its multiples within an epoch.
        accumulate_grad_batches: batches of one update.
        accumulated: batches whose gradients wait for their update.
    """
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


def next_batch(trainer: pl.Trainer, module: pl.LightningModule) -> Any:
    """The batch after the one at hand, on its device; ``trainer.is_last_batch`` then speaks of it."""
    fetcher = trainer.fit_loop._data_fetcher
    assert fetcher is not None
    batch, _, _ = next(fetcher)
    trainer.fit_loop.epoch_loop.batch_progress.is_last_batch = fetcher.done
    batch = module._on_before_batch_transfer(trainer.precision_plugin.convert_input(batch), dataloader_idx=0)
    return trainer.strategy.batch_to_device(batch, dataloader_idx=0)


def count_batches(trainer: pl.Trainer, number: int) -> None:
    """Tell Lightning of batches that were taken beside the one it knows of."""
    loop = trainer.fit_loop.epoch_loop
    loop.batch_progress.increment_by(number, loop.batch_progress.is_last_batch)
    loop._batches_that_stepped += number


def count_updates(trainer: pl.Trainer, number: int) -> None:
    """Tell Lightning of updates that were done without its optimizer: they count in ``global_step``."""
    trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress.increment_by(number)


def logs_now(trainer: pl.Trainer) -> bool:
    """Whether Lightning writes what is logged now."""
    return trainer._logger_connector.should_update_logs
