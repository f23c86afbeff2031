"""What may be turned while a model is trained: the weight of the KL, how much of it is free, and whom its gradient pulls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dvae.config import Module
from dvae.errors import InputError
from dvae.estimators import GradientEstimator
from dvae.functional import frozen
from dvae.latents import Latent
from dvae.objectives import ELBOTerms
from dvae.priors import Prior

__all__ = ["CONTROLS", "Controls", "require_in_range"]

CONTROLS = ("beta", "free_bits", "kl_balance")
"""Names of :class:`Controls`, which are arguments of a model, too."""


def require_in_range(name: str, value: float) -> None:
    """An InputError where a control cannot have this value."""
    if name == "kl_balance":
        fits, expected = 0 < value < 1, "between 0 and 1"
    else:
        fits, expected = 0 <= value < math.inf, "a finite number of at least 0"
    if not fits:
        raise InputError(f"{name} must be {expected}, got {value}")


class Controls(Module):
    r"""The part of a model that holds the numbers of its objective.

    .. math:: \log p(x|b) - \beta \max(\text{KL}, \text{free bits})

    They are buffers, scalar tensors of the model's type: a compiled step, replicas and checkpoints see what they are now, and
    assigning a number changes them in place. ``free_bits`` and ``kl_balance`` are None where the model was made without them.

    Example:
        >>> model = dvae.VAE(num_pixels=6, num_latents=4, beta=2.0)
        >>> model.beta = 0.5
        >>> model.beta
        tensor(0.5000)
    """

    kl: str
    prior: Prior
    estimators: Sequence[GradientEstimator]
    _beta: Tensor
    _free_bits: Tensor | None
    _kl_balance: Tensor | None

    def hold(self, beta: float, free_bits: float | None, kl_balance: float | None) -> None:
        """Make the buffers; called once, by the model's constructor, when the rest is there.

        Raises:
            InputError: a value is outside its range, or does not go together with the model's ``kl`` or estimator.
        """
        for name, value in zip(CONTROLS, (beta, free_bits, kl_balance), strict=True):
            self.register_buffer(f"_{name}", None if value is None else torch.tensor(float(value)))
            if value is None or (name, value) == ("beta", 1):
                continue
            require_in_range(name, value)
            self.require_control(name)
            if name != "beta" and self.kl != "analytic":
                raise InputError(f"{name} needs the KL in closed form, kl='analytic', got {name}={value} with kl={self.kl!r}")

    def require_control(self, name: str) -> None:
        """An InputError where this control cannot be another than its default."""
        estimator = self.estimators[0]
        if estimator.multi_sample:
            raise InputError(
                f"{name} is not for the K-sample bound of {type(estimator).__name__}, which has no KL of its own: leave it "
                "out, or take an estimator of the ELBO such as LOO"
            )
        if getattr(self, f"_{name}") is None:
            raise InputError(f"{name} is no part of the step of a model that was made without it: make the model with {name}=...")

    def _turn(self, name: str, value: float) -> None:
        self.require_control(name)
        require_in_range(name, float(value))
        getattr(self, f"_{name}").fill_(value)

    @property
    def beta(self) -> Tensor:
        """The weight of the KL in the objective, [] (Higgins et al. 2017)."""
        return self._beta

    @beta.setter
    def beta(self, value: float) -> None:
        self._turn("beta", value)

    @property
    def free_bits(self) -> Tensor | None:
        """Nats of an example's KL that cost nothing, [] (Kingma et al. 2016)."""
        return self._free_bits

    @free_bits.setter
    def free_bits(self, value: float) -> None:
        self._turn("free_bits", value)

    @property
    def kl_balance(self) -> Tensor | None:
        """The prior's share of the KL's gradient, [] (Hafner et al. 2021)."""
        return self._kl_balance

    @kl_balance.setter
    def kl_balance(self, value: float) -> None:
        self._turn("kl_balance", value)

    def charged(self, kl: Tensor) -> Tensor:
        """What the objective charges ``beta`` times for a KL: all of it, or no less than the free bits, [K, B]."""
        return kl if self._free_bits is None else torch.where(kl > self._free_bits, kl, self._free_bits)

    def balanced(self, terms: ELBOTerms, top: Latent) -> ELBOTerms:
        """The terms, of unchanged values, with the gradient of the closed part of the KL shared as ``kl_balance`` says.

        Arguments:
            terms: what training maximises is made of; an estimator's f is not, for its values are what counts there.
            top: the top layer's distribution.
        """
        if self._kl_balance is None:
            return terms
        prior, share = self.prior, self._kl_balance
        change = share * prior.kl(top.detach()) + (1 - share) * frozen(prior, type(prior).kl)(top) - prior.kl(top)
        return terms._replace(kl=terms.kl + (change - change.detach()))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Checkpoints of a time when there was no beta.
        state_dict.setdefault(f"{prefix}_beta", self._beta)
        super()._load_from_state_dict(state_dict, prefix, *args)
