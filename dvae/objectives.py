"""What is maximised: the evidence lower bound (ELBO) and its parts, and the importance-weighted bound."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["ELBOTerms", "bernoulli_log_likelihood", "importance_weighted_bound"]


class ELBOTerms(NamedTuple):
    r"""The two parts of the ELBO, per sample and example, in nats.

    reconstruction: :math:`\log p(x | b)`, [K, B].
    kl: :math:`\log q(b | x) - \log p(b)` over all stochastic layers, sampled or in closed form, [K, B].
    """

    reconstruction: Tensor
    kl: Tensor

    @property
    def elbo(self) -> Tensor:
        """reconstruction - kl, [K, B] (Kingma & Welling 2014)."""
        return self.reconstruction - self.kl


def bernoulli_log_likelihood(x: Tensor, logits: Tensor) -> Tensor:
    """log p(x) under independent Bernoullis, summed over the last dimension; x in [0, 1], [*, D] to [*]."""
    # softplus and the sum run in float32 whatever the networks' precision: 784 terms do not add up in half precision.
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    return (x * logits - F.softplus(logits)).sum(-1)


def importance_weighted_bound(log_weights: Tensor) -> Tensor:
    r"""The multi-sample bound :math:`\log \frac{1}{K} \sum_k w_k`, [K, B] to [B] (Burda, Grosse & Salakhutdinov 2016)."""
    return torch.logsumexp(log_weights, 0) - math.log(log_weights.shape[0])
