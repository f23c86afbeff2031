"""Latents against torch.distributions, autograd and enumeration."""

import pytest
import torch
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Independent, Normal, OneHotCategorical, kl_divergence

from dvae import InputError
from dvae.latents import Bernoulli, Categorical, Gaussian, Spec, of

LOGITS = torch.tensor([[-3.0, -0.5, 0.0, 2.0], [0.3, 8.0, -8.0, 1.0]], dtype=torch.float64)


def torch_bernoulli(logits: torch.Tensor) -> Independent:
    return Independent(TorchBernoulli(logits=logits), 1)


def test_log_prob_entropy_and_kl_are_those_of_torch_distributions():
    q, p = Bernoulli(LOGITS), Bernoulli(LOGITS.flip(0) / 2)
    b = (LOGITS > 0.1).double()
    torch.testing.assert_close(q.log_prob(b), torch_bernoulli(LOGITS).log_prob(b))
    torch.testing.assert_close(q.entropy(), torch_bernoulli(LOGITS).entropy())
    torch.testing.assert_close(q.kl(p), kl_divergence(torch_bernoulli(LOGITS), torch_bernoulli(LOGITS.flip(0) / 2)))


def test_score_is_the_derivative_of_log_prob():
    b = (LOGITS > 0.1).double()
    derivative = torch.func.grad(lambda logits: Bernoulli(logits).log_prob(b).sum())(LOGITS)
    torch.testing.assert_close(Bernoulli(LOGITS).score(b), derivative)


def test_enumeration_holds_every_state_once_and_probabilities_sum_to_one():
    q = Bernoulli(LOGITS[0])
    states = q.enumerate()
    assert states.unique(dim=0).shape == (16, 4)
    assert q.log_prob(states).exp().sum().item() == pytest.approx(1.0)


def test_hard_samples_have_the_right_frequencies():
    q = Bernoulli(LOGITS)
    u = q.noise(100_000, generator=torch.Generator().manual_seed(0))
    frequency = q.hard(q.relaxed(u)).mean(0)
    z = (frequency - q.probs) / (q.probs * (1 - q.probs) / 100_000).sqrt()
    assert z.abs().max() < 4


def test_conditional_samples_keep_their_hard_sample_and_have_the_marginal_law():
    """b ~ q and then z~ | b must together be distributed as z: compared by the mean and second moment of sigmoid(z)."""
    q = Bernoulli(LOGITS)
    generator = torch.Generator().manual_seed(0)
    z = q.relaxed(q.noise(200_000, generator=generator))
    b = q.hard(q.relaxed(q.noise(200_000, generator=generator)))
    conditional = q.conditional(b, q.noise(200_000, generator=generator))
    assert torch.equal(q.hard(conditional), b)
    for moment in (torch.sigmoid, lambda t: torch.sigmoid(t).square(), lambda t: torch.tanh(t / 8)):
        first, second = moment(z), moment(conditional)
        error = ((first.var(0) + second.var(0)) / 200_000).sqrt()
        assert ((first.mean(0) - second.mean(0)) / error).abs().max() < 4


def test_conditional_sample_from_the_coupled_uniform_is_the_relaxed_sample():
    q = Bernoulli(LOGITS)
    u = q.noise(1000, generator=torch.Generator().manual_seed(0))
    z = q.relaxed(u)
    b, p = q.hard(z), q.probs
    v = torch.where(b > 0, (u - (1 - p)) / p, u / (1 - p))
    torch.testing.assert_close(q.conditional(b, v), z, atol=1e-8, rtol=1e-8)


