"""A model whose code is not used is told of, once; one that learns is not."""

import warnings

import pytest
import pytorch_lightning as pl
import torch

from dvae import DiscreteVAE
from dvae.estimators import LOO
from dvae.networks import Linear
from dvae.training import collapse
from dvae.training.callbacks import Schedule
from dvae.training.sweep import Replicas

TINY = {"num_pixels": 16, "num_latents": 4, "lr": 0.03, "compile": False, "steps_per_execution": 50, "kl": "analytic"}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    """These models learn in no time; 1,000 updates are for those that people train."""
    assert collapse.PATIENCE == 1000
    monkeypatch.setattr(collapse, "PATIENCE", 150)


class Deaf(Linear):
    """A decoder that ignores its input."""

    def forward(self, x):
        return super().forward(0.0 * x)


def model(decoder=None, seed=0, **options):
    torch.manual_seed(seed)
    return DiscreteVAE(LOO(), decoder=decoder, seed=seed, **{**TINY, **options})


def warnings_of(module, data, tmp_path, *callbacks, max_steps=200, **options):
    """What is said about collapse in a run, and the run's last figures."""
    given = {"log_every_n_steps": 50, "check_val_every_n_epoch": 45, "logger": pl.loggers.CSVLogger(tmp_path), **options}
    off = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = pl.Trainer(max_steps=max_steps, max_epochs=-1, accelerator="cpu", callbacks=list(callbacks), **off, **given)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(module, data)
    return [str(own.message) for own in caught if "the code is not used" in str(own.message)], trainer.callback_metrics


def test_a_decoder_that_ignores_the_code_is_told_of_once(tmp_path, tiny_data):
    (message,), figures = warnings_of(model(Deaf(4, 16)), tiny_data, tmp_path)
    assert message.startswith("the code is not used after 150 updates, the model: its KL is ")
    assert "less than 0.1. Try another activation or learning rate" in message
    assert figures["val/active_units"] == 0


def test_a_model_that_learns_is_not(tmp_path, tiny_data):
    messages, figures = warnings_of(model(), tiny_data, tmp_path)
    assert messages == []
    assert 1 <= figures["val/active_units"] <= 4
    assert figures["train/kl"] > 0.3


def test_a_validation_without_active_units_is_told_of(tmp_path, tiny_data):
    (message,), _ = warnings_of(model(Deaf(4, 16)), tiny_data, tmp_path, log_every_n_steps=500)
    assert "after 180 updates, the model: no latent's mean under q(b | x) varies" in message


@pytest.mark.parametrize("why", ["too early", "warm-up of phi", "the KL costs nothing yet"])
def test_nothing_is_said_before_it_is_known(tmp_path, tiny_data, why):
    own, callbacks, steps = model(Deaf(4, 16)), [], 200
    if why == "too early":
        steps = 149
    elif why == "warm-up of phi":
        torch.manual_seed(0)
        own = DiscreteVAE(decoder=Deaf(4, 16), phi_warmup_steps=60, **{**TINY, "kl": "sampled"})
    else:
        callbacks = [Schedule("beta", {0: 0.0, 10_000: 1.0}, "step")]
    with torch.no_grad():
        for parameter in own.encoders.parameters():
            parameter.zero_()  # from the start
    messages, figures = warnings_of(own, tiny_data, tmp_path, *callbacks, max_steps=steps)
    assert messages == []
    assert figures["train/kl"] < collapse.LEAST_KL


def test_a_replica_is_named(tmp_path, tiny_data):
    replicas = Replicas([model(seed=0), model(seed=1, beta=50.0)])
    (message,), figures = warnings_of(replicas, tiny_data, tmp_path)
    assert message.startswith("the code is not used after 150 updates, replica 1 (seed=1): its KL is ")
    assert figures["val/active_units/1"] == 0
    assert figures["val/active_units/0"] > 0
