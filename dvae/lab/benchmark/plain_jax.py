"""The linear model's step as one writes it for the purpose in JAX: fifty of them in one ``lax.scan``, data on the device."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dvae.errors import InputError
from dvae.estimators.control_variates import PAPER_BATCH_SIZE
from dvae.lab.benchmark.algorithms import BLOCK, DECODER, ENCODER, ETA, NETWORK, PRIOR, TEMPERATURE, Algorithm, tensors_of
from dvae.training.module import DiscreteVAE

__all__ = ["PlainJax"]

Arrays = dict[str, Any]


def _jax() -> Any:
    """JAX, with as many threads as PyTorch has."""
    # What its pool of threads is made of; read once, when the CPU is first asked for.
    os.environ.setdefault("NPROC", str(torch.get_num_threads()))
    try:
        import jax
    except ImportError:
        raise InputError("the step in JAX needs the package jax: pip install 'discrete-vae[jax]'") from None
    jax.config.update("jax_platforms", "cpu")
    return jax


class PlainJax:
    """Blocks of steps, each one call of a compiled function. Arguments: as of :class:`PlainTorch`."""

    def __init__(self, model: DiscreteVAE, algorithm: Algorithm, data: Tensor, batch_size: int) -> None:
        self.jax = _jax()
        self.np, self.nn = self.jax.numpy, self.jax.nn
        self.algorithm, self.batch_size = algorithm, batch_size
        parameters, mean, bias = tensors_of(model)
        self.parameters = {name: self.np.array(p.numpy()) for name, p in parameters.items()}
        self.mean, self.bias, self.data = (self.np.array(tensor.numpy()) for tensor in (mean, bias, data))
        self.lr, self.betas, self.eps = model.lr, model.betas, model.eps
        first, second = ({name: self.np.zeros_like(p) for name, p in self.parameters.items()} for _ in range(2))
        self._state = (dict(self.parameters), first, second, self.np.zeros((), "int32"), self.jax.random.key(0))
        self._orders, self._waiting = np.random.default_rng(0), np.zeros((0, batch_size), np.int32)
        self._block = self.jax.jit(self._steps, donate_argnums=0)

    def run(self, steps: int) -> None:
        """So many steps, a multiple of :data:`BLOCK`."""
        for _ in range(steps // BLOCK):
            while len(self._waiting) < BLOCK:
                order = self._orders.permutation(len(self.data)).astype(np.int32)
                whole = len(order) // self.batch_size * self.batch_size
                self._waiting = np.concatenate([self._waiting, order[:whole].reshape(-1, self.batch_size)])
            chosen, self._waiting = self._waiting[:BLOCK], self._waiting[BLOCK:]
            self._state = self._block(self._state, self.data, chosen)
        self.jax.block_until_ready(self._state[0])

    def gradients(self, x: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """As of :meth:`PlainTorch.gradients`."""
        gradients = self.jax.jit(self.jax.grad(self.loss))(self.parameters, x.numpy(), noise.numpy())
        return {name: torch.tensor(np.asarray(gradient)) for name, gradient in gradients.items()}

    def _steps(self, state: Any, data: Any, chosen: Any) -> Any:
        return self.jax.lax.scan(lambda state, own: (self._step(state, data[own]), None), state, chosen)[0]

    def _step(self, state: Any, x: Any) -> Any:
        p, first, second, count, key = state
        key, own = self.jax.random.split(key)
        shape = (self.algorithm.num_noise, self.algorithm.num_samples, self.batch_size, p[PRIOR].shape[0])
        gradients = self.jax.grad(self.loss)(p, x, self.jax.random.uniform(own, shape))
        (beta1, beta2), count = self.betas, count + 1
        first = {name: beta1 * first[name] + (1 - beta1) * gradient for name, gradient in gradients.items()}
        second = {name: beta2 * second[name] + (1 - beta2) * gradient**2 for name, gradient in gradients.items()}
        rate, factor = self.lr / (1 - beta1**count), (1 - beta2**count) ** -0.5
        p = {name: p[name] - rate * first[name] / (self.np.sqrt(second[name]) * factor + self.eps) for name in p}
        return p, first, second, count, key

    def loss(self, p: Arrays, x: Any, noise: Any) -> Any:
        """What theta's and phi's gradients are of."""
        stop, algorithm, sigmoid = self.jax.lax.stop_gradient, self.algorithm, self.nn.sigmoid
        features = x - self.mean
        logits = _linear(features, p, ENCODER)
        cut = stop(logits)
        u = self.np.clip(noise, 1e-7, 1 - 1e-7)
        z = cut + self.np.log(u[0]) - self.np.log1p(-u[0])
        b = (z > 0).astype(z.dtype)
        value = self._objective(p, x, b, cut)
        score, signal = b - sigmoid(cut), stop(value)
        if algorithm.controlled:
            control, path = self._control(p, x, features, cut, z, b, u)
            gradient = ((signal - p[ETA] * control)[..., None] * score + p[ETA] * path).mean(0)
            variance = (gradient**2).sum(-1).mean() + (_penalty(p) if algorithm.network else 0.0)
        else:
            count = algorithm.num_samples
            signal = signal if count == 1 else (signal - signal.mean(0)) * (count / (count - 1))
            gradient, variance = (signal[..., None] * score).mean(0), 0.0
        return variance - value.mean() - (stop(gradient) * logits).sum(-1).mean()

    def _bernoulli(self, x: Any, logits: Any) -> Any:
        return (x * logits - self.nn.softplus(logits)).sum(-1)

    def _objective(self, p: Arrays, x: Any, b: Any, logits: Any) -> Any:
        outputs = _linear(2 * b - 1, p, DECODER) + self.bias
        return self._bernoulli(x, outputs) + self._bernoulli(b, p[PRIOR]) - self._bernoulli(b, logits)

    def _control(self, p: Arrays, x: Any, features: Any, cut: Any, z: Any, b: Any, u: Any) -> Any:
        theta = self.jax.lax.stop_gradient(p)

        def control(z: Any) -> Any:
            value = self._objective(theta, x, self.nn.sigmoid(z / self.np.exp(p[TEMPERATURE])), cut)
            return value + self._network(p, features, z) if self.algorithm.network else value

        def both(z: Any) -> Any:
            value = control(z)
            return value.sum(), value

        if self.algorithm.coupled:
            derivative, value = self.jax.grad(both, has_aux=True)(z)
            sign = self.np.where(b > 0, 1.0, -1.0)
            weight = self.np.exp(self.nn.log_sigmoid(-sign * cut) - self.nn.log_sigmoid(sign * (z - cut)))
            return value, derivative * weight

        def difference(q: Any) -> Any:
            value = control(self._conditional(q, b, u[1]))
            return control(q + self.np.log(u[0]) - self.np.log1p(-u[0])).sum() - value.sum(), value

        path, value = self.jax.grad(difference, has_aux=True)(cut)
        return value, path[None]

    def _conditional(self, logits: Any, b: Any, v: Any) -> Any:
        log, log1p, softplus = self.np.log, self.np.log1p, self.nn.softplus
        return self.np.where(b > 0, softplus(logits + log(v)) - log1p(-v), log(v) - softplus(log1p(-v) - logits))

    def _network(self, p: Arrays, features: Any, z: Any) -> Any:
        context = features @ p[f"{NETWORK}.context_weight"].T
        hidden = self.nn.relu(z @ p[f"{NETWORK}.latent_weight"].T + p[f"{NETWORK}.bias"] + context)
        hidden = self.nn.relu(_linear(hidden, p, f"{NETWORK}.layers.1"))
        return _linear(hidden, p, f"{NETWORK}.layers.3")[..., 0]


def _linear(x: Any, p: Arrays, name: str) -> Any:
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def _penalty(p: Arrays) -> Any:
    squares = [(array**2).sum() for name, array in p.items() if name.startswith(NETWORK) and array.ndim > 1]
    return 0.5 * 0.001 * PAPER_BATCH_SIZE**2 * p[PRIOR].shape[0] * sum(squares)
