"""Training policies: learning, seeds side by side, credit, limits, resume."""

import gymnasium as gym
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

import dvae
from dvae.estimators import LAX, LOO, NVIL, REBAR, REINFORCE, RELAX
from dvae.rl import PolicyGradient, Replay, Rollouts, credited


class Signs(gym.Env):
    """Six steps; the reward is 1 where the action is the sign of what is seen, else 0."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)
    continuous = False

    def __init__(self):
        self.time = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self._look(), {}

    def _look(self):
        self.seen = float(self.np_random.choice([-1.0, 1.0]))
        return np.array([self.seen], np.float32)

    def step(self, action):
        chosen = float(np.asarray(action).reshape(-1)[0]) if self.continuous else 2.0 * action - 1
        reward = float(chosen * self.seen > 0)
        self.time += 1
        return self._look(), reward, self.time == 6, False, {}


class Steering(Signs):
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    continuous = True


class ForBits(dvae.GradientEstimator):
    def gradient(self, f, q, draw, context):
        return q.score(draw.b, draw.value)


class Branches(nn.Linear):
    def __init__(self):
        super().__init__(1, 1)

    def forward(self, observation):
        return super().forward(observation) if observation.sum() >= 0 else -super().forward(observation)


def surrogate(kind: str) -> dict:
    return {"class_path": f"dvae.rl.{kind}", "init_args": {"hidden": [16]}}


ESTIMATORS = {
    "REINFORCE": (Signs, lambda: REINFORCE()),
    "NVIL": (Signs, lambda: NVIL([16], moving_average=False)),
    "RELAX": (Signs, lambda: RELAX(black_box=True, network=surrogate("RelaxedSurrogate"), weight_decay=0.0)),
    "LAX": (Steering, lambda: LAX(network=surrogate("ActionSurrogate"), weight_decay=0.0)),
}


def model(estimator=None, **options) -> PolicyGradient:
    small = {"class_path": "dvae.networks.MLP", "init_args": {"hidden": [16]}}
    return PolicyGradient(estimator, **{"value": small, "lr": 0.02, "seed": 0, "compile": False, **options})


def fit(run: PolicyGradient, data: Rollouts, steps: int, **options) -> pl.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = pl.Trainer(max_steps=steps, **{"enable_checkpointing": False, **quiet, **options.pop("trainer", {})})
    trainer.fit(run, data, **options)
    return trainer


@pytest.mark.parametrize("name", ESTIMATORS)
def test_agents_learn_what_to_do(name):
    env, estimator = ESTIMATORS[name]
    run = model(estimator(), num_seeds=2)
    fit(run, Rollouts(env, num_envs=8), 60)
    assert all(run.mean_reward(index) > 5 for index in range(2))  # of 6; by chance it is 3


@pytest.mark.parametrize("credit", ["bootstrapped", "gae"])
def test_agents_learn_from_rollouts_of_a_fixed_length(credit):
    run = model(REINFORCE(), credit=credit)
    fit(run, Rollouts(Signs, num_envs=8, num_steps=10), 60)
    assert run.mean_reward(0) > 5


def test_agents_learn_in_a_vector_environment():
    def vector(num_envs):
        return gym.vector.SyncVectorEnv([Signs] * num_envs)

    run = model(REINFORCE(), credit="gae", num_seeds=2)
    fit(run, Rollouts(vector, num_envs=8, num_steps=10, vectorized=True), 60)
    assert all(run.mean_reward(index) > 5 for index in range(2))


def test_an_agent_of_many_is_what_it_is_alone():
    together, alone = model(ESTIMATORS["RELAX"][1](), num_seeds=3), model(ESTIMATORS["RELAX"][1](), seed=1)
    for run in (together, alone):
        fit(run, Rollouts(Signs, num_envs=3), 8)
    assert together.episodes[1] == alone.episodes[0]
    for name, tensor in alone.agents.named_parameters():
        assert torch.allclose(together.agents.get_parameter(name)[1], tensor[0], atol=1e-5), name
    extracted = together.extract(1)
    assert torch.equal(extracted.policy.layers[0].weight, together.agents.policy.layers[0].weight[1])


class Tied(dvae.Module):
    """A policy whose inner layers share a weight; ``last`` may be another name of its last one."""

    def __init__(self, in_features: int, out_features: int, second_name: bool = True) -> None:
        super().__init__()
        inner = [torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)]
        inner[1].weight = inner[0].weight
        self.layers = torch.nn.ModuleList([torch.nn.Linear(in_features, 4), *inner, torch.nn.Linear(4, out_features)])
        if second_name:
            self.last = self.layers[-1]

    def forward(self, x):
        for layer in self.layers:
            x = layer(x.tanh())
        return x


@pytest.mark.parametrize("objective", ["step", "episode"])
def test_a_policy_keeps_what_it_ties_and_may_name_a_layer_twice(objective):
    runs = []
    for second_name in (True, False):
        policy = {"class_path": f"{__name__}.Tied", "init_args": {"second_name": second_name}}
        runs.append(model(ESTIMATORS["RELAX"][1](), num_seeds=2, policy=policy, phi_objective=objective))
        fit(runs[-1], Rollouts(Signs, num_envs=3), 4)
    named, plain = (dict(run.agents.named_parameters()) for run in runs)
    assert all(torch.equal(named[name], parameter) for name, parameter in plain.items())
    for policy in (runs[0].agents.policy, runs[0].extract(1).policy):
        assert policy.layers[1].weight is policy.layers[2].weight


def test_rollouts_are_of_the_policy_that_is_updated(monkeypatch):
    asked = []
    original = Rollouts.collect

    def collect(self, run):
        asked.append(run.iteration)
        return original(self, run)

    monkeypatch.setattr(Rollouts, "collect", collect)
    fit(model(), Rollouts(Signs, rollouts_per_epoch=3), 7)
    assert asked == list(range(7))


def test_a_resumed_run_ends_at_the_same_bits(tmp_path):
    def run() -> tuple[PolicyGradient, Rollouts]:
        made = model(ESTIMATORS["RELAX"][1](), credit="gae", replay=3, phi_steps=2, value_steps=2, normalize=True, kl_limit=0.01)
        return made, Rollouts(Signs, num_envs=3, num_steps=4)  # cuts episodes of six steps

    whole, data = run()
    fit(whole, data, 9)
    first, data = run()
    fit(first, data, 4).save_checkpoint(tmp_path / "four.ckpt")
    second, data = run()
    fit(second, data, 9, ckpt_path=str(tmp_path / "four.ckpt"))
    assert second.episodes == whole.episodes
    assert second.iteration == 9
    for name, tensor in whole.state_dict().items():
        assert torch.equal(second.state_dict()[name], tensor), name
    assert torch.equal(torch.stack(second.gradient_variance), torch.stack(whole.gradient_variance))


def test_an_update_stays_within_the_limit_on_the_divergence():
    data = Rollouts(Signs, num_envs=8)

    def divergence(limit) -> float:
        run = model(REINFORCE(), lr=0.1, kl_limit=limit, num_seeds=2)
        fit(run, data, 1)
        rollout, logits = data.collect(run), None
        fresh = model(REINFORCE(), lr=0.1, num_seeds=2)
        fresh.build(data.spaces)
        logits = fresh.together.logits(rollout.observation)
        return run.together.divergence(rollout, logits).max().item()

    assert divergence(None) > 0.02
    assert divergence(0.001) < 0.0015  # at states of another rollout than the update's


def test_observations_are_normalized_by_those_that_counted():
    run = model(REINFORCE(), normalize=True, num_seeds=2)
    data = Rollouts(Signs, num_envs=4)
    fit(run, data, 5)
    agent = run.extract(0)
    assert agent.count.item() == 5 * 4 * 6
    seen = torch.tensor([[-1.0], [1.0]])
    assert torch.allclose(agent.seen(seen), (seen - agent.mean.float()) / (agent.square / agent.count).sqrt().float(), atol=1e-5)


def test_credit_follows_its_equations():
    reward = torch.tensor([[1.0], [2.0], [4.0], [8.0]])
    value, after = torch.tensor([[0.5], [1.0], [1.5], [2.0]]), torch.tensor([[1.0], [3.0], [2.0], [5.0]])
    terminated, ended = (torch.tensor([[False], [flag], [False], [False]]) for flag in (False, True))

    def found(credit, terminated, lam=0.95):
        return credited(credit, reward, value, after, terminated, ended, 0.5, lam).flatten().tolist()

    assert found("returns", terminated) == [1 + 0.5 * 2, 2, 4 + 0.5 * 8, 8]
    # After the second step the episode is cut off: what follows is worth V; where it is over, nothing.
    assert found("bootstrapped", terminated) == [1 + 0.5 * (2 + 0.5 * 3), 2 + 0.5 * 3, 4 + 0.5 * (8 + 0.5 * 5), 8 + 0.5 * 5]
    assert found("bootstrapped", ended) == [1 + 0.5 * 2, 2, 4 + 0.5 * (8 + 0.5 * 5), 8 + 0.5 * 5]
    assert found("gae", terminated, 1.0) == pytest.approx(found("bootstrapped", terminated))
    assert found("gae", terminated, 0.0) == pytest.approx([1 + 0.5 * 1, 2 + 0.5 * 3, 4 + 0.5 * 2, 8 + 0.5 * 5])


def test_the_paper_s_objective_is_the_square_of_an_episode_s_gradient():
    data = Rollouts(Signs, num_envs=4)
    run = model(ESTIMATORS["RELAX"][1](), value=None)
    run.build(data.spaces)
    rollout = data.collect(run)
    agent, noise = run.extract(0), run.update_noise(rollout, 0)[0]
    rollout = type(rollout)(*(part[0] for part in rollout))
    grad, _ = agent.gradients(rollout, rollout.reward, noise)
    expected = 0.0
    for env in range(4):
        agent.zero_grad()
        logits = agent.distribution(rollout.observation[:, env]).logits
        (grad.detach().unflatten(0, (6, 4))[:, env] * logits).sum().backward()
        expected += sum(p.grad.square().sum().item() for p in agent.policy.parameters()) / 4
    assert agent.second_moment(rollout, grad, "episode").item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"estimator": REBAR()}, "REBAR needs f at other samples than those drawn"),
        ({"estimator": LOO()}, "nobody can take two actions in one moment"),
        ({"estimator": LAX()}, r"actions, which are one of several, such as REINFORCE, NVIL or RELAX\(black_box=True\), got LAX"),
        ({"estimator": RELAX()}, "pass black_box=True"),
        ({"estimator": ForBits()}, r"a class of your own says latents = \(dvae.latents.Categorical,\)"),
        ({"policy": nn.Sequential(nn.Linear(1, 2), nn.Dropout(0.5))}, "policy cannot be called for all agents at once"),
        ({"value": Branches()}, "value cannot be called for all agents at once"),
        ({"credit": "gae", "value": None}, "credit='gae' needs a value function"),
        ({"credit": "everything"}, "credit must be one of returns, bootstrapped, gae"),
        ({"discount": 1.1}, "discount must be from 0 to 1"),
        ({"kl_limit": 0.0}, "kl_limit must be positive or None"),
        ({"num_seeds": 0}, "num_seeds must be at least 1"),
        ({"policy": dvae.networks.MLP(3, 2)}, "policy must take"),
        ({"num_observations": 7}, "num_observations must be the environment's, 1, got 7"),
    ],
)
def test_settings_that_do_not_fit_are_named(arguments, message):
    with pytest.raises(dvae.InputError, match=message):
        model(**arguments).build(Rollouts(Signs).spaces)


def test_returns_need_whole_episodes():
    with pytest.raises(dvae.InputError, match="credit='returns' needs whole episodes"):
        fit(model(), Rollouts(Signs, num_steps=4), 2)


def test_a_run_ends_when_its_agents_have_solved_their_task():
    run = model(REINFORCE(), solved_at=4.0, stop_when_solved=True, num_seeds=2)
    fit(run, Rollouts(Signs, num_envs=8), 500)
    assert run.iteration < 200
    for index, solved in enumerate(run.solved):
        episodes, steps = solved
        window = [reward for reward, _ in run.episodes[index][:episodes][-100:]]
        assert sum(window) / 100 > 4
        assert run.episodes[index][episodes - 1][1] == steps


def test_a_run_ends_after_so_many_steps():
    run = model(REINFORCE(), max_environment_steps=100)
    fit(run, Rollouts(Signs, num_envs=2), 500)
    assert run.num_steps == [108]


def test_the_same_data_module_begins_anew_for_another_run():
    data, runs = Rollouts(Signs, num_envs=2), [model(), model()]
    for run in runs:
        fit(run, data, 3)
    assert runs[0].episodes == runs[1].episodes


def test_the_compiled_run_is_the_eager_one():
    data = Rollouts(Signs, num_envs=2)
    runs = [model(ESTIMATORS["RELAX"][1](), compile=compile, num_seeds=2) for compile in (False, True)]
    for run in runs:
        fit(run, data, 3)
    for name, tensor in runs[0].agents.named_parameters():
        assert torch.allclose(runs[1].agents.get_parameter(name), tensor, atol=1e-5), name


def test_an_update_that_is_not_finite_is_not_done():
    data = Rollouts(Signs, num_envs=2)
    run = model(REINFORCE(), num_seeds=2)
    run.build(data.spaces)
    with torch.no_grad():
        run.agents.value.layers[0].weight[1] = float("inf")
    before = run.agents.policy.layers[0].weight.clone()
    with pytest.raises(dvae.NonFiniteError, match=r"value_loss \(agent 1\)"):
        fit(run, data, 3)
    assert torch.equal(run.agents.policy.layers[0].weight, before)


def test_frozen_layers_of_a_policy_stay_as_they_are():
    policy = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 2))
    policy[0].requires_grad_(False)
    run = model(REINFORCE(), policy=policy, num_seeds=2)
    fit(run, Rollouts(Signs, num_envs=2), 3)
    for index in range(2):
        assert torch.equal(run.extract(index).policy[0].weight, policy[0].weight)
        assert not torch.equal(run.extract(index).policy[2].weight, policy[2].weight)


def test_policy_and_value_may_share_layers():
    trunk = nn.Sequential(nn.Linear(1, 16), nn.Tanh())
    run = model(
        REINFORCE(), policy=nn.Sequential(trunk, nn.Linear(16, 2)), value=nn.Sequential(trunk, nn.Linear(16, 1)), num_seeds=2
    )
    fit(run, Rollouts(Signs, num_envs=8), 60)
    agent = run.extract(1)
    assert agent.policy[0][0].weight is agent.value[0][0].weight
    assert not torch.equal(agent.policy[0][0].weight, trunk[0].weight)
    assert run.mean_reward(1) > 5


def test_the_policy_s_gradient_is_clipped_for_each_agent_by_itself():
    def moved(clip) -> torch.Tensor:
        run = model(REINFORCE(), optimizer={"class_path": "torch.optim.SGD"}, lr=1.0, num_seeds=2, gradient_clip_norm=clip)
        data = Rollouts(Signs, num_envs=4)
        run.build(data.spaces)
        before = [parameter.detach().clone() for parameter in run.agents.policy.parameters()]
        fit(run, data, 1)
        parts = [(new - old).flatten(1) for new, old in zip(run.agents.policy.parameters(), before, strict=True)]
        return torch.cat(parts, 1).norm(dim=1)

    free = moved(None)
    assert free.min() > 0.1
    between = free.mean().item()
    assert torch.allclose(moved(between), free.clamp(max=between), rtol=1e-4)
    assert torch.allclose(moved(0.01), torch.full((2,), 0.01), rtol=1e-3)


def test_replay_keeps_the_latest_rollouts_and_draws_among_them():
    data, run = Rollouts(Signs), model()
    run.build(data.spaces)
    replay, rollouts = Replay(3), [data.collect(run) for _ in range(5)]
    for rollout in rollouts:
        replay.add(rollout, rollout.reward)
    drawn = {id(replay.draw(0, 7, fit)[0]) for fit in range(50)}
    assert drawn == {id(rollout) for rollout in rollouts[2:]}
    assert replay.draw(0, 7, 1)[0] is replay.draw(0, 7, 1)[0]
    again = Replay(3)
    again.restore(replay.state())
    assert torch.equal(again.draw(0, 7, 1)[1], replay.draw(0, 7, 1)[1])
