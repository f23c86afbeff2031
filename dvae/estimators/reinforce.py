"""Score-function estimators: REINFORCE, its baselines, and leave-one-out over several samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from dvae.errors import InputError
from dvae.estimators.base import Draw, GradientEstimator, Objective
from dvae.latents import Bernoulli, Categorical, Gaussian, Latent, PlackettLuce
from dvae.networks import MLP

__all__ = ["LOO", "NVIL", "REINFORCE"]


class REINFORCE(GradientEstimator[Latent]):
    r"""The score-function estimator, with no baseline or with a moving average of f.

    .. math:: g = (f(b) - a)\,\nabla \log q(b)

    The average is read before it is updated: one that already holds the current f makes the gradient biased.

    Requires: f's values. Cost: one evaluation of f per sample. When: as the reference that others are measured by; its variance
    grows with the size of f itself.

    Arguments:
        baseline: ``None``, or ``"moving_average"`` for a = the exponential average of f over past batches.
        decay: of that average, in [0, 1).
        num_samples: K, samples per example.

    Raises:
        InputError: an argument is outside its range.

    References:
        Williams, *Simple statistical gradient-following algorithms for connectionist reinforcement learning*, Machine Learning 8,
        1992.

    Example:
        >>> q = dvae.latents.Bernoulli(torch.zeros(1, 3))
        >>> estimate = dvae.estimators.REINFORCE(num_samples=100_000)(lambda b: b.sum(-1), q)
        >>> estimate.grad.allclose(torch.tensor(0.25), atol=0.02)
        True
    """

    reference = "Williams 1992"
    latents = (Bernoulli, Categorical, Gaussian, PlackettLuce)

    def __init__(
        self,
        baseline: Literal["moving_average"] | None = None,
        *,
        decay: float = 0.9,
        num_samples: int = 1,
    ) -> None:
        super().__init__(num_samples)
        if baseline not in (None, "moving_average"):
            raise InputError(f"baseline must be None or 'moving_average', got {baseline!r}")
        self.moving_average = _MovingAverage(decay) if baseline else None

    def gradient(self, f: Objective, q: Latent, draw: Draw, context: Tensor | None) -> Tensor:
        signal = draw.value if self.moving_average is None else draw.value - self.moving_average()
        return q.score(draw.b, signal)

    def update(self, draw: Draw) -> None:
        if self.moving_average is not None:
            self.moving_average.update(draw.value)


class LOO(GradientEstimator[Latent]):
    r"""REINFORCE with the mean of the other samples' values as each sample's baseline.

    .. math:: g = \frac{1}{K} \sum_k \Big(f(b_k) - \frac{1}{K-1} \sum_{j \ne k} f(b_j)\Big) \nabla \log q(b_k)

    Requires: f's values. Cost: K evaluations of f. When: nothing is known of f, and two evaluations can be had; nothing to tune,
    and hard to beat per second.

    Arguments:
        num_samples: K, at least 2.

    Raises:
        InputError: ``num_samples`` is less than 2.

    References:
        Kool, van Hoof & Welling, *Buy 4 REINFORCE Samples, Get a Baseline for Free!*, ICLR workshop Deep Reinforcement Learning
        Meets Structured Prediction, 2019.

    Example: a constant in f leaves the estimate as it is.

        >>> q = dvae.latents.Bernoulli(torch.zeros(1, 3))
        >>> loo, noise = dvae.estimators.LOO(num_samples=2), q.noise(1, 2)
        >>> grad = loo(lambda b: b.sum(-1), q, noise=noise).grad
        >>> grad.allclose(loo(lambda b: b.sum(-1) + 100, q, noise=noise).grad, atol=1e-4)
        True
    """

    reference = "Kool, van Hoof & Welling 2019"
    latents = (Bernoulli, Categorical, Gaussian, PlackettLuce)

    def __init__(self, num_samples: int = 2) -> None:
        if num_samples < 2:
            raise InputError(f"num_samples must be at least 2 to leave one out, got {num_samples}")
        super().__init__(num_samples)

    def gradient(self, f: Objective, q: Latent, draw: Draw, context: Tensor | None) -> Tensor:
        # f_k - mean of the others = (f_k - mean of all) K / (K - 1)
        signal = (draw.value - draw.value.mean(0)) * (self.num_samples / (self.num_samples - 1))
        return q.score(draw.b, signal)


class NVIL(GradientEstimator[Latent]):
    r"""REINFORCE with a moving average and a network of the input as baseline.

    .. math:: g = (f(b) - a - a_\phi(x)) \nabla \log q(b)

    The network is trained, as every phi here, on the variance of the gradient; the paper's squared error is the same up to the
    weight |b - p|^2. Without the moving average a it is a baseline of the context alone that is best for the variance.

    Requires: f's values. Cost: one evaluation of f per sample. When: f can be evaluated only once for each example.

    Arguments:
        hidden: widths of the baseline network's layers.
        activation: of them, see :class:`dvae.networks.MLP`.
        variance_normalization: divide the signal by max(1, its running standard deviation), as the paper does. That scales the
            gradient, so its expectation is no longer the gradient's but a positive multiple.
        decay: of the moving averages, in [0, 1).
        moving_average: whether there is an a.
        num_samples: K, samples per example.

    Raises:
        InputError: an argument is outside its range, or variance normalization is asked for without a moving average.

    References:
        Mnih & Gregor, *Neural Variational Inference and Learning in Belief Networks*, 2014. https://arxiv.org/abs/1402.0030

    Example: the context is what the network looks at.

        >>> q, x = dvae.latents.Bernoulli(torch.zeros(5, 3)), torch.rand(5, 8)
        >>> dvae.estimators.NVIL()(lambda b: b.sum(-1), q, context=x).grad.shape
        torch.Size([5, 3])
    """

    reference = "Mnih & Gregor 2014"
    latents = (Bernoulli, Categorical, Gaussian, PlackettLuce)

    def __init__(
        self,
        hidden: Sequence[int] = (100,),
        *,
        activation: str = "tanh",
        variance_normalization: bool = False,
        decay: float = 0.9,
        moving_average: bool = True,
        num_samples: int = 1,
    ) -> None:
        super().__init__(num_samples)
        if variance_normalization and not moving_average:
            raise InputError("variance_normalization needs the moving average of f, got moving_average=False")
        self.hidden, self.activation = list(hidden), activation
        self.network: MLP | None = None
        self.mean = _MovingAverage(decay) if moving_average else None
        self.square = _MovingAverage(decay) if variance_normalization else None
        if variance_normalization:
            self.unbiased = False

    def build(self, num_latents: int, num_context: int) -> None:
        # Without a context there is nothing for a network to look at: the moving average is the baseline.
        self.network = MLP(num_context, 1, self.hidden, self.activation, output_scale=0.0) if num_context else None

    def gradient(self, f: Objective, q: Latent, draw: Draw, context: Tensor | None) -> Tensor:
        signal = draw.value if self.mean is None else draw.value - self.mean()
        if self.network is not None and context is not None:
            signal = signal - self.network(context).squeeze(-1)
        if self.square is not None and self.mean is not None:
            signal = signal / (self.square() - self.mean().square()).clamp(min=1.0).sqrt()
        return q.score(draw.b, signal)

    def update(self, draw: Draw) -> None:
        if self.mean is not None:
            self.mean.update(draw.value)
        if self.square is not None:
            self.square.update(draw.value.square())


class _MovingAverage(torch.nn.Module):
    """Exponential average of batch means, without the pull towards its start at 0 (as Adam corrects its moments)."""

    total: Tensor
    weight: Tensor

    def __init__(self, decay: float) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise InputError(f"decay must be in [0, 1), got {decay}")
        self.decay = decay
        self.register_buffer("total", torch.zeros(()))
        self.register_buffer("weight", torch.zeros(()))

    def forward(self) -> Tensor:
        return self.total / self.weight.clamp(min=torch.finfo(self.weight.dtype).tiny)

    def update(self, value: Tensor) -> None:
        self.total = self.decay * self.total + (1 - self.decay) * value.mean().to(self.total.dtype)
        self.weight = self.decay * self.weight + (1 - self.decay)
