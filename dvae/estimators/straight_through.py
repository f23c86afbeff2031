"""Straight-through estimators: f differentiated at the hard sample, as if it were a relaxed one. All are biased."""

from __future__ import annotations

from torch import Tensor

from dvae.estimators.base import Draw, GradientEstimator, Objective
from dvae.estimators.concrete import Concrete
from dvae.functional import pull_back
from dvae.latents import Bernoulli, Categorical, Discrete

__all__ = ["GumbelStraightThrough", "ReinMax", "StraightThrough"]


class StraightThrough(GradientEstimator[Discrete]):
    r"""The derivative of f at the hard sample, taken for its derivative with respect to the mean.

    .. math:: g = f'(b)^\top \frac{\partial p}{\partial \text{logits}}

    Biased, unless f is linear.

    Requires: the derivative of f at hard samples. Cost: f at the sample, and f with its derivative there. When: a baseline that
    everybody knows.

    Arguments:
        num_samples: K, samples per example.

    References:
        Bengio, Léonard & Courville, *Estimating or Propagating Gradients Through Stochastic Neurons for Conditional
        Computation*, 2013. https://arxiv.org/abs/1308.3432

    Example:
        >>> q = dvae.latents.Bernoulli(torch.zeros(1, 3))
        >>> dvae.estimators.StraightThrough()(lambda b: b.sum(-1), q).grad
        tensor([[0.2500, 0.2500, 0.2500]])
    """

    reference = "Bengio, Léonard & Courville 2013"
    unbiased = False
    latents = (Bernoulli, Categorical)
    differentiates = True
    derivative_at_sample = True
    evaluations_per_sample = 2

    def gradient(self, f: Objective, q: Discrete, draw: Draw, context: Tensor | None) -> Tensor:
        derivative = self.derivative(f, draw)
        return q.mean_gradient(derivative)


class GumbelStraightThrough(Concrete):
    r"""The derivative of f at the hard sample, taken for its derivative at the relaxed one.

    .. math:: g = f'(b)^\top \frac{\partial\, \text{soft}(z, T)}{\partial \text{logits}}

    Biased.

    Requires: the derivative of f at hard samples. Cost: f at the sample, and f with its derivative there. When: f takes hard
    samples only.

    Arguments:
        temperature, num_samples: as in :class:`dvae.estimators.Concrete`.

    References:
        Jang, Gu & Poole, *Categorical Reparameterization with Gumbel-Softmax*, 2017. https://arxiv.org/abs/1611.01144

    Example: of a linear f, whose derivative is the same everywhere, it is :class:`dvae.estimators.Concrete`.

        >>> q, f = dvae.latents.Bernoulli(torch.zeros(1, 3)), lambda b: b.sum(-1)
        >>> noise = q.noise(1, 1)
        >>> grad = dvae.estimators.GumbelStraightThrough()(f, q, noise=noise).grad
        >>> grad.allclose(dvae.estimators.Concrete()(f, q, noise=noise).grad)
        True
    """

    reference = "Jang et al. 2017"
    derivative_at_sample = True

    def gradient(self, f: Objective, q: Discrete, draw: Draw, context: Tensor | None) -> Tensor:
        derivative = self.derivative(f, draw)
        # dz / dlogits = 1; for categories up to a shift of all classes, to which softmax is blind.
        _, back = pull_back(lambda z: q.soft(z, self.temperature), draw.z)
        return back(derivative)


class ReinMax(StraightThrough):
    r"""Straight-through of second order: exact where f is quadratic along every single variable.

    .. math:: g = 2 f'(b)^\top J\Big(\frac{b + p}{2}\Big) - \tfrac12 f'(b)^\top J(p), \qquad
        J(p) = \frac{\partial p}{\partial \text{logits}} \text{ where the probabilities are } p

    Biased in general. The name of the method behind it is Heun's.

    Requires: the derivative of f at hard samples. Cost: f at the sample, and f with its derivative there. When: a biased gradient
    will do; less biased than the others here.

    Arguments:
        num_samples: K, samples per example.

    References:
        Liu, Dong, Liu, Yu & Gao, *Bridging Discrete and Backpropagation: Straight-Through and Beyond*, 2023.
        https://arxiv.org/abs/2304.08612

    Example: on a square its mean is the gradient, and straight-through's is not.

        >>> q, f = dvae.latents.Bernoulli(torch.ones(1, 1)), lambda b: b.square().sum(-1)
        >>> exact = dvae.estimators.Exact()(f, q).grad
        >>> dvae.estimators.ReinMax(num_samples=100_000)(f, q).grad.allclose(exact, atol=0.02)
        True
        >>> dvae.estimators.StraightThrough(num_samples=100_000)(f, q).grad.allclose(exact, atol=0.02)
        False
    """

    reference = "Liu et al. 2023"

    def gradient(self, f: Objective, q: Discrete, draw: Draw, context: Tensor | None) -> Tensor:
        derivative = self.derivative(f, draw)
        return 2 * q.mean_gradient(derivative, 0.5 * (draw.b + q.probs)) - 0.5 * q.mean_gradient(derivative)
