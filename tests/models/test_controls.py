"""The weight of the KL, free bits and KL balancing: the objective and its gradient are what they say, the ELBO stays the ELBO."""

import math

import pytest
import torch

import dvae
from dvae import VAE, DiscreteVAE, InputError
from dvae.estimators import LOO, REBAR, REINFORCE, VIMCO
from dvae.lab.certify.certificate import _max_z
from dvae.lab.certify.chains import StepChain, sample
from dvae.lab.certify.exact import exact_objective
from dvae.training.step import step_loss

X = torch.tensor([[1.0, 0.0, 1.0, 1.0]], dtype=torch.float64)


def small_model(estimator, **options) -> VAE:
    """Layers of 2 latents over 4 pixels, in float64, with weights large enough to matter."""
    model = VAE(estimator, num_pixels=4, num_latents=2, **options).double().train()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.theta():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def smallest_kl(model: VAE) -> float:
    """The least KL of X at any sample."""
    return min(model.terms(X, model.sample_layers(X, 100)).kl.flatten().tolist())


def gradients(model: VAE, num_samples: int = 20_000):
    """The enumerated gradient with respect to the encoder, and the mean one of whole training steps with its standard error."""
    step_loss(model, X, model.noise(1))  # once in the open: what a first call checks, it cannot check inside vmap
    encoder = [p for name, p in model.named_parameters() if name.startswith("encoders.")]
    exact = torch.cat([g.reshape(-1) for g in torch.autograd.grad(exact_objective(model, X), encoder)])
    draws = sample(StepChain(model, X), num_samples, torch.Generator().manual_seed(1))
    return exact, draws


@pytest.mark.parametrize("estimator", [LOO, REBAR])
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("options", [{"beta": 2.0}, {"free_bits": 1.5}, {"free_bits": 5.0, "beta": 2.0}], ids=str)
def test_the_step_is_unbiased_for_the_objective(estimator, num_layers, options):
    model = small_model(estimator(), kl="analytic", num_layers=num_layers, **options)
    exact, draws = gradients(model)
    assert _max_z(draws.mean, draws.standard_error, exact) < 4
    plain = small_model(estimator(), kl="analytic", num_layers=num_layers)
    ordinary = torch.cat([g.reshape(-1) for g in torch.autograd.grad(exact_objective(plain, X), list(plain.encoders.parameters()))])
    changes = (exact - ordinary).abs().max() > 0.01
    free = smallest_kl(model) < options.get("free_bits", 0.0)
    assert changes == (free or "beta" in options)
    if changes:  # so many draws tell it from the ELBO's
        assert _max_z(draws.mean, draws.standard_error, ordinary) > 4


def test_sampled_kl_has_its_weight_too():
    exact, draws = gradients(small_model(REINFORCE(), beta=2.0))
    assert _max_z(draws.mean, draws.standard_error, exact) < 4


def test_the_elbo_stays_the_elbo():
    """Whatever is trained, what is logged and evaluated is the same."""
    plain, turned = small_model(LOO(), kl="analytic"), small_model(LOO(), kl="analytic", beta=3.0, free_bits=2.0, kl_balance=0.7)
    noise = plain.noise(1, generator=torch.Generator().manual_seed(0))
    first, second = (step_loss(model, X, noise) for model in (plain, turned))
    for name in ("elbo", "reconstruction", "kl"):
        assert torch.equal(first.metrics[name], second.metrics[name])
    assert first.loss != second.loss
    elbos = [model.elbo(X, 5, torch.Generator().manual_seed(0)) for model in (plain, turned)]
    assert torch.equal(*elbos)


