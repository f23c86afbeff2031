"""The restricted Boltzmann machine."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dvae.errors import InputError
from dvae.latents import Latent, Spec
from dvae.noise import uniform_from
from dvae.priors.autoregressive import require_values
from dvae.priors.base import Prior

__all__ = ["BoltzmannMachine"]

# States of one half up to which log Z is summed and not annealed.
_MOST_STATES = 4096
# Of an annealed sample, the share of its sweeps after which it is at the machine itself.
_ANNEALED = 0.5


class BoltzmannMachine(Prior):
    r"""A restricted Boltzmann machine whose two sides are the two halves of the code (Rolfe 2017); for bits and classes.

    .. math:: \log p(b) = a^\top b + s^\top W t - \log Z, \qquad (s, t) = 2 b - 1

    Both sides are code, and none is hidden, because the energy is then linear in each latent: at relaxed b, for REBAR and RELAX,
    it is E[log p] of independent latents with these means, and the KL has a closed form for ``kl="analytic"``. Units summed out
    would make it neither.

    log Z is a number to the encoder, the decoder and the estimators: their gradients need it not. The gradient of the machine's own
    parameters is an average over ``num_chains`` persistent chains (Tieleman 2008), which each step moves on by ``num_sweeps`` of
    block Gibbs sampling; they are buffers, so that a step is a pure function and a resumed run goes on exactly. log Z is summed
    over the states of one half where these are few, and otherwise found by annealed importance sampling from independent latents
    with the chains' means, with a standard error (Neal 2001; Salakhutdinov & Murray 2008). Validation and evaluation begin with it;
    between them each step adds its change over as many chains again, which no gradient has seen: those that it has would judge an
    update by the samples that it was made from, and be wrong by many nats.

    Arguments:
        num_chains: persistent chains of the gradient.
        num_sweeps: of each chain in a step; more follow the machine more closely.
        num_temperatures: of the annealing from independent latents to the machine.
        num_anneals: weights that log Z is the mean of.
        sample_sweeps: of Gibbs sampling for a sample, the first half of them annealed.

    Raises:
        InputError: a number is less than 1, or ``num_anneals`` less than 2; in :meth:`build`, the latents are no bits or classes,
            or fewer than two.

    References:
        Rolfe, *Discrete variational autoencoders*, 2017. https://arxiv.org/abs/1609.02200

        Tieleman, *Training restricted Boltzmann machines using approximations to the likelihood gradient*, 2008.
        https://doi.org/10.1145/1390156.1390290

        Neal, *Annealed importance sampling*, 2001. https://doi.org/10.1023/A:1008923215028

        Salakhutdinov & Murray, *On the quantitative analysis of deep belief networks*, 2008.
        https://doi.org/10.1145/1390156.1390266

    Example:
        >>> prior = dvae.priors.BoltzmannMachine(num_chains=10)
        >>> prior.build(dvae.latents.Spec(dvae.latents.Bernoulli, 4))
        >>> round(prior().log_prob(torch.tensor([1.0, 0.0, 1.0, 1.0])).exp().item(), 5), prior.chains.shape
        (0.0625, torch.Size([2, 10, 4]))
    """

    chains: Tensor
    log_partition: Tensor
    log_partition_error: Tensor
    seen_bias: Tensor
    seen_weight: Tensor

    def __init__(
        self,
        num_chains: int = 100,
        num_sweeps: int = 1,
        num_temperatures: int = 1000,
        num_anneals: int = 100,
        sample_sweeps: int = 200,
    ) -> None:
        super().__init__()
        sizes = {"num_chains": num_chains, "num_sweeps": num_sweeps, "num_temperatures": num_temperatures}
        for name, value in {**sizes, "num_anneals": num_anneals - 1, "sample_sweeps": sample_sweeps}.items():
            if value < 1:
                least = 2 if name == "num_anneals" else 1
                raise InputError(f"{name} must be at least {least}, got {value + least - 1}")
        self.num_chains, self.num_sweeps, self.sample_sweeps = num_chains, num_sweeps, sample_sweeps
        self.num_temperatures, self.num_anneals = num_temperatures, num_anneals

    def build(self, latent: Spec) -> None:
        require_values(self, latent)
        if latent.num_variables < 2:
            raise InputError(f"prior: BoltzmannMachine needs at least 2 latents, one for each half, got {latent.num_variables}")
        self.latent = latent
        halves = _halves(latent)
        self.bias = nn.Parameter(torch.zeros(latent.num_features))
        self.weight = nn.Parameter(torch.zeros(halves[0].num_features, halves[1].num_features))
        uniform = latent(torch.zeros(latent.num_logits))
        # The gradient's, and those that follow log Z. Named before they take memory: a damaged file may ask for any number.
        self.register_buffer("chains", torch.zeros(()).expand(2, self.num_chains, *latent.sample_shape))
        self.chains = uniform.sample(2, self.num_chains)
        self.register_buffer("log_partition", torch.tensor(latent.num_variables * math.log(latent.num_values or 1)))
        self.register_buffer("log_partition_error", torch.zeros(()))
        # The parameters that log_partition is of.
        self.register_buffer("seen_bias", torch.zeros_like(self.bias))
        self.register_buffer("seen_weight", torch.zeros_like(self.weight))

    def forward(self) -> Any:
        machine = _Machine(self.latent, self.bias, self.weight)
        mean = machine.weigh(self.chains[0]).mean()
        # Of the value log_partition, with the gradient of log Z.
        return _Normalized(machine, self.log_partition + (mean - mean.detach()), self.sample_sweeps)

    def kl(self, q: Latent) -> Tensor:
        return -q.entropy() - self().log_prob(q.mean)

    @property
    def noise_shape(self) -> tuple[int, ...]:
        return (self.num_sweeps, 2, self.num_chains, *self.latent.sample_shape)

    def advance(self, noise: Tensor) -> None:
        with torch.no_grad():
            bias, weight = self.bias.detach(), self.weight.detach()
            machine, before = _Machine(self.latent, bias, weight), _Machine(self.latent, self.seen_bias, self.seen_weight)
            change = machine.weigh(self.chains[1]) - before.weigh(self.chains[1])
            self.log_partition = self.log_partition + change.logsumexp(0) - math.log(self.num_chains)
            chains = self.chains
            for one in noise:
                chains = machine.swept(chains, one)
            self.chains, self.seen_bias, self.seen_weight = chains, bias.clone(), weight.clone()

    @torch.no_grad()
    def normalize(self, generator: torch.Generator | None = None) -> None:
        value, error = self.measured_log_partition(generator)
        self.log_partition.copy_(value)
        self.log_partition_error.copy_(error)
        self.seen_bias.copy_(self.bias)
        self.seen_weight.copy_(self.weight)

    @torch.no_grad()
    def measured_log_partition(self, generator: torch.Generator | None = None, *, anneal: bool = False) -> tuple[Tensor, Tensor]:
        """log Z at the parameters of today and its standard error, nats, [] each; summed where that is cheap, else annealed.

        Arguments:
            generator: of the noise.
            anneal: anneal also where log Z can be summed.
        """
        machine = _Machine(self.latent, self.bias.double(), self.weight.double())
        left = machine.halves[0]
        if not anneal and (left.num_values or 0) ** left.num_variables <= _MOST_STATES:
            states = left(torch.zeros(left.num_logits, dtype=torch.float64, device=self.bias.device)).enumerate()  # type: ignore[attr-defined]
            return machine.weigh_left(states).logsumexp(0), torch.zeros((), dtype=torch.float64)
        log_weights, log_start = machine.annealed(self._start(), self.num_anneals, self.num_temperatures, generator)
        mean = log_weights.logsumexp(0) - math.log(self.num_anneals)
        error = (log_weights - mean).exp().std() / math.sqrt(self.num_anneals)
        return log_start + mean, error

    def _start(self) -> Tensor:
        """Logits of independent latents with the chains' means, flat; none of them sure."""
        mean = (self.latent.flat(self.chains).double().sum((0, 1)) + 1) / (2 * self.num_chains + 2)
        return torch.logit(mean) if self.latent.family.binary else mean.log()

    @property
    def log_constant(self) -> tuple[float, float]:
        return self.log_partition.item(), self.log_partition_error.item()


