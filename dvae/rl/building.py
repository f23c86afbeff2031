"""Making agents from what a user gives."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from dvae.config import instantiate
from dvae.errors import InputError
from dvae.estimators import REINFORCE, GradientEstimator
from dvae.functional import caller
from dvae.latents import Categorical, Gaussian
from dvae.models.building import check_sizes
from dvae.rl.agent import Agent, stacked
from dvae.rl.environments import Spaces

__all__ = ["make_agents"]


def make_agents(given: Mapping[str, Any], spaces: Spaces, seeds: Sequence[int], normalize: bool) -> Agent:
    """Agents for an environment as one module, each with initial weights of its own seed.

    Arguments:
        given: estimator, policy and value: an object, a config, or None for the default (of value, for none).
        spaces: of the environment.
        seeds: of each agent.
        normalize: see :class:`Agent`.

    Raises:
        InputError: a network does not fit the environment or cannot be called for all agents at once, or the estimator is not for
            the kind of action.
    """
    with torch.random.fork_rng(devices=[]):
        agents = stacked([_agent(given, spaces, seed, normalize) for seed in seeds])
    _rehearse(agents, spaces)
    return agents


def _agent(given: Mapping[str, Any], spaces: Spaces, seed: int, normalize: bool) -> Agent:
    torch.manual_seed(seed)
    sizes = {"in_features": spaces.num_observations, "out_features": spaces.action.num_logits}
    default: dict[str, Any] = {"class_path": "dvae.rl.GaussianPolicy"}
    if spaces.action.family is Categorical:
        default = {"class_path": "dvae.networks.MLP", "init_args": {"hidden": [64, 64]}}
    parts = {"estimator": REINFORCE(), **{name: part for name, part in given.items() if part is not None}}
    # Together: what policy and value share, they share as copies too.
    parts |= copy.deepcopy({name: part for name, part in parts.items() if isinstance(part, nn.Module)})
    policy = instantiate(parts.get("policy", default), nn.Module, "policy", optional=sizes)
    value = parts.get("value")
    value = None if value is None else instantiate(value, nn.Module, "value", optional={**sizes, "out_features": 1})
    for name, network, size in (("policy", policy, sizes["out_features"]), ("value", value, 1)):
        if network is not None:
            check_sizes(network, name, spaces.num_observations, size)
    estimator = instantiate(parts["estimator"], GradientEstimator, "estimator")
    _require_suited(estimator, spaces)
    estimator.ensure_built(spaces.action.num_features, spaces.num_observations)
    return Agent(policy, value, estimator, spaces.action, spaces.num_observations, normalize)


_KINDS = {
    Categorical: ("one of several", "REINFORCE, NVIL or RELAX(black_box=True)"),
    Gaussian: ("vectors", "REINFORCE, NVIL or LAX"),
}


def _require_suited(estimator: GradientEstimator, spaces: Spaces) -> None:
    """An InputError where an estimator is not for the environment's actions, or asks for more than the reward of the one taken."""
    family, name = spaces.action.family, type(estimator).__name__
    kind, suited = _KINDS[family]
    if not issubclass(family, estimator.latents):
        own = not type(estimator).__module__.startswith("dvae.")
        hint = f"; a class of your own says latents = (dvae.latents.{family.__name__},)" if own else ""
        raise InputError(f"estimator must be for the environment's actions, which are {kind}, such as {suited}, got {name}{hint}")
    if estimator.num_samples != 1 or estimator.multi_sample:
        raise InputError(
            f"estimator must take one action a state, got {name} with num_samples={estimator.num_samples}, and nobody can take two "
            f"actions in one moment: take {suited}"
        )
    estimator.require_given()


def _rehearse(agents: Agent, spaces: Spaces) -> None:
    """An InputError where networks cannot be called for all agents at once."""
    observation = torch.zeros(len(agents.count), 1, spaces.num_observations)
    tensors = {name: tensor.detach() for name, tensor in (*agents.named_parameters(), *agents.named_buffers())}
    functions: dict[str, Any] = {"policy": lambda agent, seen: agent.policy(seen), "value": Agent.values}
    for name, function in functions.items():
        try:
            torch.vmap(caller(agents, function))(tensors, observation)
        except RuntimeError as error:
            reason = str(error).splitlines()[0][:200]
            raise InputError(
                f"{name} cannot be called for all agents at once by torch.vmap: take a network without dropout, statistics of a "
                f"batch and branches on values ({reason})"
            ) from None
