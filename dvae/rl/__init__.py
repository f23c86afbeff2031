"""Policies."""

from dvae.rl.advantages import Credit, credited
from dvae.rl.agent import Agent
from dvae.rl.arms import ARMS, Arm, Networks, ReleasedLAX, ReleasedRELAX
from dvae.rl.checkpoints import load
from dvae.rl.data import Rollouts
from dvae.rl.environments import Environments, Spaces, Transition
from dvae.rl.evaluation import Film, PolicyEvaluation, evaluate, film
from dvae.rl.module import PolicyGradient
from dvae.rl.policies import ActionSurrogate, GaussianPolicy, RelaxedSurrogate
from dvae.rl.replay import Replay
from dvae.rl.rollouts import Rollout, collect

__all__ = [
    "ARMS",
    "ActionSurrogate",
    "Agent",
    "Arm",
    "Credit",
    "Environments",
    "Film",
    "GaussianPolicy",
    "Networks",
    "PolicyEvaluation",
    "PolicyGradient",
    "RelaxedSurrogate",
    "ReleasedLAX",
    "ReleasedRELAX",
    "Replay",
    "Rollout",
    "Rollouts",
    "Spaces",
    "Transition",
    "collect",
    "credited",
    "evaluate",
    "film",
    "load",
]
