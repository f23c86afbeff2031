"""Every likelihood of the library: normalised, started at the data's mean, and clear about the values that it takes."""

import math

import pytest
import torch

import dvae
from dvae import InputError
from dvae.likelihoods import Likelihood, suited
from dvae.objectives import bernoulli_log_likelihood

CLASSES = [
    cls
    for cls in (getattr(dvae.likelihoods, name) for name in dvae.likelihoods.__all__)
    if isinstance(cls, type) and issubclass(cls, Likelihood) and cls is not Likelihood
]
PIXELS = 7
COUNTS = torch.tensor([0.0, 1.0, 2.0, 5.0, 10.0, 40.0, 300.0], dtype=torch.float64)


def built(cls: type[Likelihood]) -> Likelihood:
    likelihood = cls().double()
    likelihood.build(PIXELS)
    return likelihood.double()


@pytest.fixture(params=CLASSES, ids=lambda cls: cls.__name__)
def likelihood(request) -> Likelihood:
    return built(request.param)


def outputs_of(likelihood: Likelihood, *batch: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*batch, PIXELS * likelihood.outputs_per_pixel, generator=generator, dtype=torch.float64)


def draws_of(likelihood: Likelihood, outputs: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(0)
    return likelihood(outputs).sample()


def test_every_likelihood_is_exported():
    assert {cls.__name__ for cls in CLASSES} == {
        "Bernoulli",
        "Categorical",
        "ContinuousBernoulli",
        "DiscretizedLogistic",
        "Multinomial",
        "NegativeBinomial",
        "Normal",
        "Poisson",
    }


@pytest.mark.parametrize("scale", [0.1, 1.0, 8.0])
def test_probabilities_over_all_values_sum_to_one(likelihood, scale):
    outputs = scale * outputs_of(likelihood, 1)
    distribution = likelihood(outputs)
    if isinstance(likelihood, dvae.likelihoods.Multinomial):
        # All rows of three counts: of each sum the probabilities are one.
        rows = torch.cartesian_prod(*[torch.arange(4.0, dtype=torch.float64)] * PIXELS)
        of_three = rows[rows.sum(-1) == 3]
        total = likelihood.log_prob(of_three, outputs).exp().sum()
        torch.testing.assert_close(total, torch.tensor(1.0, dtype=torch.float64), atol=1e-5, rtol=0)
        return
    if not likelihood.whole:
        # A density: by quadrature within the range, or over all but the far tails.
        low, high = (likelihood.low, likelihood.high) if math.isfinite(likelihood.low) else (-5e4, 5e4)
        fine = torch.linspace(0, 1, 400_001, dtype=torch.float64)
        values = low + (high - low) * fine
        if math.isinf(likelihood.low):
            values = (distribution.loc[0] + distribution.scale[0] * (fine[:, None] * 40 - 20)).T.reshape(PIXELS, -1).T
        else:
            values = values[:, None].expand(-1, PIXELS)
        density = distribution.log_prob(values[:, None])[:, 0].exp()
        total = torch.trapezoid(density, values, dim=0)
        torch.testing.assert_close(total, torch.ones(PIXELS, dtype=torch.float64), atol=1e-5, rtol=0)
        return
    if distribution.has_enumerate_support:
        values = distribution.enumerate_support()
    else:
        values = torch.arange(200_000, dtype=torch.float64)[:, None, None].expand(-1, 1, PIXELS)
        if scale == 8.0:
            pytest.skip("counts up to e^20")
    total = distribution.log_prob(values).exp().sum(0)
    torch.testing.assert_close(total, torch.ones(1, PIXELS, dtype=torch.float64), atol=1e-5, rtol=0)
    assert all(likelihood.covers(value) for value in values[:50])


@pytest.mark.parametrize("cls", [dvae.likelihoods.DiscretizedLogistic, dvae.likelihoods.Categorical], ids=lambda cls: cls.__name__)
def test_levels_without_structure_cost_at_least_eight_bits(cls):
    likelihood = built(cls)
    noise = torch.randint(256, (4000, PIXELS), generator=torch.Generator().manual_seed(0)).double()
    for scale in (0.0, 0.3, 2.0):
        outputs = scale * outputs_of(likelihood, 1)
        bits = -likelihood.log_prob(noise, outputs).mean() / PIXELS / math.log(2)
        error = likelihood.log_prob(noise, outputs).std() / PIXELS / math.log(2) / math.sqrt(4000)
        assert bits > 8.0 - 4 * error - 1e-9


def test_a_narrow_logistic_keeps_its_digits_in_float32():
    likelihood = dvae.likelihoods.DiscretizedLogistic()
    outputs = torch.tensor([0.7, -7.0])
    exact = likelihood(outputs.double()).log_prob(torch.tensor([[216.0], [217.0], [0.0], [255.0]], dtype=torch.float64))
    single = likelihood(outputs).log_prob(torch.tensor([[216.0], [217.0], [0.0], [255.0]]))
    assert single.isfinite().all()
    torch.testing.assert_close(single.double(), exact, rtol=1e-3, atol=1e-3)


def test_an_examples_log_probability_is_the_sum_over_its_values(likelihood):
    outputs = outputs_of(likelihood, 3, 5)
    x = draws_of(likelihood, outputs)
    assert x.shape == (3, 5, PIXELS)
    likelihood.check(x)
    each = likelihood(outputs).log_prob(x)
    torch.testing.assert_close(likelihood.log_prob(x, outputs), each if each.dim() == 2 else each.sum(-1))


def test_the_mean_is_that_of_draws(likelihood):
    if isinstance(likelihood, dvae.likelihoods.Multinomial):
        return  # its mean is the share of each word, checked below
    outputs = outputs_of(likelihood, 1)
    torch.manual_seed(1)
    draws = likelihood(outputs.expand(40_000, -1)).sample().double()
    z = (draws.mean(0) - likelihood.mean(outputs)[0]) / (draws.std(0) / 200)
    assert z.abs().max() < 4.5


def test_outputs_start_at_the_datas_mean(likelihood):
    if math.isinf(likelihood.low):
        mean = torch.linspace(-300, 300, PIXELS, dtype=torch.float64)
    elif math.isinf(likelihood.high):
        mean = COUNTS.clamp(min=0.01)
    else:
        mean = torch.linspace(likelihood.low, likelihood.high, PIXELS + 2, dtype=torch.float64)[1:-1]
    likelihood.set_statistics(mean, torch.ones_like(mean))
    start = likelihood.start(mean)
    assert start.shape == (PIXELS * likelihood.outputs_per_pixel,)
    if isinstance(likelihood, dvae.likelihoods.Multinomial):
        mean = mean / mean.sum()
    torch.testing.assert_close(likelihood.mean(start), mean, atol=1e-3, rtol=0.01)


def test_values_outside_the_range_are_refused(likelihood):
    model = dvae.VAE(num_pixels=2, num_latents=2, likelihood=type(likelihood)())
    with pytest.raises(InputError, match="x must hold"):
        likelihood.check(torch.tensor([[float("nan")]]))
    if math.isfinite(likelihood.high):
        with pytest.raises(InputError, match=f"x must hold .* in .*{likelihood.high:g}.*got values from 0 to"):
            model.check_input(torch.tensor([[0.0, likelihood.high + 1]]))
    if math.isfinite(likelihood.low):
        with pytest.raises(InputError, match=r"take likelihood=Normal for real numbers"):
            model.check_input(torch.tensor([[-0.5, 0.0]]))


@pytest.mark.parametrize(
    ("x", "names"),
    [
        ([0.0, 1.0], ["Bernoulli", "ContinuousBernoulli"]),
        ([0.0, 0.5], ["ContinuousBernoulli", "Normal"]),
        ([0.0, 255.0], ["DiscretizedLogistic", "NegativeBinomial"]),
        ([0.0, 300.0], ["NegativeBinomial", "Normal"]),
        ([-1.0, 0.5], ["Normal"]),
        ([float("inf"), 0.5], []),
    ],
)
def test_data_say_which_likelihood_suits_them(x, names):
    assert suited(torch.tensor([x])) == names


def test_grey_levels_are_no_values_of_binary_pixels():
    likelihood = dvae.likelihoods.Bernoulli()
    grey, outputs = torch.tensor([[0.25, 1.0]], dtype=torch.float64), torch.tensor([[0.3, -2.0]], dtype=torch.float64)
    assert not likelihood.covers(grey)
    likelihood.check(grey)
    torch.testing.assert_close(likelihood.log_prob(grey, outputs), bernoulli_log_likelihood(grey, outputs))


def test_half_precision_outputs_add_up_in_float32(likelihood):
    likelihood = likelihood.float()
    outputs = outputs_of(likelihood, 2).float()
    x = draws_of(likelihood, outputs)
    assert likelihood.log_prob(x, outputs.bfloat16()).dtype == torch.float32
    assert likelihood.mean(outputs.bfloat16()).dtype == torch.float32


def test_a_normal_works_in_the_units_of_the_data():
    x = 1000 + 50 * torch.randn(5000, PIXELS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    likelihood = built(dvae.likelihoods.Normal)
    likelihood.set_statistics(x.mean(0), x.std(0))
    features = likelihood.features(x, x.mean(0))
    torch.testing.assert_close(features.std(0), torch.ones(PIXELS, dtype=torch.float64))
    start = likelihood.start(x.mean(0))
    entropy = PIXELS * (0.5 * math.log(2 * math.pi * math.e) + math.log(50))
    assert abs(likelihood.log_prob(x, start).mean() + entropy) < 0.3


def test_a_column_that_never_changes_has_no_unit_of_its_own():
    likelihood = dvae.likelihoods.Normal()
    likelihood.build(2)
    likelihood.set_statistics(torch.tensor([3.0, 0.0]), torch.tensor([0.0, 2.0]))
    assert likelihood.features(torch.tensor([[3.0, 4.0]]), torch.zeros(2)).tolist() == [[0.0, 2.0]]


@pytest.mark.parametrize("make", [lambda: dvae.likelihoods.Categorical(1), lambda: dvae.likelihoods.DiscretizedLogistic(1)])
def test_one_level_is_refused(make):
    with pytest.raises(InputError, match="levels must be at least 2, got 1"):
        make()


def test_a_checkpoints_config_rebuilds_the_likelihood(likelihood):
    model = dvae.VAE(num_pixels=PIXELS, num_latents=2, likelihood=type(likelihood)())
    again = dvae.VAE(**model.config["init_args"])
    again.load_state_dict(model.state_dict())
    assert type(again.likelihood) is type(likelihood)
