"""The recipes, run as printed, learn what they are about."""

import importlib
import pkgutil
import re
import runpy

import pytest
import torch

import dvae.recipes

NAMES = [module.name for module in pkgutil.iter_modules(dvae.recipes.__path__)]


def page(name: str) -> str:
    return importlib.import_module(f"dvae.recipes.{name}").__doc__


def blocks(name: str) -> list[str]:
    """The program of a page, and what it prints."""
    return re.findall(r"```\w+\n(.*?)```", page(name), flags=re.DOTALL)


def words(text: str) -> str:
    return re.sub(r"-?[\d.]+", "#", text)


@pytest.fixture
def run(tmp_path, capsys):
    """Runs a recipe's program from a file, sees that it prints what its page says, figures aside, and gives its variables."""

    def variables(name: str) -> dict:
        program, output = blocks(name)
        path = tmp_path / f"{name}.py"
        path.write_text(program)
        found = runpy.run_path(str(path))
        assert words(capsys.readouterr().out) == words(output)
        return found

    return variables


@pytest.mark.parametrize("name", NAMES)
def test_recipes_are_short(name):
    assert len(blocks(name)[0].splitlines()) < 40


def test_every_recipe_is_in_the_chapters_table():
    assert sorted(re.findall(r"^\| `dvae\.recipes\.(\w+)`", dvae.recipes.__doc__, flags=re.MULTILINE)) == NAMES


def test_attention_looks_where_the_digit_is_told_apart(run):
    found = run("attention")
    # A mean of log p over 10,000 digits has a standard error of about .01.
    assert found["f"](found["gazed"]).mean() > found["by_chance"] + 0.05
    assert (found["gazed"].mean((0, 1)) > 0.01).sum() > 1


def test_stochastic_units_predict_the_lower_half(run):
    found = run("stochastic_units")
    assert found["independent"] + 10 < found["log_p"].mean() < found["bound"]


def test_the_bandits_policy_learns_from_rewards_alone(run):
    found = run("bandit")  # the variables are of the last estimator, RELAX
    assert found["early"] < 0.4
    assert found["late"] > 0.5


def test_posteriors_of_pytorch_find_what_the_signal_is_made_of(run):
    found = run("distributions")
    assert found["after"] < found["before"] / 3
    # The posterior of the last one, Normal, has this mean.
    atoms, signal = found["atoms"], found["signal"]
    exact = signal @ atoms.mT @ (atoms @ atoms.mT + torch.eye(12)).inverse()
    assert (found["q"].mean - exact).square().mean() < 0.2 * (exact - found["truth"]).square().mean() + 0.01
