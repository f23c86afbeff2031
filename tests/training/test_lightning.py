"""Blocks of steps and callbacks: who wants to see every batch does."""

import warnings

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint, Timer, WeightAveraging

from dvae import DiscreteVAE
from dvae.estimators import LOO
from dvae.training.callbacks import BestCheckpoint, LastCheckpoint, Pictures, ProgressBar, VarianceMonitor

TINY = {"num_pixels": 16, "num_latents": 4, "seed": 0, "lr": 0.01}
WANTS = r"{} wants to see every batch: one step at a time \(steps_per_execution 1 in place of 4\)"


def fitted(tmp_path, data, *callbacks, number=4, cls=DiscreteVAE, **options):
    """Trains for 10 steps in blocks of 4, with epochs of 4 batches."""
    torch.manual_seed(0)
    model = cls(LOO(), steps_per_execution=number, **TINY)
    bar = any(isinstance(callback, ProgressBar) for callback in callbacks)
    off = {"logger": False, "enable_progress_bar": bar, "enable_model_summary": False, "enable_checkpointing": False, **options}
    pl.Trainer(default_root_dir=tmp_path, max_steps=10, accelerator="cpu", callbacks=list(callbacks), **off).fit(model, data)
    return model


class Watching(pl.Callback):
    """Keeps what it sees at the end of each batch."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append((batch_idx, trainer.global_step, batch.clone(), pl_module.prior.logits.detach().clone()))


class Content(Watching):
    """As that, and content with one call for a block."""

    takes_blocks = True


class Starting(pl.Callback):
    """Has the other hook."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        pass


class Hooked(DiscreteVAE):
    """A module with such a hook of its own."""

    def on_train_batch_start(self, batch, batch_idx):
        pass


def test_a_callback_that_wants_to_see_every_batch_does(tmp_path, tiny_data):
    """Each batch, step and state of the model; and the run is the same."""
    one, four = Watching(), Watching()
    expected = fitted(tmp_path, tiny_data, one, number=1)
    with pytest.warns(UserWarning, match=WANTS.format("Watching")):
        model = fitted(tmp_path, tiny_data, four)
    assert [seen[:2] for seen in four.seen] == [((step - 1) % 4, step) for step in range(1, 11)]
    for seen, other in zip(four.seen, one.seen, strict=True):
        assert torch.equal(seen[2], other[2])
        assert torch.equal(seen[3], other[3])
    assert torch.equal(model.prior.logits, expected.prior.logits)


def test_a_callback_that_is_content_with_blocks_gets_blocks(tmp_path, tiny_data):
    content = Content()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*wants to see every batch")
        fitted(tmp_path, tiny_data, content)
    assert [seen[1] for seen in content.seen] == [4, 8, 10]


def test_lightnings_weight_averaging_averages_every_step(tmp_path, tiny_data):
    watching = Watching()
    fitted(tmp_path, tiny_data, watching, number=1)
    with pytest.warns(UserWarning, match=WANTS.format("WeightAveraging")):
        model = fitted(tmp_path, tiny_data, WeightAveraging(use_buffers=False))
    mean = torch.stack([seen[3] for seen in watching.seen]).mean(0)
    torch.testing.assert_close(model.prior.logits.detach(), mean)


@pytest.mark.parametrize("options", [{"callback": Starting()}, {"cls": Hooked}], ids=["callback", "module"])
def test_any_hook_around_a_batch_is_respected(tmp_path, tiny_data, options):
    name = "Hooked" if "cls" in options else "Starting"
    callbacks = [options.pop("callback")] if "callback" in options else []
    with pytest.warns(UserWarning, match=WANTS.format(name)):
        fitted(tmp_path, tiny_data, *callbacks, **options)


def test_callbacks_that_lose_nothing_do_not_slow_a_run_down(tmp_path, tiny_data):
    """The project's own, and those of Lightning that everybody has."""
    callbacks = [BestCheckpoint(monitor="val/elbo"), LastCheckpoint(), Pictures(4), VarianceMonitor(2, 2), ProgressBar(), Timer()]
    content = Content()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*wants to see every batch")
        options = {"logger": pl.loggers.CSVLogger(tmp_path), "enable_checkpointing": True}
        fitted(tmp_path, tiny_data, *callbacks, ModelCheckpoint(tmp_path), content, **options)
    assert [seen[1] for seen in content.seen] == [4, 8, 10]


def test_a_monitor_of_learning_rates_sees_every_step(tmp_path, tiny_data):
    """Lightning's has a hook around a batch."""
    with pytest.warns(UserWarning, match=WANTS.format("LearningRateMonitor")):
        fitted(tmp_path, tiny_data, LearningRateMonitor(), logger=pl.loggers.CSVLogger(tmp_path))
