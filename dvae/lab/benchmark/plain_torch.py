"""The linear model's step as one writes it for the purpose in eager PyTorch: autograd, ``torch.rand``, the fused Adam."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dvae.estimators.control_variates import PAPER_BATCH_SIZE
from dvae.lab.benchmark.algorithms import DECODER, ENCODER, ETA, NETWORK, PRIOR, TEMPERATURE, Algorithm, tensors_of
from dvae.training.module import DiscreteVAE

__all__ = ["PlainTorch"]

Tensors = dict[str, Tensor]


class PlainTorch:
    """A plain loop over one tensor of data.

    Arguments:
        model: whose parameters and settings it starts from.
        algorithm: its estimator's.
        data: [N, num_pixels].
        batch_size: examples in a batch; a last one that is not full is left out.
    """

    def __init__(self, model: DiscreteVAE, algorithm: Algorithm, data: Tensor, batch_size: int) -> None:
        self.algorithm, self.data, self.batch_size = algorithm, data, batch_size
        parameters, self.mean, self.bias = tensors_of(model)
        self.parameters = {name: p.requires_grad_() for name, p in parameters.items()}
        self.optimizer = torch.optim.Adam(self.parameters.values(), lr=model.lr, betas=model.betas, eps=model.eps, fused=True)
        self.shape = (algorithm.num_noise, algorithm.num_samples, batch_size, model.num_latents)
        self._batches: list[Tensor] = []

    def run(self, steps: int) -> None:
        """So many steps."""
        for _ in range(steps):
            if not self._batches:
                self._batches = list(torch.randperm(len(self.data)).split(self.batch_size))[: len(self.data) // self.batch_size]
            self.optimizer.zero_grad()
            self.loss(self.data[self._batches.pop()], torch.rand(self.shape)).backward()
            self.optimizer.step()

    def gradients(self, x: Tensor, noise: Tensor) -> Tensors:
        """Of the loss, by name: of x [B, num_pixels] and noise [num_noise, K, B, D]."""
        gradients = torch.autograd.grad(self.loss(x, noise), list(self.parameters.values()))
        return dict(zip(self.parameters, gradients, strict=True))

    def loss(self, x: Tensor, noise: Tensor) -> Tensor:
        """What one backward gives theta and phi their gradients from."""
        p, algorithm = self.parameters, self.algorithm
        features = x - self.mean
        logits = _linear(features, p, ENCODER)
        cut = logits.detach()
        z = cut + torch.logit(noise[0], eps=1e-7)
        b = (z > 0).to(z.dtype)
        value = self._objective(p, x, b, cut)
        score, signal = b - torch.sigmoid(cut), value.detach()
        if algorithm.controlled:
            control, path = self._control(x, features, cut, z, b, noise)
            gradient = ((signal - p[ETA] * control)[..., None] * score + p[ETA] * path).mean(0)
            variance = gradient.square().sum(-1).mean() + (_penalty(p) if algorithm.network else 0.0)
        else:
            count = algorithm.num_samples
            signal = signal if count == 1 else (signal - signal.mean(0)) * (count / (count - 1))
            gradient, variance = (signal[..., None] * score).mean(0), torch.zeros(())
        return variance - value.mean() - (gradient.detach() * logits).sum(-1).mean()

    def _objective(self, p: Tensors, x: Tensor, b: Tensor, logits: Tensor) -> Tensor:
        outputs = _linear(2 * b - 1, p, DECODER) + self.bias
        return _bernoulli(x, outputs) + _bernoulli(b, p[PRIOR]) - _bernoulli(b, logits)

    def _control(self, x: Tensor, features: Tensor, cut: Tensor, z: Tensor, b: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The control variate at the (conditional) relaxed sample, [K, B], and the difference of the two paths, [K, B, D]."""
        p = self.parameters
        theta = {name: tensor.detach() for name, tensor in p.items()}

        def control(z: Tensor) -> Tensor:
            value = self._objective(theta, x, torch.sigmoid(z / p[TEMPERATURE].exp()), cut)
            return value + _network(p, features, z) if self.algorithm.network else value

        if self.algorithm.coupled:
            z = z.detach().requires_grad_()
            value = control(z)
            (derivative,) = torch.autograd.grad(value.sum(), z, create_graph=True)
            sign = torch.where(b > 0, 1.0, -1.0)
            weight = torch.exp(F.logsigmoid(-sign * cut) - F.logsigmoid(sign * (z.detach() - cut)))
            return value, derivative * weight
        q = cut.clone().requires_grad_()
        value = control(_conditional(q, b, noise[1].clamp(1e-7, 1 - 1e-7)))
        difference = control(q + torch.logit(noise[0], eps=1e-7)).sum() - value.sum()
        (path,) = torch.autograd.grad(difference, q, create_graph=True)
        return value, path[None]


def _linear(x: Tensor, p: Tensors, name: str) -> Tensor:
    return F.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])


def _bernoulli(x: Tensor, logits: Tensor) -> Tensor:
    return (x * logits - F.softplus(logits)).sum(-1)


def _conditional(logits: Tensor, b: Tensor, v: Tensor) -> Tensor:
    above = F.softplus(logits + v.log()) - torch.log1p(-v)
    below = v.log() - F.softplus(torch.log1p(-v) - logits)
    return torch.where(b > 0, above, below)


def _network(p: Tensors, features: Tensor, z: Tensor) -> Tensor:
    hidden = F.linear(z, p[f"{NETWORK}.latent_weight"], p[f"{NETWORK}.bias"]) + F.linear(features, p[f"{NETWORK}.context_weight"])
    return _linear(_linear(hidden.relu(), p, f"{NETWORK}.layers.1").relu(), p, f"{NETWORK}.layers.3").squeeze(-1)


def _penalty(p: Tensors) -> Tensor:
    weights = [tensor for name, tensor in p.items() if name.startswith(NETWORK) and tensor.dim() > 1]
    scale = 0.5 * 0.001 * PAPER_BATCH_SIZE**2 * len(p[PRIOR])
    return scale * torch.stack([weight.square().sum() for weight in weights]).sum()
