"""Estimators by themselves: what q and f may be, and what a user's own loop is told."""

import copy
import functools

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Independent, Normal, OneHotCategorical

import dvae
from dvae import InputError
from dvae.estimators import CATALOGUE, LAX, NVIL, REBAR, RELAX, RODEO, DisARM, GradientEstimator
from dvae.latents import FAMILIES, Bernoulli, Categorical, Gaussian, PlackettLuce

SHAPES = {Bernoulli: (3,), Categorical: (3, 4), Gaussian: (3, 2), PlackettLuce: (3,)}
EVERYWHERE = [(name, family) for name, make in CATALOGUE.items() for family in FAMILIES if family in make().latents]
OF_TORCH = [(name, family) for name, family in EVERYWHERE if family.torch_class is not None]


def as_torch(family, logits: torch.Tensor) -> torch.distributions.Distribution:
    if family is Bernoulli:
        return TorchBernoulli(logits=logits)
    if family is Categorical:
        return OneHotCategorical(logits=logits)
    return Normal(logits[..., 0], logits[..., 1].exp())


@pytest.mark.parametrize(("name", "family"), OF_TORCH)
def test_q_may_be_a_distribution_of_pytorch(name, family):
    logits = torch.randn(5, *SHAPES[family], requires_grad=True)
    estimator = CATALOGUE[name]()
    noise = family(logits).noise(estimator.num_noise, estimator.num_samples)

    def f(b):
        return family.flat(b).square().sum(-1)

    # Running statistics stand still in evaluation mode.
    expected = estimator.eval()(f, family(logits), noise=noise)
    estimate = estimator(f, Independent(as_torch(family, logits), 1), noise=noise)
    torch.testing.assert_close(estimate.grad, expected.grad, atol=1e-5, rtol=1e-5)
    estimate.loss(dvae.latents.of(as_torch(family, logits)).logits).backward()
    torch.testing.assert_close(logits.grad, -expected.grad.detach() / 5, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "family"), OF_TORCH)
def test_a_single_example_needs_no_dimension_of_its_own(name, family):
    logits = torch.randn(SHAPES[family], requires_grad=True)
    estimate = CATALOGUE[name]()(lambda b: family.flat(b).square().sum(-1), as_torch(family, logits), torch.randn(6))
    estimate.loss(dvae.latents.of(as_torch(family, logits)).logits).backward()
    assert estimate.value.shape == ()
    torch.testing.assert_close(logits.grad, -estimate.grad.detach(), atol=1e-5, rtol=1e-5)


def test_a_family_that_is_not_supported_is_never_named_like_one_that_is():
    class Bernoulli(dvae.latents.Latent):
        pass

    with pytest.raises(InputError, match=r"DisARM is for Bernoulli latents, got .*\.<locals>\.Bernoulli"):
        DisARM().require_support(Bernoulli)
    with pytest.raises(InputError, match="DisARM is for Bernoulli latents, got Gaussian"):
        DisARM()(lambda b: b.sum(-1), Normal(torch.zeros(5, 3), 1.0))


# An optimizer made too early ------------------------------------------------------------------------------------------------

GROWING = [lambda: RELAX(hidden=5), lambda: LAX(hidden=5), lambda: NVIL(hidden=[5]), lambda: RODEO(hidden=5)]


def num_features(family) -> int:
    return family.flat(family(torch.zeros(SHAPES[family])).mode()).shape[-1]


def once(estimator) -> torch.Tensor:
    family = estimator.latents[-1]
    return estimator(lambda b: family.flat(b).sum(-1), family(torch.zeros(5, *SHAPES[family])), torch.randn(5, 6)).grad


@pytest.mark.parametrize(
    "ask", [lambda e: list(e.parameters()), lambda e: dict(e.named_parameters()), lambda e: nn.ModuleList([e]).parameters()]
)
@pytest.mark.parametrize("make", GROWING[:3])
def test_parameters_that_an_optimizer_would_miss_are_an_error_and_none_is_made_in_silence(make, ask):
    estimator = make()
    list(ask(estimator))
    for _ in range(2):
        message = (
            r"listed before it was built.*never train network\..*: make the estimator anew and call ensure_built\(num_latents=3"
        )
        with pytest.raises(InputError, match=message):
            estimator.ensure_built(num_latents=3, num_context=6)
    with pytest.raises(InputError, match="listed before it was built"):
        once(estimator)


@pytest.mark.parametrize("make", GROWING)
def test_parameters_of_a_built_estimator_are_all_of_them(make):
    estimator = make()
    estimator.ensure_built(num_features(estimator.latents[-1]), 6)
    listed = list(estimator.parameters())
    once(estimator).square().sum().backward()
    assert {id(p) for p in listed} == {id(p) for p in estimator.parameters()}
    assert all(p.grad is not None for p in listed)


def test_an_estimator_that_grows_nothing_may_be_listed_at_any_time():
    for estimator in (REBAR(), RELAX(network=dvae.networks.SurrogateNetwork(12, 6, hidden=5)), NVIL()):
        list(estimator.parameters())
        family = Categorical if not isinstance(estimator, NVIL) else Bernoulli
        context = None if isinstance(estimator, NVIL) else torch.randn(5, 6)
        estimator(lambda b, flat=family.flat: flat(b).sum(-1), family(torch.zeros(5, *SHAPES[family])), context)