class _Normalized:
    """A machine with its log Z."""

    def __init__(self, machine: _Machine, log_partition: Tensor, sample_sweeps: int) -> None:
        self.machine, self.log_partition, self.sample_sweeps = machine, log_partition, sample_sweeps

    def log_prob(self, b: Tensor) -> Tensor:
        return self.machine.weigh(b) - self.log_partition

    def sample(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        return self.machine.sampled(num_samples, self.sample_sweeps, generator)


class _Machine:
    """Two halves of a code, their biases and couplings; all as log-weights, minus the energy."""

    def __init__(self, latent: Spec, bias: Tensor, weight: Tensor) -> None:
        self.latent, self.bias, self.weight = latent, bias, weight
        self.halves = _halves(latent)

    def weigh(self, b: Tensor) -> Tensor:
        """a b + s W t, [*, B]: linear in each latent."""
        s, t = self._features(b)
        return self.latent.flat(b) @ self.bias + ((s @ self.weight) * t).sum(-1)

    def weigh_left(self, left: Tensor) -> Tensor:
        """The log-weights of left halves [n, *half], summed over all right ones, [n]."""
        spec = self.halves[0]
        biases = self._split(self.bias)
        field = spec.features(left) @ self.weight
        right = self._right(left)
        mode = right.mode()
        # log of the sum over t of exp(logits t): the weight of one t over its probability.
        summed = (right.logits * mode).flatten(1).sum(-1) - right.log_prob(mode)
        return spec.flat(left) @ biases[0] + summed - field.sum(-1)

    def swept(self, b: Tensor, noise: Tensor) -> Tensor:
        """Codes after both halves were drawn anew, the right one first, from uniform noise; [*, *sample] each."""
        left, _ = self._parts(b)
        of_left, of_right = self._parts(noise)
        right = _drawn(self._right(left), of_right)
        return torch.cat([_drawn(self._left(right), of_left), right], self._dim)

    @torch.no_grad()
    def sampled(self, num_samples: int, sweeps: int, generator: torch.Generator | None) -> Tensor:
        """Codes [n, *sample] after annealed sweeps and as many at the machine itself."""
        b = self.latent(torch.zeros_like(self.bias)).sample(num_samples, generator=generator)
        for sweep in range(1, sweeps + 1):
            share = min(1.0, sweep / max(1, _ANNEALED * sweeps))
            b = self._at(share, share * self.bias).swept(b, self._noise(num_samples, generator))
        return b

    def annealed(
        self, start: Tensor, num_anneals: int, num_temperatures: int, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Log-weights [n] whose mean is Z over that of the start, and the logarithm of the start's.

        Arguments:
            start: logits of independent latents, flat.
            num_anneals: n.
            num_temperatures: steps from there to the machine.
            generator: of the noise.
        """
        here = self._at(0.0, start)
        b = self.latent(start).sample(num_anneals, generator=generator)
        left = here._parts(b)[0]
        log_weights = torch.zeros(num_anneals, dtype=start.dtype, device=start.device)
        log_start = self._log_start(start)
        for step in range(1, num_temperatures + 1):
            share = step / num_temperatures
            there = self._at(share, torch.lerp(start, self.bias, share))
            log_weights = log_weights + there.weigh_left(left) - here.weigh_left(left)
            b = there.swept(b, self._noise(num_anneals, generator))
            left, here = there._parts(b)[0], there
        return log_weights, log_start

    def _log_start(self, start: Tensor) -> Tensor:
        independent = self.latent(start)
        mode = independent.mode()
        return (independent.logits * mode).sum() - independent.log_prob(mode)

    def _at(self, share: float, bias: Tensor) -> _Machine:
        return _Machine(self.latent, bias, share * self.weight)

    def _noise(self, number: int, generator: torch.Generator | None) -> Tensor:
        shape = (number, *self.latent.sample_shape)
        return uniform_from(generator, shape, self.bias.device, self.bias.dtype)

    def _right(self, left: Tensor) -> Latent:
        """p(right | left)."""
        return self.halves[1](self._split(self.bias)[1] + 2 * self.halves[0].features(left) @ self.weight)

    def _left(self, right: Tensor) -> Latent:
        return self.halves[0](self._split(self.bias)[0] + 2 * self.halves[1].features(right) @ self.weight.T)

    def _features(self, b: Tensor) -> tuple[Tensor, Tensor]:
        return self._split(self.latent.features(b))

    def _split(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        first = self.halves[0].num_features
        return flat[..., :first], flat[..., first:]

    def _parts(self, sample: Tensor) -> tuple[Tensor, Tensor]:
        count = self.halves[0].num_variables
        return sample.narrow(self._dim, 0, count), sample.narrow(self._dim, count, sample.shape[self._dim] - count)

    @property
    def _dim(self) -> int:
        """Of the variables, in a sample."""
        return -self.latent.family.sample_dim


def _drawn(q: Latent, noise: Tensor) -> Tensor:
    return q.hard(q.relaxed(noise))


def _halves(latent: Spec) -> tuple[Spec, Spec]:
    first = latent.num_variables // 2
    return replace(latent, num_variables=first, grid=None), replace(latent, num_variables=latent.num_variables - first, grid=None)
