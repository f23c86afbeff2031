"""The sampled KL's own gradient to the encoder: left out where its mean is zero, kept where it is not."""

import pytest
import torch

import dvae
from dvae.lab.certify import certify_model
from dvae.training.gradient_variance import log_gradient_variance
from dvae.training.step import step_loss

X = torch.tensor([[0.0, 1.0, 1.0, 0.0, 1.0]], dtype=torch.float64)


def small_model(estimator: str = "REINFORCE", cls: type[dvae.VAE] = dvae.VAE, **options) -> dvae.VAE:
    torch.manual_seed(0)
    model = cls({"class_path": f"dvae.estimators.{estimator}"}, num_pixels=5, num_latents=3, **options).double()
    with torch.no_grad():
        for parameter in model.theta():
            parameter.copy_(torch.randn_like(parameter))
    return model


class Squared(dvae.VAE):
    """An objective that is not linear in log q: its direct gradient has another mean than zero."""

    def objective(self, terms):
        return terms.reconstruction - 0.2 * terms.kl.square()


class Weighted(dvae.VAE):
    """One that is."""

    def objective(self, terms):
        return terms.reconstruction - 2 * terms.kl


def encoder_gradient(model: dvae.VAE, noise: list[torch.Tensor]) -> torch.Tensor:
    loss = step_loss(model, X, noise).loss
    return torch.cat([grad.flatten() for grad in torch.autograd.grad(loss, list(model.encoders.parameters()))])


@pytest.mark.parametrize("num_layers", [1, 2])
def test_what_is_left_out_is_the_gradient_of_log_q(num_layers):
    without, with_it = (small_model("RELAX", num_layers=num_layers, direct_gradient=direct) for direct in (None, True))
    noise = without.noise(1, generator=torch.Generator().manual_seed(1))
    noise = [torch.cat([own, own]) for own in noise]
    log_q = sum(layer.q.log_prob(layer.sample.detach()) for layer in without.rollout(X, noise))
    score = torch.autograd.grad(log_q.sum(), list(without.encoders.parameters()))
    difference = encoder_gradient(with_it, noise) - encoder_gradient(without, noise)
    torch.testing.assert_close(difference, torch.cat([grad.flatten() for grad in score]))


def test_it_is_all_the_noise_that_an_exact_gradient_has():
    without, with_it = (small_model("Exact", direct_gradient=direct) for direct in (None, True))
    assert log_gradient_variance(without, X, 20).encoder < -60
    assert log_gradient_variance(with_it, X, 20).encoder > -3


@pytest.mark.parametrize("cls", [Squared, Weighted])
def test_an_objective_of_ones_own_keeps_it_and_is_unbiased(cls):
    model = small_model(cls=cls)
    assert model.direct_gradient
    assert certify_model(model, X, num_samples=40_000).max_z < 4


def test_leaving_it_out_is_rejected_where_the_objective_is_not_linear_in_log_q():
    assert certify_model(small_model(cls=Squared, direct_gradient=False), X, num_samples=40_000).max_z > 6
    assert certify_model(small_model(cls=Weighted, direct_gradient=False), X, num_samples=40_000).max_z < 4


def test_an_objective_given_to_one_model_counts_as_its_own():
    model = small_model()
    assert not model.direct_gradient
    model.objective = lambda terms: -terms.kl.square()
    assert model.direct_gradient


def test_the_bound_of_several_samples_keeps_it():
    assert small_model("VIMCO").direct_gradient
    with pytest.raises(dvae.errors.InputError, match="K-sample bound of VIMCO"):
        small_model("VIMCO", direct_gradient=False)
    model = small_model(direct_gradient=False)
    with pytest.raises(dvae.errors.InputError, match="K-sample bound of VIMCO"):
        model.estimator = {"class_path": "dvae.estimators.VIMCO"}


def test_the_kl_in_closed_form_has_none():
    with pytest.raises(dvae.errors.InputError, match="direct_gradient is for the sampled KL"):
        small_model(kl="analytic", direct_gradient=True)
