r"""Policies: agents in environments of gymnasium, trained with the library's gradient estimators.

``pip install 'discrete-vae[rl]'`` brings gymnasium with Box2D and MuJoCo; for CartPole and certificates gymnasium alone is
enough.

The one idea: an environment tells the value of the action that was taken, and no other. So an estimator's second half is asked
with a value from outside, `GradientEstimator.given`: REINFORCE and its baselines, LAX, and RELAX with `black_box=True` can do
with that,

.. math::
    g_t = (R_t - V(s_t) - c_\phi(\tilde z_t, s_t)) \nabla \log \pi(a_t | s_t) + \nabla c_\phi(z_t, s_t)
        - \nabla c_\phi(\tilde z_t, s_t)

and the others say so. The relaxed action z is drawn given the action at the parameters of the moment, so that actions of earlier
policies can train a surrogate too.

```python
# five agents of different seeds, trained side by side
import pytorch_lightning as pl

import dvae

surrogate = {"class_path": "dvae.rl.RelaxedSurrogate"}
model = dvae.rl.PolicyGradient(dvae.estimators.RELAX(black_box=True, network=surrogate), num_seeds=5, lr=0.01, seed=0)
data = dvae.rl.Rollouts("CartPole-v1", max_episode_steps=200)
trainer = pl.Trainer(max_steps=20, enable_progress_bar=False, enable_model_summary=False, logger=False)
trainer.fit(model, datamodule=data)
print([round(model.mean_reward(agent)) for agent in range(5)])
```

From the shell, with a progress bar, checkpoints and exact resume as everywhere:

```bash
dvae rl fit --config cartpole_relax --model.num_seeds 3 --model.max_environment_steps 3000
dvae rl evaluate runs/cartpole_relax --episodes 20
dvae rl variance runs/cartpole_relax --estimators '[A2C, RELAX]' --num_fits 10 --num_rollouts 10
dvae rl certify --estimators '[RELAX]' --num_episodes 20000
```

`Rollouts` collects whole episodes, or a fixed number of steps; in single environments, whose episodes begin with seeds of their
own, or in a vector environment, whose dummy step of a reset is masked. `PolicyGradient` updates policy, V and phi in one step
of one optimizer, then fits V and phi further. The action is credited with `returns` (no bias), `bootstrapped` returns or `gae`
(biased by as much as V is wrong); a surrogate adds no bias to any of them. A policy network, a surrogate, an estimator or a
wrapper of one's own is an argument; a subclass of `PolicyGradient` may change the rest.

Environment steps a second on CartPole through the whole training loop (`dvae rl benchmark`; 8 environments an agent, 5 steps an
update, one thread): one agent 5,414, ten at once 19,148, stable-baselines3's A2C 3,874. Until CartPole is solved, with that
library's settings on both sides and each library's own initial weights (`dvae rl benchmark --solve 10`), means of 10 agents:
93,106 ± 8,588 steps here and 90,504 ± 11,226 there at its learning rate, 59,298 ± 4,590 and 41,850 ± 2,762 at .003.

# An honest comparison

The arms of `dvae rl compare` are: no baseline; V fitted to the returns (A2C); a baseline of the state alone that is trained on
the variance, as a surrogate is; RELAX or LAX; and both as they were released with the paper, which are biased.

```
dvae rl compare --config cartpole_a2c --lr 0.003,0.01 --seeds 20 \
  --estimators '[REINFORCE, A2C, StateBaseline, RELAX, ReleasedRELAX]'
```

The row of phi per episode is `--model.phi_objective episode`. Episodes until the mean reward of 100 is above 195 on CartPole
with its limit of 200 steps: mean and standard error over the agents that got there, of 20; in brackets how many did not within
some 160,000 steps. Published (Grathwohl et al. 2018): A2C 1152 ± 90, RELAX 472 ± 114.

| estimator | Adam .003 | Adam .01 |
|---|---|---|
| no baseline | 631 ± 49 | 667 ± 93 (7) |
| A2C | 436 ± 23 | 451 ± 44 |
| state alone, trained on the variance | 496 ± 34 | 432 ± 41 |
| RELAX, phi per step | 396 ± 16 | 438 ± 52 (1) |
| RELAX, phi per episode | 448 ± 29 | 429 ± 34 (1) |
| released RELAX, biased | 394 ± 16 | 359 ± 38 (1) |

![Reward and gradient variance on CartPole](../../.github/policies.png)

InvertedPendulum, mean reward of 100 episodes above 950, 5 agents each (`dvae rl compare --config pendulum_a2c --seeds 5`, and
25 fits of phi an update with `--model.phi_steps 25`). Published: A2C 6243 ± 164, LAX 2067 ± 412.

| estimator | episodes | environment steps |
|---|---|---|
| A2C | 3235 ± 59 | 180,841 ± 2,286 |
| LAX | 3543 ± 166 | 192,627 ± 5,781 |
| LAX, 25 fits | 3170 ± 121 | 190,928 ± 9,206 |
| released LAX, biased | 3515 ± 239 | 198,651 ± 10,921 |

LunarLander (`dvae rl compare --config lunarlander_a2c --seeds 3 --model.max_environment_steps 1200000`), mean reward of 100
episodes above 200, 3 agents each, until the last of them has had 1,200,000 steps (state alone: 1,000,000):

| estimator | solved | after environment steps | mean reward of the last 100 episodes |
|---|---|---|---|
| A2C | 2 of 3 | 857,074 and 1,079,190 | 260, 248, 92 |
| state alone, trained on the variance | 1 of 3 | 940,680 | 173, 124, 115 |
| RELAX | 2 of 3 | 675,186 and 998,425 | 237, 197, 135 |

Three agents do not tell these apart.

So with one set-up for all, **any baseline beats none, and RELAX and LAX do not beat a value function** by more than the errors,
in contrast to the published table. (At .003 RELAX is ahead of A2C by 40 ± 28 episodes, and of the state alone by 100 ± 38; at
.01 and on the pendulum it is not.) Why, on CartPole: with two actions a baseline of the state alone can take all of the
variance that comes from the action (p_1 Q_0 + p_0 Q_1 does), and what is left comes from what happens later, which no surrogate
of this action knows. At a fixed policy, one whose episodes last 132 steps on average, this shows it:

```
dvae rl fit --config cartpole_a2c --model.max_environment_steps 15000 --name fixed
dvae rl variance runs/fixed --num_fits 600 --num_rollouts 300
```

The log of the trace of the gradient's covariance, of 2,400 episodes that all arms saw, and the difference to no baseline, whose
error is smaller for that:

| estimator | phi trained per | log trace | to no baseline |
|---|---|---|---|
| no baseline | | 15.43 ± .02 | |
| A2C | | 13.48 ± .03 | -1.95 ± .02 |
| state alone | step | 13.53 ± .03 | -1.90 ± .03 |
| | episode | 13.59 ± .03 | -1.84 ± .03 |
| RELAX | step | 13.50 ± .04 | -1.93 ± .03 |
| | episode | 13.60 ± .03 | -1.83 ± .03 |
| released RELAX, biased | step | 13.53 ± .05 | -1.91 ± .04 |
| | episode | 13.58 ± .03 | -1.85 ± .02 |

# Certificates

`dvae rl certify` holds the whole of it (environment, rollout, credit, estimator, update) against the enumeration of all
trajectories of random decision processes of 3 states and 3 steps: by whole episodes, and by a fixed number of steps with resets
in between. At 1,000,000 episodes (`--num_episodes 1000000`) the largest |z| is 2.3 (REINFORCE), 3.9 (state alone) and 4.0
(RELAX) with three actions to choose from, 3.9, 3.8 and 3.4 (LAX) with continuous ones; with the next two seeds that of the
state alone is 2.9 and 3.5. The released samplers are at 8.4 (RELAX) and 17.3 (LAX). The tests also reject a surrogate without
its path and a dummy step that counts.
"""

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
