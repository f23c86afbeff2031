"""Expressions that name estimators, as commands take them."""

import pytest
import torch

from dvae import InputError
from dvae.estimators import CATALOGUE, LOO, RELAX, named


@pytest.mark.parametrize("text", CATALOGUE)
def test_the_catalogue_s_expressions_name_what_they_are_for(text):
    made, listed = named(text).make(), CATALOGUE[text]()
    assert type(made) is type(listed)
    assert made.config == listed.config
    assert named(text).label == text


def test_an_import_path_takes_arguments_too():
    for text in ("dvae.estimators.RELAX(hidden=32, depth=1)", " RELAX(hidden = 32, depth=1)"):
        found = named(text)
        assert (found.cls, found.arguments) == (RELAX, {"hidden": 32, "depth": 1})
        assert found.label == "RELAX(hidden=32, depth=1)"
        assert found.path == "dvae.estimators.RELAX"
    assert named("dvae.estimators.LOO").make().config == LOO().config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("RELAXX", "got RELAXX; did you mean RELAX"),
        ("LOO(num_sample=4)", "LOO has no argument num_sample; did you mean num_samples"),
        ("LOO(4)", "with arguments as in LOO\\(num_samples=4\\)"),
        ("LOO(num_samples=", "must be names or import paths"),
        ("LOO(num_samples={[]: 1})", "must be names or import paths"),
        ("LOO(num_samples=4, num_samples=5)", "must be names or import paths"),
        ("LOO(**{})", "must be names or import paths"),
        ("LOO(num_samples=1)", "cannot make LOO\\(num_samples=1\\)"),
        ("my_package.Mine", "cannot import 'my_package.Mine'"),
        ("torch.nn.Linear", "GradientEstimator"),
    ],
)
def test_what_names_none_is_told(text, message):
    with pytest.raises(InputError, match=message):
        named(text)


def test_an_alias_is_a_name_too():
    assert named("U2G").cls is named("DisARM").cls


def test_further_arguments_join_those_of_the_expression():
    assert named("RELAX(hidden=32)", {"hidden": 8, "depth": 1}).arguments == {"hidden": 8, "depth": 1}
    with pytest.raises(InputError, match="estimator: LOO has no argument num_sample; did you mean num_samples"):
        named("LOO", {"num_sample": 4}, "estimator")


def test_naming_one_draws_nothing():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    named("RODEO")
    named("RELAX(hidden=8)")
    assert torch.equal(torch.get_rng_state(), before)