def test_path_is_the_difference_of_both_reparameterizations_by_autograd():
    generator = torch.Generator().manual_seed(0)
    u = Bernoulli(LOGITS).noise(500, generator=generator)
    z = Bernoulli(LOGITS).relaxed(u)
    b, p = (z > 0).double(), Bernoulli(LOGITS).probs
    v = torch.where(b > 0, (u - (1 - p)) / p, u / (1 - p)).clamp(1e-12, 1 - 1e-12)
    cotangent = torch.randn(z.shape, generator=generator, dtype=z.dtype)

    def derivative(sample):
        return torch.func.vjp(sample, LOGITS.expand_as(z))[1](cotangent)[0]

    difference = derivative(lambda la: Bernoulli(la).relaxed(u)) - derivative(lambda la: Bernoulli(la).conditional(b, v))
    torch.testing.assert_close(Bernoulli(LOGITS).path(z, cotangent), difference, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits_and_uniforms_stay_finite(dtype):
    logits = torch.tensor([-100.0, -20.0, 0.0, 20.0, 100.0], dtype=dtype)
    for uniform in (0.0, 1e-30, 0.5, 1.0):
        q = Bernoulli(logits)
        z = q.relaxed(torch.full_like(logits, uniform))
        b = q.hard(z)
        parts = [z, q.conditional(b, torch.full_like(logits, uniform)), q.path(z, torch.ones_like(z)), q.log_prob(b), q.entropy()]
        assert all(part.isfinite().all() for part in parts)
        weights = q.path(z, torch.ones_like(z))
        assert ((weights >= 0) & (weights <= 1 + 1e-6)).all()


def test_half_precision_logits_are_raised_to_float32():
    assert Bernoulli(torch.zeros(3, dtype=torch.bfloat16)).noise().dtype == torch.float32


def test_logits_without_variables_are_refused():
    with pytest.raises(InputError, match=r"logits must be \[\*, B, D\], got shape \(\)"):
        Bernoulli(torch.tensor(0.0))


# Categorical ----------------------------------------------------------------------------------------------------------------

CLASSES = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3


def torch_categorical(logits: torch.Tensor) -> Independent:
    return Independent(OneHotCategorical(logits=logits), 1)


def test_categorical_log_prob_entropy_kl_and_score_are_those_of_torch():
    q, p = Categorical(CLASSES), Categorical(CLASSES.flip(0) / 2)
    b = q.hard(q.relaxed(q.noise(generator=torch.Generator().manual_seed(0))))
    torch.testing.assert_close(q.log_prob(b), torch_categorical(CLASSES).log_prob(b))
    torch.testing.assert_close(q.entropy(), torch_categorical(CLASSES).entropy())
    torch.testing.assert_close(q.kl(p), kl_divergence(torch_categorical(CLASSES), torch_categorical(CLASSES.flip(0) / 2)))
    derivative = torch.func.grad(lambda logits: Categorical(logits).log_prob(b).sum())(CLASSES)
    torch.testing.assert_close(q.score(b), derivative)
    weight = torch.tensor([2.0, -1.0], dtype=torch.float64)
    torch.testing.assert_close(q.score(b, weight), weight[:, None, None] * derivative)


def test_categorical_enumeration_holds_every_state_once():
    q = Categorical(CLASSES[0])
    states = q.enumerate()
    assert states.flatten(1).unique(dim=0).shape == (64, 12)
    assert q.num_states == 64
    assert (states.sum(-1) == 1).all()
    assert q.log_prob(states).exp().sum().item() == pytest.approx(1.0)


def test_categorical_samples_have_the_right_frequencies():
    q = Categorical(CLASSES)
    frequency = q.hard(q.relaxed(q.noise(100_000, generator=torch.Generator().manual_seed(0)))).mean(0)
    z = (frequency - q.probs) / (q.probs * (1 - q.probs) / 100_000).sqrt()
    assert z.abs().max() < 4


def test_categorical_conditional_samples_keep_their_class_and_have_the_marginal_law():
    q = Categorical(CLASSES)
    generator = torch.Generator().manual_seed(0)
    z = q.relaxed(q.noise(200_000, generator=generator))
    b = q.hard(q.relaxed(q.noise(200_000, generator=generator)))
    conditional = q.conditional(b, q.noise(200_000, generator=generator))
    assert torch.equal(q.hard(conditional), b)
    for moment in (lambda t: torch.softmax(t, -1), lambda t: torch.tanh(t / 8), lambda t: torch.tanh(t / 8).square()):
        first, second = moment(z), moment(conditional)
        error = ((first.var(0) + second.var(0)) / 200_000).sqrt()
        assert ((first.mean(0) - second.mean(0)) / error).abs().max() < 4


def test_categorical_path_is_the_difference_of_both_reparameterizations_by_autograd():
    generator = torch.Generator().manual_seed(0)
    q = Categorical(CLASSES)
    u = q.noise(500, generator=generator)
    z = q.relaxed(u)
    b = q.hard(z)
    # the v that give z~ = z: v_k = exp(-e^-z_k), and below it v_i = exp(-p_i (e^-z_i - e^-z_k))
    top = (b * z).sum(-1, keepdim=True)
    v = torch.where(b > 0, torch.exp(-torch.exp(-z)), torch.exp(-q.probs * (torch.exp(-z) - torch.exp(-top))))
    # where a v rounds to 0 or 1 it no longer says which z it came from
    kept = ((v > 1e-6) & (v < 1 - 1e-6)).all(-1).all(-1).all(-1)
    assert kept.sum() > 100
    z, b, v, u = z[kept], b[kept], v[kept], u[kept]
    torch.testing.assert_close(q.conditional(b, v), z, atol=1e-8, rtol=1e-8)
    cotangent = torch.randn(z.shape, generator=generator, dtype=z.dtype)

    def derivative(sample):
        return torch.func.vjp(sample, CLASSES.expand_as(z))[1](cotangent)[0]

    difference = derivative(lambda la: Categorical(la).relaxed(u)) - derivative(lambda la: Categorical(la).conditional(b, v))
    torch.testing.assert_close(q.path(z, cotangent), difference, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("family", [Bernoulli, Categorical])
def test_moves_and_displacements_lead_to_every_neighbour(family):
    """sum over moves of q(move) v.(displacement) is v.(p - b), and so is the displacement itself."""
    q = Bernoulli(LOGITS) if family is Bernoulli else Categorical(CLASSES)
    b = q.mode()
    v = torch.randn(b.shape, generator=torch.Generator().manual_seed(0), dtype=b.dtype)
    probs, change = q.moves(b, v)
    expected = v * (q.probs - b)
    torch.testing.assert_close((probs * change).sum(-1), expected if family is Bernoulli else expected.sum(-1))
    torch.testing.assert_close(q.moved(b, probs), q.probs - b)


@pytest.mark.parametrize("family", [Bernoulli, Categorical, Gaussian])
def test_gradient_of_the_mean_is_autograds(family):
    if family is Gaussian:
        logits = CLASSES[..., :2]
        v = torch.randn(2, 3, dtype=torch.float64)
        b = Gaussian(logits).relaxed(torch.full((2, 3), 0.3, dtype=torch.float64))
        expected = torch.func.vjp(lambda la: Gaussian(la).relaxed(torch.full((2, 3), 0.3, dtype=torch.float64)), logits)[1](v)[0]
        torch.testing.assert_close(Gaussian(logits).sample_gradient(b, v), expected)
        return
    logits = LOGITS if family is Bernoulli else CLASSES
    v = torch.randn(logits.shape, dtype=torch.float64)
    torch.testing.assert_close(family(logits).mean_gradient(v), torch.func.vjp(lambda la: family(la).mean, logits)[1](v)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_classes_and_uniforms_stay_finite(dtype):
    logits = torch.tensor([[[-100.0, 0.0, 100.0], [0.0, 0.0, 0.0]]], dtype=dtype)
    q = Categorical(logits)
    for uniform in (0.0, 1e-30, 0.5, 1.0):
        u = torch.full_like(logits, uniform)
        z = q.relaxed(u)
        for b in q.enumerate():
            parts = [z, q.conditional(b[None], u), q.path(z, torch.ones_like(z)), q.log_prob(b[None]), q.entropy(), q.soft(z, 1e-3)]
            assert all(part.isfinite().all() for part in parts)


# Gaussian -------------------------------------------------------------------------------------------------------------------


def test_gaussian_is_that_of_torch():
    logits = CLASSES[..., :2]
    q, p = Gaussian(logits), Gaussian(logits.flip(0) / 2)
    normal, other = (Independent(Normal(g.mean, g.log_std.exp()), 1) for g in (q, p))
    b = q.relaxed(q.noise(generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(q.log_prob(b), normal.log_prob(b))
    torch.testing.assert_close(q.entropy(), normal.entropy())
    torch.testing.assert_close(q.kl(p), kl_divergence(normal, other))
    torch.testing.assert_close(q.score(b), torch.func.grad(lambda la: Gaussian(la).log_prob(b).sum())(logits))
    u = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)[:, None, None].expand(-1, 2, 3)
    torch.testing.assert_close(q.relaxed(u), normal.base_dist.icdf(u))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Categorical(torch.zeros(3)), r"logits must be \[\*, B, D, n\], got shape \(3,\)"),
        (lambda: Gaussian(torch.zeros(4, 3, 5)), "mean and log standard deviation, got shape"),
        (lambda: Categorical.shapes(20, 1), "num_classes must be at least 2 for Categorical latents, got 1"),
        (lambda: Bernoulli.shapes(20, 3), "num_classes is for Categorical latents, got 3 for Bernoulli"),
        (lambda: Gaussian.shapes(20, 3), "num_classes is for Categorical latents, got 3 for Gaussian"),
    ],
)
def test_wrong_latents_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


# Distributions of PyTorch ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [lambda q: q, lambda q: Independent(q, 1)])
def test_a_distribution_of_pytorch_becomes_the_same_latent_with_its_graph(wrap):
    logits = torch.randn(5, 3, 4, requires_grad=True)
    bits, b = of(wrap(TorchBernoulli(logits=logits[..., 0]))), (logits[..., 0] > 0).float()
    torch.testing.assert_close(bits.log_prob(b), TorchBernoulli(logits=logits[..., 0]).log_prob(b).sum(-1))
    classes = of(wrap(OneHotCategorical(logits=logits)))
    torch.testing.assert_close(classes.probs, logits.softmax(-1))
    normal = of(wrap(Normal(logits[..., 0], logits[..., 1].exp())))
    torch.testing.assert_close(normal.logits, logits[..., :2])
    assert [type(q) for q in (bits, classes, normal)] == [Bernoulli, Categorical, Gaussian]
    assert all(q.logits.requires_grad for q in (bits, classes, normal))


def test_probabilities_become_logits_and_latents_stay_what_they_are():
    torch.testing.assert_close(of(TorchBernoulli(probs=torch.tensor([0.2, 0.9]))).probs, torch.tensor([0.2, 0.9]))
    q = Bernoulli(LOGITS)
    assert of(q) is q


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: torch.distributions.Categorical(logits=torch.zeros(5, 3)),
            r"q must have one-hot samples, .* are indices: take torch.distributions.OneHotCategorical\(logits=...\) or dvae",
        ),
        (
            lambda: torch.distributions.Poisson(torch.ones(5, 3)),
            "q must be a latent .* one of Bernoulli, OneHotCategorical, Normal of torch.distributions.*, got torch.*Poisson",
        ),
        (lambda: torch.zeros(5, 3), "q must be a latent .*, got torch.Tensor"),
        (lambda: Independent(TorchBernoulli(torch.zeros(5, 3, 2)), 2), "in one dimension, got Independent over 2 dimensions"),
        (lambda: TorchBernoulli(torch.tensor(0.5)), r"logits must be \[\*, B, D\], got shape \(\)"),
    ],
)
def test_what_is_no_latent_is_named_with_what_to_take_instead(make, message):
    with pytest.raises(InputError, match=message):
        of(make())


def test_a_spec_on_a_grid_has_as_many_latents_at_each_place_of_any():
    latent = Spec(Categorical, 12, 5, grid=(2, 3))
    assert (latent.num_places, latent.num_per_place, latent.num_values) == (6, 2, 5)
    larger = latent.on((4, 4))
    assert (larger.num_variables, larger.logits_shape, larger.grid) == (32, (32, 5), (4, 4))
    with pytest.raises(InputError, match="num_latents must be a multiple of 6, for the code is on a grid of 2 x 3 places, got 10"):
        Spec(Categorical, 10, 5, grid=(2, 3))


@pytest.mark.parametrize("spec", [Spec(Bernoulli, 6), Spec(Categorical, 6, 3)])
def test_a_sample_comes_back_from_its_code(spec):
    sample = spec(torch.randn(4, spec.num_logits)).sample()
    assert torch.equal(spec.from_code(spec.code(sample)), sample)
