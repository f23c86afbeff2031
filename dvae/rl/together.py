"""What is computed of R agents at once: each function of one agent, vectorized over them and traced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from dvae.functional import caller
from dvae.noise import place, uniform
from dvae.rl.agent import Agent, PhiObjective
from dvae.rl.rollouts import Rollout
from dvae.rl.traced import Traced

__all__ = ["Together"]


class Together:
    """R agents as functions of their tensors, which have a first dimension for them.

    Arguments:
        agents: as of :func:`dvae.rl.agent.stacked`; read whenever a function is called.
        phi_objective: see :meth:`Agent.second_moment`.
        compile: see :class:`dvae.rl.traced.Traced`.
    """

    def __init__(self, agents: Agent, phi_objective: PhiObjective, compile: bool = False) -> None:
        self.agents = agents
        self._cut: list[tuple[Tensor, Tensor]] = []
        self._noise: dict[tuple[int, ...], Traced] = {}
        self._compile = compile

        def joint(agent: Agent, rollout: Rollout, credit: Tensor, values: Tensor, noise: Tensor, entropy_bonus: Tensor) -> Any:
            loss, (metrics, buffers) = agent.loss(rollout, credit - values, noise, entropy_bonus, phi_objective)
            if agent.value is not None:
                value_loss = agent.value_loss(rollout, credit)
                loss, metrics = loss + value_loss, {**metrics, "value_loss": value_loss.detach()}
            return loss, (metrics, buffers)

        def phi(agent: Agent, rollout: Rollout, credit: Tensor, values: Tensor, noise: Tensor) -> Any:
            grad, _ = agent.gradients(rollout, credit - values, noise)
            return agent.second_moment(rollout, grad, phi_objective) + agent.estimator.penalty(grad[0].numel()), ()

        def value(agent: Agent, rollout: Rollout, credit: Tensor) -> Any:
            return agent.value_loss(rollout, credit), ()

        def logits(agent: Agent, observation: Tensor) -> Tensor:
            return agent.distribution(observation).logits

        def vectorized(function: Callable[..., Any]) -> Traced:
            return Traced(torch.vmap(caller(agents, function)), compile)

        self._act, self._values = vectorized(Agent.act), vectorized(Agent.values)
        self._logits, self._observe, self._divergence = vectorized(logits), vectorized(Agent.observe), vectorized(Agent.divergence)
        self._joint, self._phi, self._value = (Traced(_differentiated(agents, loss), compile) for loss in (joint, phi, value))

    def tensors(self) -> dict[str, Tensor]:
        """All parameters and buffers by name."""
        parameters, buffers = self._split()
        return parameters | buffers

    def acting(self) -> dict[str, Tensor]:
        """The tensors that :meth:`act` needs, fewer of which are faster to hand over."""
        return {name: tensor for name, tensor in self.tensors().items() if not name.startswith(("value.", "estimator."))}

    def noise(self, streams: Tensor, iteration: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Uniform noise [R, *shape] of an iteration, from each agent's stream; see :func:`dvae.noise.place`."""
        if shape not in self._noise:
            self._noise[shape] = Traced(lambda streams, iteration: uniform(place(streams, iteration), shape), self._compile)
        return self._noise[shape](streams, iteration)

    def act(self, tensors: Mapping[str, Tensor], observation: Tensor, noise: Tensor) -> Tensor:
        """Samples [R, N, *sample] of agents with the tensors of :meth:`acting`."""
        return self._act(tensors, observation, noise)

    def values(self, observation: Tensor) -> Tensor:
        """V, [R, *]."""
        return self._values(self.tensors(), observation)

    def logits(self, observation: Tensor) -> Tensor:
        """The policies' logits, [R, *, *logits]."""
        return self._logits(self.tensors(), observation)

    def observe(self, rollout: Rollout) -> None:
        """Take a rollout into the statistics of observations."""
        self.set_buffers(self._observe(self.tensors(), rollout))

    def divergence(self, rollout: Rollout, logits: Tensor) -> Tensor:
        """Mean KL of the policies' from what they were, [R]."""
        return self._divergence(self.tensors(), rollout.observation, logits, rollout.weight)

    def joint(self, rollout: Rollout, credit: Tensor, values: Tensor, noise: Tensor, entropy_bonus: float) -> dict[str, Tensor]:
        """Give policy, V and phi the gradients of their losses, advance the estimators' statistics; metrics [R] by name."""
        bonus = torch.full((rollout.weight.shape[0],), entropy_bonus)
        gradients, (metrics, buffers) = self._joint(*self._split(), rollout, credit, values, noise, bonus)
        self._assign(gradients, "")
        self.set_buffers({f"estimator.{name}": tensor for name, tensor in buffers.items()})
        return metrics

    def phi(self, rollout: Rollout, credit: Tensor, values: Tensor, noise: Tensor) -> None:
        """Give phi alone its gradient."""
        self._assign(self._phi(*self._split(), rollout, credit, values, noise)[0], "estimator.")

    def value(self, rollout: Rollout, credit: Tensor) -> None:
        """Give V alone its gradient."""
        self._assign(self._value(*self._split(), rollout, credit)[0], "value.")

    def set_buffers(self, values: Mapping[str, Tensor]) -> None:
        """Change buffers in place."""
        _, own = self._split()
        for name, tensor in values.items():
            own[name].copy_(tensor)

    def _split(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        # Cut from their graph once: a module's tensors are changed in place, unless it is moved or gets another precision.
        if any(old.data_ptr() != own.data_ptr() or old.dtype != own.dtype for own, old in self._cut):
            self._cut = []
        if not self._cut:
            self._named = dict(self.agents.named_parameters())
            self._parameters = {name: tensor.detach() for name, tensor in self._named.items()}
            self._buffers = {name: tensor.detach() for name, tensor in self.agents.named_buffers()}
            self._cut = list(zip(self._named.values(), self._parameters.values(), strict=True))
        return self._parameters, self._buffers

    def _assign(self, gradients: Mapping[str, Tensor], prefix: str) -> None:
        for name, parameter in self._named.items():
            parameter.grad = gradients[name] if parameter.requires_grad and name.startswith(prefix) else None


def _differentiated(agents: Agent, loss: Callable[..., Any]) -> Callable[..., Any]:
    """``(parameters, buffers, ...)`` of all agents to each one's gradients and what its loss gives beside its value."""
    call = caller(agents, loss)

    def of_parameters(parameters: dict[str, Tensor], buffers: dict[str, Tensor], *batch: Any) -> Any:
        return call(parameters | buffers, *batch)

    return torch.vmap(torch.func.grad(of_parameters, has_aux=True))
