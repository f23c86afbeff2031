"""The docstrings' examples, run as a reader would: after ``import torch`` and ``import dvae``."""

import doctest
import importlib
import pkgutil

import pytest
import torch

import dvae

MODULES = [module.name for module in pkgutil.walk_packages(dvae.__path__, "dvae.") if not module.name.endswith("__main__")]
EXAMPLES = [
    test
    for name in ["dvae", *MODULES]
    for test in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name), globs={"torch": torch, "dvae": dvae})
    if test.examples
]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_example_prints_what_it_says(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    report: list[str] = []
    result = doctest.DocTestRunner().run(example, out=report.append)
    assert result.failed == 0, "".join(report)


def test_every_estimator_has_an_example():
    named = {example.name.rsplit(".", 1)[-1] for example in EXAMPLES}
    assert {entry.func.__name__ for entry in dvae.estimators.CATALOGUE.values()} <= named
