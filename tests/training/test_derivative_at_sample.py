"""Where an estimator wants f' at the drawn sample, it comes with the one backward pass; nothing else changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dvae
from dvae.training.step import step_loss

NAMES = [name for name in dvae.estimators.__all__ if getattr(getattr(dvae.estimators, name), "derivative_at_sample", False)]


class Counted(nn.Linear):
    calls = 0

    def forward(self, b: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(b)


def model_of(name: str, **options: Any) -> dvae.DiscreteVAE:
    torch.manual_seed(0)
    estimator = getattr(dvae.estimators, name)()
    family = "Bernoulli" if dvae.latents.Bernoulli in estimator.latents else "Gaussian"
    model = dvae.DiscreteVAE(estimator, decoder=Counted(5, 8), num_pixels=8, num_latents=5, latent=family, seed=0, **options)
    return model.double()


def gradients(model: dvae.DiscreteVAE) -> tuple[list[Tensor], int]:
    x = torch.rand(3, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64).round()
    step_loss(model, x, model.training_noise(3, 0, 0))  # the first asks whether there is a derivative
    decoder: Any = model.decoders[0]
    decoder.calls = 0
    step_loss(model, x, model.training_noise(3, 0, 0)).loss.backward()
    return [p.grad for p in model.parameters() if p.grad is not None], decoder.calls


@pytest.mark.parametrize(
    "options", [{}, {"kl": "analytic", "kl_balance": 0.8, "beta": 2.0}, {"direct_gradient": True}], ids=["default", "kl", "direct"]
)
@pytest.mark.parametrize("name", NAMES)
def test_one_evaluation_gives_the_gradient_that_two_gave(
    name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, calls = gradients(model_of(name, **options))
    monkeypatch.setattr(getattr(dvae.estimators, name), "derivative_at_sample", False)
    two, calls_before = gradients(model_of(name, **options))
    assert (calls, calls_before) == (1, 2)
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
