"""Networks of agents: a Gaussian policy, and RELAX's surrogate on relaxed actions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvae.config import Module
from dvae.errors import InputError
from dvae.networks import MLP

__all__ = ["ActionSurrogate", "GaussianPolicy", "RelaxedSurrogate"]


class GaussianPolicy(Module):
    """A network for the mean of a vector of actions, and a standard deviation that is the same in every state.

    Arguments:
        in_features: O, size of the observation; the environment's where it is None in a config.
        out_features: 2 D, a mean and a log standard deviation for each of D actions; likewise.
        hidden: width of each hidden layer.
        activation: "tanh", "relu", "elu" or another of :class:`dvae.networks.MLP`.
        log_std: initial logarithm of the standard deviation.
        output_scale: factor on the last layer's initial weights.

    Raises:
        InputError: ``out_features`` is odd, or as of :class:`dvae.networks.MLP`.

    Example:
        >>> policy = dvae.rl.GaussianPolicy(4, 2)
        >>> dvae.latents.Gaussian(policy(torch.zeros(5, 4)).unflatten(-1, (1, 2))).log_std.unique()
        tensor([0.], grad_fn=<Unique2Backward0>)
    """

    def __init__(
        self,
        in_features: int | None = None,
        out_features: int | None = None,
        hidden: Sequence[int] = (64, 64),
        activation: str = "tanh",
        log_std: float = 0.0,
        output_scale: float = 0.1,
    ) -> None:
        super().__init__()
        if out_features is None or out_features % 2:
            raise InputError(f"out_features must be even, a mean and a log standard deviation for each action, got {out_features}")
        self.mean = MLP(in_features, out_features // 2, hidden, activation, output_scale)
        self.log_std = nn.Parameter(torch.full((out_features // 2,), float(log_std)))

    def forward(self, observation: Tensor) -> Tensor:
        """[*, O] to flat logits [*, 2 D]."""
        mean = self.mean(observation)
        return torch.stack([mean, self.log_std.expand_as(mean)], -1).flatten(-2)


class RelaxedSurrogate(Module):
    r"""The paper's surrogate of one of several actions: a network of the state and the relaxed action.

    .. math:: c_\phi(z, s) = \alpha \, r([s, \text{softmax}(z / T)])

    with the scale and T learned.

    Arguments:
        num_latents: A, how many actions there are; the environment's where it is None in a config.
        num_context: O, size of the observation; likewise.
        hidden: width of each hidden layer.
        activation: as of :class:`dvae.networks.MLP`.
        temperature: the initial T, positive.
        scale: the initial scale; 0 starts without a control variate.

    Raises:
        InputError: an argument is outside its range.

    References:
        Grathwohl, Choi, Wu, Roeder & Duvenaud, *Backpropagation through the Void: Optimizing control variates for black-box
        gradient estimation*, 2018. https://arxiv.org/abs/1711.00123

    Example:
        >>> dvae.rl.RelaxedSurrogate(num_latents=2, num_context=4)(torch.zeros(5, 2), torch.zeros(5, 4)).shape
        torch.Size([5])
    """

    def __init__(
        self,
        num_latents: int | None = None,
        num_context: int | None = None,
        *,
        hidden: Sequence[int] = (10, 10),
        activation: str = "relu",
        temperature: float = 1.0,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise InputError(f"temperature must be positive, got {temperature}")
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))
        self.scale = nn.Parameter(torch.tensor(float(scale)))
        self.network = MLP(_num_inputs(num_latents, num_context), 1, hidden, activation)

    def forward(self, z: Tensor, context: Tensor) -> Tensor:
        """[*, B, A] and [B, O] to [*, B]."""
        soft = F.softmax(z / self.log_temperature.exp(), -1)
        state = context.expand(*z.shape[:-1], context.shape[-1])
        return self.scale * self.network(torch.cat([state, soft], -1)).squeeze(-1)


class ActionSurrogate(Module):
    r"""The surrogate of a vector of actions: a network of the state and the action, c(a, s).

    Arguments:
        num_latents: D, how many numbers an action is; the environment's where it is None in a config.
        num_context: O, size of the observation; likewise.
        hidden: width of each hidden layer.
        activation: as of :class:`dvae.networks.MLP`.

    Raises:
        InputError: an argument is outside its range.

    Example:
        >>> dvae.rl.ActionSurrogate(num_latents=1, num_context=4)(torch.zeros(5, 1), torch.zeros(5, 4)).shape
        torch.Size([5])
    """

    def __init__(
        self,
        num_latents: int | None = None,
        num_context: int | None = None,
        *,
        hidden: Sequence[int] = (64, 64),
        activation: str = "elu",
    ) -> None:
        super().__init__()
        self.network = MLP(_num_inputs(num_latents, num_context), 1, hidden, activation)

    def forward(self, z: Tensor, context: Tensor) -> Tensor:
        """[*, B, D] and [B, O] to [*, B]."""
        state = context.expand(*z.shape[:-1], context.shape[-1])
        return self.network(torch.cat([state, z], -1)).squeeze(-1)


def _num_inputs(num_latents: int | None, num_context: int | None) -> int:
    if num_latents is None or num_context is None:
        raise InputError(f"num_latents and num_context must be given, got {num_latents} and {num_context}")
    return num_latents + num_context
