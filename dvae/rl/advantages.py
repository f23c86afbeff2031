"""What is credited to an action: returns, bootstrapped returns, generalized advantages."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

__all__ = ["Credit", "credited"]

Credit = Literal["returns", "bootstrapped", "gae"]


def credited(
    credit: Credit,
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    ended: Tensor,
    discount: float,
    gae_lambda: float,
) -> Tensor:
    r"""R of each step, from which a baseline is still to be subtracted, [*, T, N].

    .. math::
        \text{returns: } R_t = \sum_{k \ge t} \gamma^{k - t} r_k, \qquad
        \text{bootstrapped: the same up to where the steps are cut, and there } \gamma^{n} V(s), \qquad
        \text{gae: } R_t = V(s_t) + \sum_{k \ge t} (\gamma \lambda)^{k - t} (r_k + \gamma V(s_{k+1}) - V(s_k))

    The first has no bias. The other two are biased by as much as V is wrong, and vary less.

    Arguments:
        credit: which.
        reward: r, [*, T, N]; 0 at steps that do not count.
        value: V(s_t), [*, T, N]; it may be anything where returns are asked for.
        next_value: V of what the step led to, [*, T, N].
        terminated: whether the episode was over after the step, [*, T, N].
        ended: whether it was over or cut off by a time limit, [*, T, N].
        discount: gamma.
        gae_lambda: lambda of the generalized advantage; 1 is the bootstrapped return.

    References:
        Schulman, Moritz, Levine, Jordan & Abbeel, *High-Dimensional Continuous Control Using Generalized Advantage
        Estimation*, 2016. https://arxiv.org/abs/1506.02438
    """
    on = discount * (~ended).to(reward.dtype)
    if credit == "returns":
        return _discounted(reward, on)
    rest = reward + discount * (~terminated).to(reward.dtype) * next_value - value
    return value + _discounted(rest, on * (gae_lambda if credit == "gae" else 1.0))


def _discounted(reward: Tensor, factor: Tensor) -> Tensor:
    total, totals = torch.zeros_like(reward[..., 0, :]), []
    for own, on in zip(reversed(reward.unbind(-2)), reversed(factor.unbind(-2)), strict=True):
        total = own + on * total
        totals.append(total)
    return torch.stack(totals[::-1], -2)
