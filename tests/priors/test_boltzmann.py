"""The restricted Boltzmann machine: its log Z, its gradient, and runs that train it."""

import math

import pytest
import pytorch_lightning as pl
import torch

import dvae
from dvae import InputError
from dvae.latents import Bernoulli, Spec
from dvae.priors import BoltzmannMachine


def machine(num_latents: int, scale: float = 0.3, **options) -> BoltzmannMachine:
    torch.manual_seed(0)
    prior = BoltzmannMachine(**options)
    prior.build(Spec(Bernoulli, num_latents))
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape))
    return prior


def exact_log_partition(prior: BoltzmannMachine) -> torch.Tensor:
    """From the definition: one half enumerated, the other summed in closed form."""
    half = prior.weight.shape[0]
    s = 2 * torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * half).double() - 1
    left, right = prior.bias.double()[:half], prior.bias.double()[half:]
    field = s @ prior.weight.double()
    return ((s + 1) / 2 @ left + torch.logaddexp(-field, field + right).sum(-1)).logsumexp(0)


def test_annealing_finds_the_log_partition_of_16_by_16_latents():
    prior = machine(32)
    exact = exact_log_partition(prior)
    value, error = prior.measured_log_partition(torch.Generator().manual_seed(1), anneal=True)
    assert abs(value - exact) < 0.05
    assert 0 < error < 0.05
    assert abs(value - exact) / error < 4


def test_a_small_machine_is_summed_over():
    prior = machine(10)
    prior.normalize()
    assert prior.log_constant == (pytest.approx(exact_log_partition(prior).item(), rel=1e-6), 0.0)


def test_the_gradient_over_samples_of_the_machine_is_that_of_the_log_partition():
    prior = machine(6, num_chains=20_000).double()
    prior.chains = prior().sample(40_000, generator=torch.Generator().manual_seed(1)).unflatten(0, (2, -1))
    b = torch.zeros(6, dtype=torch.float64)
    own = torch.autograd.grad(prior().log_prob(b), list(prior.parameters()))
    code = Bernoulli(torch.zeros(6, dtype=torch.float64)).enumerate()
    s, t = (2 * code - 1).split(3, -1)
    weights = code @ prior.bias + ((s @ prior.weight) * t).sum(-1)
    at_b = (weights * (code == b).all(-1)).sum()
    exact = torch.autograd.grad(at_b - weights.logsumexp(0), list(prior.parameters()))
    for one, other, variance in zip(own, exact, (0.25, 1.0), strict=True):
        assert ((one - other) / (variance / 20_000) ** 0.5).abs().max() < 4.5


def test_steps_keep_track_of_the_log_partition():
    """Updates that are made from the gradient's own chains; a code of two kinds is learned."""
    prior = machine(24, num_chains=50, scale=0.0)
    generator = torch.Generator().manual_seed(0)
    kinds = (torch.rand(2, 24, generator=generator) < 0.5).float()
    optimizer = torch.optim.Adam(prior.parameters(), lr=1e-2)
    for _ in range(100):
        code = kinds[torch.randint(2, (20,), generator=generator)]
        flips = (torch.rand(code.shape, generator=generator) < 0.2).float()
        prior.advance(torch.rand(prior.noise_shape, generator=generator))
        optimizer.zero_grad()
        (-prior().log_prob((code - flips).abs()).mean()).backward()
        optimizer.step()
    start, exact = 24 * math.log(2), exact_log_partition(prior)
    assert exact > start + 3
    assert abs(prior.log_partition - exact) < 0.6


def test_the_elbo_is_a_bound_whatever_the_prior():
    x = torch.tensor([[1.0, 0.0, 1.0, 1.0, 0.0]])
    for prior in (BoltzmannMachine(), dvae.priors.Autoregressive([10])):
        torch.manual_seed(0)
        model = dvae.VAE(num_pixels=5, num_latents=8, prior=prior)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(0.7 * torch.randn(parameter.shape))
        prior.normalize()
        states = Bernoulli(torch.zeros(8)).enumerate()[:, None]
        log_joint = model.log_likelihood(x, states) + prior().log_prob(states)
        evidence = log_joint.logsumexp(0)
        q = model.encode(x)
        elbo = (q.log_prob(states).exp() * (log_joint - q.log_prob(states))).sum(0)
        assert elbo < evidence
        assert abs(model.importance_weighted_bound(x, 20_000, torch.Generator().manual_seed(0)) - evidence) < 0.1


QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}


def fitted(data, steps: int, checkpoint: str | None = None) -> tuple[dvae.DiscreteVAE, pl.Trainer]:
    torch.manual_seed(0)
    prior = BoltzmannMachine(num_chains=10, num_temperatures=20, num_anneals=5)
    model = dvae.DiscreteVAE(dvae.estimators.REBAR(), prior=prior, num_pixels=16, num_latents=6, seed=0)
    often = {"val_check_interval": 7, "check_val_every_n_epoch": None, "limit_val_batches": 1}
    trainer = pl.Trainer(max_steps=steps, enable_checkpointing=False, **often, **QUIET)
    trainer.fit(model, data, ckpt_path=checkpoint, weights_only=True)
    return model, trainer


def test_a_resumed_run_ends_with_the_chains_of_one_that_was_not_stopped(data, tmp_path):
    through, _ = fitted(data(), 20)
    fitted(data(), 10)[1].save_checkpoint(tmp_path / "10.ckpt")
    resumed, _ = fitted(data(), 20, str(tmp_path / "10.ckpt"))
    for (name, one), other in zip(through.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    assert through.prior.weight.abs().max() > 0
    assert 0 < through.prior.chains.mean() < 1


def test_replicas_have_chains_of_their_own(data):
    def made(seed: int) -> dvae.DiscreteVAE:
        torch.manual_seed(seed)
        prior = BoltzmannMachine(num_chains=7, num_temperatures=10)
        return dvae.DiscreteVAE(dvae.estimators.REBAR(), prior=prior, num_pixels=16, num_latents=6, seed=seed, compile=False)

    def trained(module):
        pl.Trainer(max_steps=12, enable_checkpointing=False, limit_val_batches=1, **QUIET).fit(module, data())
        return module

    first, alone = trained(dvae.Replicas([made(0), made(1)])).models[0], trained(made(0))
    assert torch.equal(first.prior.chains, alone.prior.chains)
    torch.testing.assert_close(first.prior.weight, alone.prior.weight)
    torch.testing.assert_close(first.prior.log_partition, alone.prior.log_partition)


def test_evaluation_measures_the_constant_and_leaves_the_model_as_it_was(data):
    model, _ = fitted(data(), 12)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    result = dvae.evaluate(model, data(), num_samples=2, num_draws=2)
    assert abs(result.log_partition.mean - exact_log_partition(model.prior)) < 1e-4
    assert any(name == "log Z of the prior" for name, _, _ in result.rows())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.fixture
def data(tiny_data):
    def made() -> dvae.data.DataModule:
        parts = {name: tiny_data.split(name).numpy() for name in ("train", "valid", "test")}
        return dvae.data.ArrayData(**parts, batch_size=10)

    return made


@pytest.mark.parametrize("name", ["num_chains", "num_sweeps", "num_temperatures", "num_anneals", "sample_sweeps"])
def test_a_number_that_cannot_be_is_refused(name):
    with pytest.raises(InputError, match=f"{name} must be at least {2 if name == 'num_anneals' else 1}, got 0"):
        BoltzmannMachine(**{name: 0})


def test_what_it_is_not_for_is_refused():
    with pytest.raises(InputError, match="needs at least 2 latents, one for each half, got 1"):
        BoltzmannMachine().build(Spec(Bernoulli, 1))
    with pytest.raises(InputError, match="BoltzmannMachine is for Bernoulli and Categorical latents, got Gaussian"):
        dvae.VAE(latent="Gaussian", prior=BoltzmannMachine())
    with pytest.raises(InputError, match="kl='analytic' needs the KL in closed form, which the prior Autoregressive does not have"):
        dvae.VAE(prior=dvae.priors.Autoregressive(), kl="analytic")
