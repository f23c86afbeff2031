"""Compiled functions: what a step runs when it does not look whether its code still fits."""

import torch

from dvae.training.compilation import compiled


def test_without_a_look_the_code_that_was_used_last_runs():
    def changed(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        y.add_(1)
        return x.shape[0] * x + y

    function, y = compiled(changed), torch.zeros(1)
    for count, size in enumerate((2, 3, 2, 3, 3), start=1):
        x = torch.ones(size)
        assert torch.equal(function(x, y), size * x + 2 * count - 1)
        assert torch.equal(function.unguarded()(x, y), size * x + 2 * count)


def test_functions_of_the_same_code_are_compiled_apart():
    def made(factor: float):
        return compiled(lambda x: factor * x)

    twice, thrice = made(2.0), made(3.0)
    x = torch.ones(2)
    assert (twice(x).sum(), thrice(x).sum()) == (4, 6)
    assert (twice.unguarded()(x).sum(), thrice.unguarded()(x).sum()) == (4, 6)
