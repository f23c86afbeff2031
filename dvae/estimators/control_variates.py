"""The control-variate equation that REBAR, RELAX, LAX, MuProp and their kind share."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dvae.config import Module, import_class, instantiate
from dvae.functional import named_parameters
from dvae.latents import Latent

__all__ = ["Surrogate", "controlled", "weight_penalty"]


# The batch size of the published runs, in whose units a weight decay is stated (see RELAX).
PAPER_BATCH_SIZE = 24


def controlled(q: Latent, b: Tensor, value: Tensor, control: Tensor, gradient: Tensor) -> Tensor:
    r"""The score-function estimator with a control variate c whose expectation has a known gradient, [K, B, D].

    .. math:: g = (f(b) - c) \nabla \log q(b) + \nabla E[c]

    Unbiased whatever c is, if ``gradient`` estimates the gradient of E[c] without bias: that of its closed form, or of its
    reparameterization.

    Arguments:
        q: the distribution that b was drawn from.
        b: hard samples, [K, B, D].
        value: f(b), [K, B].
        control: c, [K, B].
        gradient: of E[c] with respect to the logits, [K, B, D].
    """
    return q.score(b, value - control) + gradient


class Surrogate:
    """The network of a control variate, as it was given: made at once, or when its sizes are known.

    Arguments:
        given: a module, a config, or None for a :class:`dvae.networks.SurrogateNetwork` of ``depth`` layers of ``hidden`` units. A
            config that does not say ``num_latents``, where its class takes it, waits for the problem's.
    """

    def __init__(self, given: nn.Module | Mapping[str, Any] | None, hidden: int, depth: int) -> None:
        self._given = _network("SurrogateNetwork", hidden, depth) if given is None else given
        self._on_grid = _network("SpatialSurrogate", hidden, depth) if given is None else given
        self.waits = isinstance(self._given, Mapping) and _leaves_sizes_open(self._given)

    def made(self, **sizes: int) -> nn.Module:
        """The network; of ``num_latents`` and ``num_context`` where it waited for them.

        Raises:
            InputError: it cannot be made so.
        """
        return instantiate(self._given, Module if isinstance(self._given, Mapping) else nn.Module, "network", optional=sizes)

    def made_on_grid(self, **sizes: Any) -> nn.Module:
        """The network of a code on a grid, by default a :class:`dvae.networks.SpatialSurrogate`, where it waited for its sizes.

        Arguments:
            sizes: ``num_latents``, ``num_context``, ``image_shape`` and ``stride``, of which it gets those that its class takes and
                its config leaves open.

        Raises:
            InputError: it cannot be made so.
        """
        return instantiate(self._on_grid, Module, "network", optional=sizes)


def _network(name: str, hidden: int, depth: int) -> dict[str, Any]:
    return {"class_path": f"dvae.networks.{name}", "init_args": {"hidden": hidden, "depth": depth}}


def _leaves_sizes_open(config: Mapping[str, Any]) -> bool:
    path = config.get("class_path")
    if not isinstance(path, str) or (config.get("init_args") or {}).get("num_latents") is not None:
        return False
    return "num_latents" in inspect.signature(import_class(path, Module, "network")).parameters


def weight_penalty(network: nn.Module | None, weight_decay: float, num_logits: int) -> Tensor | float:
    """The paper's weight decay of r, in the units of :class:`dvae.estimators.RELAX`; 0 where there is none."""
    if not weight_decay or network is None:
        return 0.0
    squares = [weight.square().sum() for _, weight in named_parameters(network) if weight.dim() > 1]
    return 0.5 * weight_decay * PAPER_BATCH_SIZE**2 * num_logits * torch.stack(squares).sum()