def test_copies_moves_state_and_models_do_not_count_as_listing_or_inherit_it():
    estimator = RELAX(hidden=5)
    estimator.to(torch.float32).train().state_dict()
    once(copy.deepcopy(estimator))
    once(estimator)
    listed = RELAX(hidden=5)
    print(sum(p.numel() for p in listed.parameters()))
    once(copy.deepcopy(listed))
    list((baseline := NVIL(hidden=[5])).parameters())
    assert dvae.certify(baseline, latents=[Bernoulli], num_problems=1, num_samples=400).reports
    model = dvae.VAE(listed, num_pixels=6, num_latents=4)
    assert model.estimators[0] is listed
    assert len(model.phi()) > 2


# What f may be --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "family"), EVERYWHERE)
def test_f_may_be_a_closure_over_fixed_tensors(name, family):
    size = num_features(family)
    weight, layer = torch.randn(size), nn.Linear(size, 1).requires_grad_(False)
    estimate = CATALOGUE[name]()(
        lambda b: (family.flat(b) * weight).sum(-1) + layer(family.flat(b)).squeeze(-1), family(torch.randn(5, *SHAPES[family]))
    )
    assert not estimate.value.requires_grad
    assert estimate.grad.isfinite().all()


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_closure_over_trainable_parameters_is_told_how_to_be_a_module(name):
    estimator = CATALOGUE[name]()
    family = estimator.latents[0]
    decoder, q = nn.Linear(num_features(family), 1), family(torch.zeros(5, *SHAPES[family]))
    with pytest.raises(
        InputError, match=r"Write class F\(nn.Module\) with the parameters.* as its forward\(self, b\), and pass F\(\)"
    ):
        estimator(lambda b: decoder(family.flat(b)).squeeze(-1), q)

    class F(nn.Module):
        def __init__(self):
            super().__init__()
            self.decoder = decoder

        def forward(self, b):
            return self.decoder(family.flat(b)).squeeze(-1)

    assert estimator(F(), q).value.requires_grad


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_module_may_be_given_with_a_batchs_arguments_bound(name):
    """One backward trains the module and what the batch was encoded to, as if both were attributes of a module f."""
    family = CATALOGUE[name]().latents[0]
    size = num_features(family)
    decoder, encoder, x, logits = nn.Linear(size, 4), nn.Linear(6, 4), torch.randn(5, 6), torch.randn(5, *SHAPES[family])

    class F(nn.Module):
        def __init__(self):
            super().__init__()
            self.decoder = decoder

        def forward(self, b, target):
            return -(self.decoder(family.flat(b)) - target).square().sum(-1)

    class Whole(F):
        def __init__(self):
            super().__init__()
            self.encoder = encoder

        def forward(self, b):
            return super().forward(b, self.encoder(x))

    def gradients(f):
        torch.manual_seed(1)
        estimator, parameters = CATALOGUE[name](), [*decoder.parameters(), *encoder.parameters()]
        leaf = logits.clone().requires_grad_()
        loss = estimator(f, family(leaf)).loss(leaf)
        return torch.autograd.grad(loss, [leaf, *parameters])

    for bound, whole in zip(gradients(functools.partial(F(), target=encoder(x))), gradients(Whole()), strict=True):
        torch.testing.assert_close(bound, whole)


@pytest.mark.parametrize("name", ["REBAR", "DisARM", "MuProp", "LOO"])
def test_a_tensor_with_a_graph_that_f_only_holds_is_refused_where_it_would_leak(name):
    encoder = nn.Linear(6, 3)

    class F(nn.Module):
        def __init__(self):
            super().__init__()
            self.target = encoder(torch.ones(5, 6))

        def forward(self, b):
            return -(b - self.target).square().sum(-1)

    estimator, q = CATALOGUE[name](), Bernoulli(torch.zeros(5, 3))
    if name == "LOO":  # f is evaluated once, and learns from its value
        assert estimator(F(), q).value.requires_grad
        return
    with pytest.raises(InputError, match=r"a tensor with a graph .* give it as an argument, functools.partial\(F\(\), x=x\)"):
        estimator(F(), q)


# Running statistics ---------------------------------------------------------------------------------------------------------


class Averaging(GradientEstimator):
    """A moving average that is changed in place, in one way of three."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.register_buffer("average", torch.zeros(()))

    def gradient(self, f, q, draw, context):
        return q.score(draw.b, draw.value - self.average)

    def update(self, draw):
        value = draw.value.mean().to(self.average.dtype)
        if self.way == "assigned":
            self.average = 0.9 * self.average + 0.1 * value
        elif self.way == "mul_().add_()":
            self.average.mul_(0.9).add_(0.1 * value)
        else:
            self.average *= 0.9
            self.average += 0.1 * value


@pytest.mark.parametrize("way", ["mul_().add_()", "+="])
def test_running_statistics_may_be_changed_in_place(way, tiny_data, recwarn):
    """In an eager step, in chains under vmap, in a whole step, and in replicas of it: as if they were assigned."""

    def trained(way: str, replicas: int) -> torch.Tensor:
        torch.manual_seed(0)
        model = dvae.DiscreteVAE(Averaging(way), num_pixels=16, num_latents=3, seed=0, compile=replicas == 1 and "auto")
        run = dvae.replicate(model, replicas) if replicas > 1 else model
        trainer = pl.Trainer(max_steps=3, accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
        trainer.fit(run, tiny_data)
        return torch.stack([each.estimators[0].average for each in run.models])

    for replicas in (1, 2):
        averages = trained(way, replicas)
        assert (averages != 0).all()
        torch.testing.assert_close(averages, trained("assigned", replicas))
    certificate = dvae.certify(Averaging(way), num_problems=1, num_samples=4000)
    assert certificate.passed, certificate.verdict
    assert not [warning for warning in recwarn if "vmap" in str(warning.message)]
