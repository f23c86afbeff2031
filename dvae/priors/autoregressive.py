"""The autoregressive prior of flat codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dvae.errors import InputError
from dvae.latents import Latent, Spec
from dvae.networks import MaskedMLP
from dvae.noise import uniform_from
from dvae.priors.base import Prior

__all__ = ["Autoregressive"]


class Autoregressive(Prior):
    r"""Each latent given those before it, by a masked network (MADE); for bits and classes.

    .. math:: \log p(b) = \sum_d \log p(b_d | b_{<d}), \qquad \text{logits}_d = m_d(2 b_{<d} - 1)

    At relaxed b the logits come from the relaxed latents before, and the log-probability is linear in each b given these: it is
    continuous in b and exact at hard ones, as REBAR and RELAX need it. Logits from the hard latents would jump where one of them
    changes; the reparameterized gradient does not see that, and the estimate would be biased.

    It starts as the uniform distribution. Its KL has no closed form: models take ``kl="sampled"``. A sample takes D evaluations of
    the network, one after the other.

    Arguments:
        hidden: width of each hidden layer; none for a logistic regression of each latent on those before it.
        activation: "tanh", "relu", "leaky_relu", "elu" or "silu".

    Raises:
        InputError: a width is less than 1, or the activation is unknown; in :meth:`build`, the latents are no bits or classes.

    References:
        Germain, Gregor, Murray & Larochelle, *MADE: Masked autoencoder for distribution estimation*, 2015.
        https://arxiv.org/abs/1502.03509

    Example:
        >>> prior = dvae.priors.Autoregressive(hidden=[50])
        >>> prior.build(dvae.latents.Spec(dvae.latents.Bernoulli, 3))
        >>> round(prior().log_prob(torch.tensor([1.0, 0.0, 1.0])).exp().item(), 5), prior().sample(5).shape
        (0.125, torch.Size([5, 3]))
    """

    closed_kl = False

    def __init__(self, hidden: Sequence[int] = (200,), activation: str = "relu") -> None:
        super().__init__()
        MaskedMLP(1, hidden=hidden, activation=activation)  # a wrong argument is found here, where it is given
        self.hidden, self.activation = hidden, activation

    def build(self, latent: Spec) -> None:
        require_values(self, latent)
        self.latent = latent
        count = latent.num_variables
        inputs, outputs = latent.num_features // count, latent.num_logits // count
        self.network = MaskedMLP(count, inputs, outputs, self.hidden, self.activation)

    def forward(self) -> Any:
        return _Chained(self.latent, self.network)


class _Chained:
    """Variables whose logits a masked network gives of those before them."""

    def __init__(self, latent: Spec, network: nn.Module) -> None:
        self.latent, self.network = latent, network

    def log_prob(self, b: Tensor) -> Tensor:
        return self._given(b).log_prob(b)

    def sample(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        return chained(self._given, self.latent, _noise(self.latent, self.network, num_samples, generator))

    def _given(self, b: Tensor) -> Latent:
        return self.latent(self.network(self.latent.features(b)))


def require_values(prior: Prior, latent: Spec) -> None:
    """An InputError where the latents are no bits or classes."""
    if latent.num_values is None:
        raise InputError(
            f"prior: {type(prior).__name__} is for Bernoulli and Categorical latents, got {latent.family.__name__}: take Factorial"
        )


@torch.no_grad()
def chained(given: Any, latent: Spec, noise: Tensor) -> Tensor:
    """Samples [n, *sample], one variable after the other, from uniform noise of that shape.

    Arguments:
        given: from a sample to the distributions of all variables, each of which looks at those before it alone.
        latent: the variables.
        noise: [n, *sample].
    """
    b = torch.zeros_like(noise)
    for index in range(latent.num_variables):
        q = given(b)
        is_next = torch.arange(latent.num_variables, device=b.device) == index
        b = torch.where(is_next.view(-1, *[1] * (len(latent.sample_shape) - 1)), q.hard(q.relaxed(noise)), b)
    return b


def _noise(latent: Spec, network: nn.Module, num_samples: int, generator: torch.Generator | None) -> Tensor:
    weight = next(network.parameters())
    return uniform_from(generator, (num_samples, *latent.sample_shape), weight.device, weight.dtype)