def test_free_bits_cost_what_they_hold():
    model = small_model(LOO(), kl="analytic", free_bits=7.0)
    layers = model.sample_layers(X)
    terms = model.terms(X, layers)
    assert terms.kl.item() < 7
    torch.testing.assert_close(model.objective(terms), terms.reconstruction - 7)
    model.free_bits = terms.kl.item() / 2
    torch.testing.assert_close(model.objective(model.terms(X, layers)), terms.elbo)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_kl_balance_shares_the_gradient_and_changes_no_value(num_layers):
    plain = small_model(LOO(), kl="analytic", num_layers=num_layers, beta=2.0)
    balanced = small_model(LOO(), kl="analytic", num_layers=num_layers, beta=2.0, kl_balance=0.8)
    noise = plain.noise(1, generator=torch.Generator().manual_seed(0))
    own, all_of_it = {}, {}
    for model, found in ((plain, all_of_it), (balanced, own)):
        output = step_loss(model, X, noise)
        output.loss.backward()
        found |= {name: p.grad for name, p in model.named_theta()} | {"loss": output.loss.detach()}
    torch.testing.assert_close(own["loss"], all_of_it["loss"])
    torch.testing.assert_close(own["prior.logits"], 0.8 * all_of_it["prior.logits"])
    # Of the encoder's gradient the KL's part alone is another.
    layers = plain.rollout(X, noise)
    kl = layers[-1].q.kl(plain.prior()).mean()
    name, bias = next((n, p) for n, p in plain.named_theta() if n.startswith(f"encoders.{num_layers - 1}.") and p.dim() == 1)
    (of_kl,) = torch.autograd.grad(kl, bias)
    torch.testing.assert_close(own[name], all_of_it[name] - 2.0 * 0.8 * of_kl)
    for name in own:
        if name.startswith(("decoders.", "encoders.0.") if num_layers == 2 else "decoders."):
            torch.testing.assert_close(own[name], all_of_it[name])


def test_kl_that_is_free_pulls_nobody_when_it_is_balanced():
    model = small_model(LOO(), kl="analytic", free_bits=50.0, kl_balance=0.8)
    step_loss(model, X, model.noise(1)).loss.backward()
    assert model.prior.logits.grad.abs().max() == 0


def test_a_number_assigned_is_what_the_next_step_takes():
    model = small_model(LOO(), kl="analytic", free_bits=0.0, kl_balance=0.5)
    noise = model.noise(1)
    for name, value in (("beta", 0.25), ("free_bits", 3.0), ("kl_balance", 0.9)):
        buffer = getattr(model, name)
        setattr(model, name, value)
        assert getattr(model, name) is buffer
        assert buffer.item() == value
    same = small_model(LOO(), kl="analytic", beta=0.25, free_bits=3.0, kl_balance=0.9)
    assert torch.equal(step_loss(model, X, noise).loss, step_loss(same, X, noise).loss)
    again = VAE(**model.config["init_args"])
    again.double().load_state_dict(model.state_dict())
    assert again.beta.item() == 0.25


def test_weights_from_before_there_was_a_beta_load():
    model = DiscreteVAE(num_pixels=4, num_latents=2, beta=2.0)
    older = {name: tensor for name, tensor in model.state_dict().items() if "beta" not in name}
    assert len(older) == len(model.state_dict()) - 1
    model.load_state_dict(older)
    assert model.beta == 2
    del older["mean"]
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "mean"\.'):
        model.load_state_dict(older)


def test_a_subclass_with_a_beta_of_its_own_keeps_it():
    class Weighted(DiscreteVAE):
        def __init__(self, beta=4.0, **kwargs):
            super().__init__(**kwargs)
            self.beta = beta

        def objective(self, terms):
            return terms.reconstruction - self.beta * terms.kl

    assert Weighted(num_pixels=4, num_latents=2).beta == 4


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"beta": -1.0}, "beta must be a finite number of at least 0, got -1.0"),
        ({"beta": math.nan}, "beta must be a finite number of at least 0, got nan"),
        ({"kl": "analytic", "free_bits": math.inf}, "free_bits must be a finite number of at least 0, got inf"),
        ({"kl": "analytic", "kl_balance": 1.0}, "kl_balance must be between 0 and 1, got 1.0"),
        ({"free_bits": 1.0}, "free_bits needs the KL in closed form, kl='analytic', got free_bits=1.0 with kl='sampled'"),
        ({"kl_balance": 0.8}, "kl_balance needs the KL in closed form, kl='analytic', got kl_balance=0.8 with kl='sampled'"),
        ({"estimator": VIMCO(), "beta": 2.0}, "beta is not for the K-sample bound of VIMCO"),
    ],
)
def test_what_does_not_go_together_is_refused(options, sentence):
    with pytest.raises(InputError, match=sentence):
        VAE(num_pixels=4, num_latents=2, **options)


def test_assigning_what_is_not_there_is_refused():
    model = dvae.VAE(num_pixels=4, num_latents=2)
    with pytest.raises(InputError, match=r"free_bits is no part of the step .*: make the model with free_bits=\.\.\."):
        model.free_bits = 1.0
    with pytest.raises(InputError, match="beta must be a finite number of at least 0, got -2"):
        model.beta = -2
    with pytest.raises(InputError, match="beta is not for the K-sample bound of VIMCO"):
        dvae.VAE(VIMCO(), num_pixels=4, num_latents=2).beta = 2.0
