"""The LightningModule that trains agents with policy gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from dvae.config import Configurable, instantiate, public_path
from dvae.errors import InputError, NonFiniteError
from dvae.estimators import GradientEstimator
from dvae.latents import Latent, Spec
from dvae.models.building import require_at_least
from dvae.noise import noise_stream
from dvae.rl.advantages import Credit, credited
from dvae.rl.agent import Agent, PhiObjective, single
from dvae.rl.building import make_agents
from dvae.rl.environments import Spaces
from dvae.rl.replay import Replay
from dvae.rl.rollouts import Rollout
from dvae.rl.together import Together
from dvae.training import lightning

__all__ = ["PolicyGradient"]

# Separates the noise of actions from that of updates under one seed.
_ACT, _UPDATE = 0, 1
_STEPS_OF_NOISE = 32
_WORTH_COMPILING = 100_000
_MOST_SCALINGS = 20
_EPISODES_IN_MEAN = 100

DEFAULT_VALUE = {"class_path": "dvae.networks.MLP", "init_args": {"hidden": [64, 64]}}


class PolicyGradient(Configurable, pl.LightningModule):
    r"""Agents trained with the policy gradient, whose estimator is pluggable.

    .. math::
        g_t = (R_t - V(s_t) - c_\phi(\tilde z_t, s_t)) \nabla \log \pi(a_t | s_t) + \nabla c_\phi(z_t, s_t)
            - \nabla c_\phi(\tilde z_t, s_t)

    with respect to the policy's logits, for RELAX; other estimators have other c, or none. Estimators that need the reward at the
    action taken alone are taken. The batches are :class:`dvae.rl.Rollouts`. Several agents of different seeds are trained in one
    run, updated together and independent of each other: every tensor has one more first dimension, R.

    Manual optimization: policy, value function and phi are three groups of one optimizer. The policy moves along a gradient whose
    baselines have not seen the rollout; then V and phi are fitted to it further, as ``value_steps`` and ``phi_steps`` say.

    Arguments:
        estimator: of the gradient: an object or its config; REINFORCE by default. Of this and the next two, an object is copied for
            each agent, so that all begin with its weights and it stays as it is (:meth:`extract` gives the trained ones); a config
            is made anew for each. Networks are called for all agents at once by ``torch.vmap``: no dropout, no statistics of a
            batch, no branches on values.
        policy: observations [*, O] to flat logits, or its config; an MLP of two layers of 64 by default, of
            :class:`dvae.rl.GaussianPolicy` where actions are vectors.
        value: V, observations [*, O] to [*, 1], or its config; None for no value function.
        num_observations: O; the environment's where it is None.
        latent: what an action is, Categorical or Gaussian; the environment's where it is None, as the next two.
        num_latents: of how many parts an action is.
        num_classes: how many actions there are to choose from.
        num_seeds: R, independent agents, of seeds ``seed``, ``seed + 1``, ...
        credit: what an action is credited with: ``"returns"``, which has no bias and needs whole episodes, ``"bootstrapped"`` or
            ``"gae"``, biased by the error of V. A surrogate adds no bias to any of them. See :func:`dvae.rl.credited`.
        discount: gamma, in [0, 1].
        gae_lambda: lambda of ``credit="gae"``, in [0, 1].
        entropy_bonus: weight of the policy's entropy, added up over steps as rewards are.
        phi_objective: ``"step"``, the mean square of the gradient with respect to the logits, or ``"episode"``, the paper's: the
            square of what an episode adds to the gradient of the policy's parameters.
        phi_steps: fits of phi for each update of the policy. The relaxed action of further fits is drawn given the one taken, at
            the parameters of the moment.
        value_steps: fits of V for each update of the policy.
        replay: rollouts kept for the further fits of phi, which draws one for each; 0 for fits to the latest alone.
        lr: learning rate of the policy.
        value_lr: of V; as ``lr`` where it is None.
        phi_lr: of phi; as ``lr`` where it is None.
        optimizer: a config of another class of ``torch.optim`` than Adam.
        betas: of Adam.
        eps: of Adam.
        gradient_clip_norm: largest norm of the policy's gradient of each agent; None for no clipping.
        kl_limit: largest mean KL(before || after) of an update of the policy over the rollout's states; the update is scaled down
            to it. None for no limit.
        normalize: whether networks see observations less their running mean, over their standard deviation.
        solved_at: an agent has solved its task when the mean reward of its last 100 episodes is above this; None for no such bound.
        stop_when_solved: end the run when all agents have.
        max_environment_steps: end it when each agent has taken so many steps; None for as long as the Trainer says.
        compile: compile the mathematics, about half a minute for each length of rollouts; "auto" does so in runs of at least
            100,000 steps. It changes no more than the last bits.
        seed: of weights and noise of the first agent; PyTorch's seed where it is None.

    Raises:
        InputError: an argument is outside its range, or the estimator asks for more than the reward of the action taken.

    References:
        Williams, *Simple statistical gradient-following algorithms for connectionist reinforcement learning*, Machine Learning 8,
        1992.

        Grathwohl, Choi, Wu, Roeder & Duvenaud, *Backpropagation through the Void: Optimizing control variates for black-box
        gradient estimation*, 2018. https://arxiv.org/abs/1711.00123
    """

    def __init__(
        self,
        estimator: GradientEstimator | dict[str, Any] | None = None,
        policy: nn.Module | dict[str, Any] | None = None,
        value: nn.Module | dict[str, Any] | None = DEFAULT_VALUE,
        *,
        num_observations: int | None = None,
        latent: str | type[Latent] | None = None,
        num_latents: int | None = None,
        num_classes: int | None = None,
        num_seeds: int = 1,
        credit: Credit = "returns",
        discount: float = 0.99,
        gae_lambda: float = 0.95,
        entropy_bonus: float = 0.0,
        phi_objective: PhiObjective = "step",
        phi_steps: int = 1,
        value_steps: int = 1,
        replay: int = 0,
        lr: float = 1e-3,
        value_lr: float | None = None,
        phi_lr: float | None = None,
        optimizer: dict[str, Any] | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        gradient_clip_norm: float | None = None,
        kl_limit: float | None = None,
        normalize: bool = False,
        solved_at: float | None = None,
        stop_when_solved: bool = False,
        max_environment_steps: int | None = None,
        compile: bool | Literal["auto"] = "auto",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.save_hyperparameters(self.config["init_args"])
        require_at_least(1, num_seeds=num_seeds, phi_steps=phi_steps, value_steps=value_steps)
        require_at_least(0, replay=replay, lr=lr, value_lr=value_lr or 0.0, phi_lr=phi_lr or 0.0, entropy_bonus=entropy_bonus)
        for name, number in {"discount": discount, "gae_lambda": gae_lambda}.items():
            if not 0 <= number <= 1:
                raise InputError(f"{name} must be from 0 to 1, got {number}")
        for name, given, known in (
            ("credit", credit, ("returns", "bootstrapped", "gae")),
            ("phi_objective", phi_objective, ("step", "episode")),
        ):
            if given not in known:
                raise InputError(f"{name} must be one of {', '.join(known)}, got {given!r}")
        for name, bound in {"kl_limit": kl_limit, "gradient_clip_norm": gradient_clip_norm}.items():
            if bound is not None and not bound > 0:
                raise InputError(f"{name} must be positive or None, got {bound}")
        if value is None and credit != "returns":
            raise InputError(f"credit={credit!r} needs a value function, got value=None: take credit='returns', or give one")
        self._given = {"estimator": estimator, "policy": policy, "value": value}
        self.num_seeds = num_seeds
        self.credit, self.discount, self.gae_lambda = credit, discount, gae_lambda
        self.entropy_bonus, self.phi_objective = entropy_bonus, phi_objective
        self.phi_steps, self.value_steps = phi_steps, value_steps
        self.lr, self.value_lr, self.phi_lr = lr, lr if value_lr is None else value_lr, lr if phi_lr is None else phi_lr
        self.compile_step = compile
        self.optimizer_config, self.betas, self.eps = optimizer, (betas[0], betas[1]), eps
        self.gradient_clip_norm, self.kl_limit = gradient_clip_norm, kl_limit
        self.normalize, self.solved_at = normalize, solved_at
        self.stop_when_solved, self.max_environment_steps = stop_when_solved, max_environment_steps
        self.seed = torch.initial_seed() if seed is None else seed
        self.iteration = 0
        self.replay = Replay(replay)
        self.agent: Agent | None = None
        # Of each agent's episodes so far, in their order: reward, and the agent's steps when it ended.
        self.episodes: list[list[tuple[float, int]]] = [[] for _ in range(num_seeds)]
        self.num_steps = [0] * num_seeds
        self.solved: list[tuple[int, int] | None] = [None] * num_seeds  # after how many episodes, and steps
        # Of each update but the first, [R]; see _measure_variance.
        self.gradient_variance: list[Tensor] = []
        self._last_gradient: Tensor | None = None
        self._acting: Any = None
        self._functions: Together | None = None
        if num_observations is not None and latent is not None and num_latents is not None:
            self.build(Spaces(num_observations, Spec.of(latent, num_latents, num_classes)))

    # Building

    def build(self, spaces: Spaces) -> None:
        """Make the agents for an environment, each with initial weights of its own seed; called once.

        Raises:
            InputError: a network does not fit the environment, or the estimator the kind of action.
        """
        arguments = {
            "num_observations": spaces.num_observations,
            "latent": spaces.action.family.__name__,
            "num_latents": spaces.action.num_variables,
            "num_classes": spaces.action.num_classes,
        }
        for name, value in arguments.items():
            given = self.config["init_args"].get(name)
            if given not in (None, value, f"dvae.latents.{value}"):
                raise InputError(f"{name} must be the environment's, {value}, got {given}")
            self.record_argument(name, value)
        self.save_hyperparameters(self.config["init_args"])
        self.agent = make_agents(self._given, spaces, [self.seed + index for index in range(self.num_seeds)], self.normalize)

    @property
    def agents(self) -> Agent:
        """The agents as one module, whose tensors have a first dimension for them.

        Raises:
            InputError: the model has not met its environment.
        """
        if self.agent is None:
            raise InputError(
                "num_observations, latent and num_latents must be given where a model is used before it was fitted: those of the "
                "environment"
            )
        return self.agent

    def extract(self, index: int = 0) -> Agent:
        """One agent as a module of its own, to act with.

        Raises:
            InputError: there is none of that index.
        """
        if not 0 <= index < self.num_seeds:
            raise InputError(f"index must be from 0 to {self.num_seeds - 1}, got {index}")
        return single(self.agents, index).eval()

    # Acting

    def act(self, observation: Tensor, step: int) -> Tensor:
        """Samples [R, N, *sample] for observations [R, N, O] of this iteration's rollout; asked for one step after the other."""
        chunk, place_in = divmod(step, _STEPS_OF_NOISE)
        if place_in == 0:
            shape = (_STEPS_OF_NOISE, observation.shape[1], *self.agents.action.sample_shape)
            self._acting = self.together.acting(), self._noise(_ACT, shape, chunk).unbind(1)
        tensors, noise = self._acting
        return self.together.act(tensors, observation, noise[place_in])

    def _noise(self, kind: int, shape: Sequence[int], *counters: int) -> Tensor:
        """Uniform noise [R, *shape], a function of seeds, iteration and counters."""
        streams = [noise_stream(self.seed + index, kind, *counters) for index in range(self.num_seeds)]
        return self.together.noise(torch.tensor(streams), torch.tensor(self.iteration), tuple(shape))

    @property
    def together(self) -> Together:
        """What is computed of all agents at once."""
        if self._functions is None or self._functions.agents is not self.agents:
            self._functions = Together(self.agents, self.phi_objective, self.compiles)
        return self._functions

    @property
    def compiles(self) -> bool:
        """Whether this run's mathematics is compiled."""
        if self.compile_step != "auto":
            return self.compile_step
        steps = self.max_environment_steps or (self.trainer.max_steps if lightning.is_attached(self) else 0)
        return steps >= _WORTH_COMPILING

    # Training

    def setup(self, stage: str) -> None:
        spaces = getattr(lightning.data_module_of(self), "spaces", None)
        if spaces is None:
            raise InputError("data must be dvae.rl.Rollouts, or a data module with the environment's spaces")
        if self.agent is None:
            self.build(spaces)
        if self.trainer.world_size > 1:
            raise InputError(f"agents are trained by one process, got {self.trainer.world_size}: give the Trainer devices=1")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        agent = self.agents
        named = {"policy": (agent.policy, self.lr), "value": (agent.value, self.value_lr), "phi": (agent.estimator, self.phi_lr)}
        groups: list[Any] = []
        seen: set[Tensor] = set()  # what policy and value share is the policy's
        for name, (module, lr) in named.items():
            own = [] if module is None else [part for part in module.parameters() if part.requires_grad and part not in seen]
            seen.update(own)
            if own:
                groups.append({"params": own, "lr": lr, "name": name})
        if self.optimizer_config is None:
            return torch.optim.Adam(groups, betas=self.betas, eps=self.eps, fused=True)
        return instantiate(self.optimizer_config, torch.optim.Optimizer, "optimizer", params=groups)

    def training_step(self, rollout: Rollout, batch_idx: int) -> None:
        if self.credit == "returns" and not rollout.whole.all():
            raise InputError("credit='returns' needs whole episodes, got a fixed num_steps: leave it out, or take credit='gae'")
        part = rollout.padded() if rollout.whole.all() else rollout
        limited = self.kl_limit is not None
        before = [parameter.detach().clone() for parameter in self.agents.policy.parameters()] if limited else []
        logits = self.together.logits(part.observation) if limited else None
        credit, metrics = self.differentiate(part)
        self._require_finite(metrics)
        self._measure_variance()
        self._clip()
        optimizer: Any = self.optimizers()
        optimizer.step()
        if logits is not None:
            metrics["kl"] = self._limit(part, before, logits)
        self._fit_further(part, credit)
        if self.normalize:
            self.together.observe(part)
        self.iteration += 1
        self._count(rollout)
        self._log(metrics)

    def differentiate(self, rollout: Rollout) -> tuple[Tensor, dict[str, Tensor]]:
        """Give policy, V and phi the gradients of a rollout's losses; what was credited, [R, T, N], and metrics [R]."""
        if self.credit == "returns":
            next_values = values = self.together.values(rollout.observation)
        else:
            both = torch.cat([rollout.observation, rollout.next_observation], 1)
            values, next_values = self.together.values(both).chunk(2, 1)
        given = (rollout.reward, values, next_values, rollout.terminated, rollout.ended)
        credit = credited(self.credit, *given, self.discount, self.gae_lambda)
        return credit, self.together.joint(rollout, credit, values, self.update_noise(rollout, 0), self.entropy_bonus)

    def update_noise(self, rollout: Rollout, fit: int) -> Tensor:
        """Uniform noise of an update of the current iteration, [R, num_noise, 1, T N, *sample]; of each of its fits."""
        estimator, (_, num_steps, num_envs, *sample) = self.agents.estimator, rollout.action.shape
        return self._noise(_UPDATE, (estimator.num_noise, 1, num_steps * num_envs, *sample), fit)

    def _require_finite(self, metrics: Mapping[str, Tensor]) -> None:
        """A NonFiniteError where an update is not, before it is done."""
        if torch.stack(list(metrics.values())).isfinite().all():
            return
        culprits = {name: values.isfinite().logical_not().nonzero().flatten().tolist() for name, values in metrics.items()}
        named = ", ".join(f"{name} (agent {', '.join(map(str, own))})" for name, own in culprits.items() if own)
        raise NonFiniteError(
            f"the update of iteration {self.iteration} is not finite: {named}. The parameters are those of the update before"
        )

    def _measure_variance(self) -> None:
        r"""Trace of the covariance of the policy's gradient, from two in a row: :math:`E|g - g'|^2 / 2`, as it hardly moves."""
        gradient = torch.cat([own.grad.flatten(1) for own in self.agents.policy.parameters() if own.grad is not None], 1)
        if self._last_gradient is not None:
            self.gradient_variance.append(0.5 * (gradient - self._last_gradient).square().sum(1))
        self._last_gradient = gradient

    def _clip(self) -> None:
        if self.gradient_clip_norm is None:
            return
        gradients = [parameter.grad for parameter in self.agents.policy.parameters() if parameter.grad is not None]
        squares = torch.stack([gradient.square().flatten(1).sum(1) for gradient in gradients]).sum(0)
        factor = (self.gradient_clip_norm / (squares.sqrt() + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(factor.view(-1, *[1] * (gradient.dim() - 1)))

    @torch.no_grad()
    def _limit(self, rollout: Rollout, before: Sequence[Tensor], logits: Tensor) -> Tensor:
        """Scale each agent's update of its policy down to the limit; the divergences that are left, [R].

        The KL grows about as the square of the step, so that a few scalings are enough.
        """
        assert self.kl_limit is not None
        after = [parameter.detach().clone() for parameter in self.agents.policy.parameters()]
        scale = torch.ones(self.num_seeds)
        for _ in range(_MOST_SCALINGS):
            divergence = self.together.divergence(rollout, logits)
            too_far = divergence > 1.02 * self.kl_limit
            if not too_far.any():
                break
            scale = torch.where(too_far, scale * (self.kl_limit / divergence.clamp(min=1e-12)).sqrt().clamp(max=0.98), scale)
            for parameter, old, new in zip(self.agents.policy.parameters(), before, after, strict=True):
                parameter.copy_(old + scale.view(-1, *[1] * (old.dim() - 1)) * (new - old))
        return divergence

    def _fit_further(self, rollout: Rollout, credit: Tensor) -> None:
        """The fits of V and of phi beyond the joint step."""
        optimizer: Any = self.optimizers(use_pl_optimizer=False)  # which Lightning does not count
        together = self.together
        for _ in range(self.value_steps - 1 if self.agents.value is not None else 0):
            together.value(rollout, credit)
            optimizer.step()
        self.replay.add(rollout, credit)
        for fit in range(1, self.phi_steps if self.agents.has_phi else 0):
            old, old_credit = self.replay.draw(self.seed, self.iteration, fit)
            together.phi(old, old_credit, together.values(old.observation), self.update_noise(old, fit))
            optimizer.step()

    # Episodes

    def _count(self, rollout: Rollout) -> None:
        """Take note of the episodes that ended, in the order of their ends."""
        counts, reward = rollout.counts.sum(2).cumsum(1), rollout.episode_reward
        for index in range(self.num_seeds):
            for step, env in (~reward[index].isnan()).nonzero().tolist():
                steps = self.num_steps[index] + int(counts[index, step])
                self.episodes[index].append((float(reward[index, step, env]), steps))
                if self.solved[index] is None and self._solves(index):
                    self.solved[index] = (len(self.episodes[index]), steps)
            self.num_steps[index] += int(counts[index, -1])
        if self.is_done:
            self.trainer.should_stop = True

    @property
    def is_done(self) -> bool:
        """Whether the agents have taken as many steps as they were to, or have solved their tasks where that is to end the run."""
        taken = self.max_environment_steps is not None and min(self.num_steps) >= self.max_environment_steps
        return taken or (self.stop_when_solved and None not in self.solved)

    def _solves(self, index: int) -> bool:
        if self.solved_at is None or len(self.episodes[index]) < _EPISODES_IN_MEAN:
            return False
        return self.mean_reward(index) > self.solved_at

    def mean_reward(self, index: int) -> float:
        """Of an agent's last 100 episodes; NaN where none has ended."""
        last = self.episodes[index][-_EPISODES_IN_MEAN:]
        return sum(reward for reward, _ in last) / len(last) if last else float("nan")

    def _log(self, metrics: Mapping[str, Tensor]) -> None:
        if not lightning.logs_now(self.trainer):
            return
        rewards = [self.mean_reward(index) for index in range(self.num_seeds)]
        self.log("train/reward", sum(rewards) / self.num_seeds, prog_bar=True)
        if self.num_seeds > 1:
            self.log_dict({f"train/reward/{index}": reward for index, reward in enumerate(rewards)})
        self.log("train/environment_steps", float(sum(self.num_steps)) / self.num_seeds)
        self.log("train/episodes", float(sum(map(len, self.episodes))) / self.num_seeds)
        if self.gradient_variance:
            metrics = {**metrics, "gradient_variance": self.gradient_variance[-1]}
        self.log_dict({f"train/{name}": values.mean() for name, values in metrics.items()})

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["dvae"] = {
            "class_path": public_path(type(self)),
            "data": getattr(lightning.data_module_of(self), "config", None),
            "format": 2,
            "seed": self.seed,
            "iteration": self.iteration,
            "episodes": [torch.tensor(own, dtype=torch.float64).view(-1, 2) for own in self.episodes],
            "num_steps": list(self.num_steps),
            "solved": [None if own is None else list(own) for own in self.solved],
            "replay": self.replay.state(),
            "gradient_variance": torch.stack(self.gradient_variance) if self.gradient_variance else None,
            "last_gradient": self._last_gradient,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        saved = checkpoint["dvae"]
        if len(saved.get("num_steps", [])) != self.num_seeds:
            raise InputError(f"the checkpoint is of {len(saved.get('num_steps', []))} agents, expected num_seeds={self.num_seeds}")
        self.seed, self.iteration = saved["seed"], saved["iteration"]
        self.episodes = [[(reward, int(steps)) for reward, steps in own.tolist()] for own in saved["episodes"]]
        self.num_steps = list(saved["num_steps"])
        self.solved = [None if own is None else (own[0], own[1]) for own in saved["solved"]]
        self.replay.restore(saved["replay"])
        variances = saved.get("gradient_variance")
        self.gradient_variance = [] if variances is None else list(variances.unbind())
        self._last_gradient = saved.get("last_gradient")
