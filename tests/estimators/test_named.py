"""Expressions that name estimators, as every command takes them."""

import pytest

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
        assert found.flags == [
            "--model.estimator=dvae.estimators.RELAX",
            "--model.estimator.hidden=32",
            "--model.estimator.depth=1",
        ]
    assert named("dvae.estimators.LOO").make().config == LOO().config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("RELAXX", "got RELAXX; did you mean RELAX"),
        ("LOO(num_sample=4)", "LOO has no argument num_sample; did you mean num_samples"),
        ("LOO(4)", "with arguments as in LOO\\(num_samples=4\\)"),
        ("LOO(num_samples=", "must be names or import paths"),
        ("LOO(num_samples=1)", "cannot make LOO\\(num_samples=1\\)"),
        ("my_package.Mine", "cannot import 'my_package.Mine'"),
        ("torch.nn.Linear", "GradientEstimator"),
    ],
)
def test_what_names_none_is_told(text, message):
    with pytest.raises(InputError, match=message):
        named(text)
