"""What guards an estimator guards training too, for both go through the same door; and a model leaves by ``torch.export``."""

import pytest
import pytorch_lightning as pl
import torch

from dvae import DiscreteVAE, InputError
from dvae.estimators import LOO, REBAR, GradientEstimator


class Rounding(DiscreteVAE):
    """Its likelihood has no derivative with respect to the code."""

    def log_likelihood(self, x, b):
        return super().log_likelihood(x, b.detach().round())

    def terms(self, x, layers, kl=None):
        terms = super().terms(x, layers, kl)
        return terms._replace(kl=torch.zeros_like(terms.kl))


class Misshapen(GradientEstimator):
    def gradient(self, f, q, draw, context):
        return draw.value


def fit(tmp_path, data, model):
    run = pl.Trainer(
        default_root_dir=tmp_path,
        max_steps=2,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    run.fit(model, data)
    return run


@pytest.mark.parametrize("compile", [False, True])
def test_training_refuses_an_objective_without_the_derivative_that_the_estimator_needs(tmp_path, tiny_data, compile):
    with pytest.raises(InputError, match="REBAR needs the derivative of f, but f has none"):
        fit(tmp_path, tiny_data, Rounding(REBAR(), num_pixels=16, num_latents=4, compile=compile))


def test_training_takes_such_an_objective_where_no_derivative_is_needed(tmp_path, tiny_data):
    assert fit(tmp_path, tiny_data, Rounding(LOO(), num_pixels=16, num_latents=4)).global_step == 2


def test_training_refuses_a_gradient_of_another_shape(tmp_path, tiny_data):
    with pytest.raises(
        InputError, match=r"Misshapen.gradient must return a gradient for each sample, shape \(1, 10, 4\), got \(1, 10\)"
    ):
        fit(tmp_path, tiny_data, DiscreteVAE(Misshapen(), num_pixels=16, num_latents=4))


def test_the_look_for_a_derivative_changes_no_number(tiny_data):
    x = tiny_data.split("train").float()
    losses = []
    for checked in (False, True):
        torch.manual_seed(0)
        model = DiscreteVAE(REBAR(), num_pixels=16, num_latents=4, seed=0)
        model.estimators[0]._derivative_checked = checked
        losses.append(model.step(x, model.training_noise(len(x), 0, 0)).loss)
    assert torch.equal(*losses)


def test_the_encoder_is_exported(tiny_data):
    x = tiny_data.split("test").float()
    model = DiscreteVAE(num_pixels=16, num_latents=4).eval()
    assert torch.equal(torch.export.export(model, (x,)).module()(x), model(x))
