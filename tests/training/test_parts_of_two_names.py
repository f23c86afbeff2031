"""Networks that hold a part under two names train as those that do not."""

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

import dvae
from dvae.estimators import REBAR
from dvae.training.sweep import Replicas

TINY = {"num_pixels": 16, "num_latents": 4, "lr": 0.01}


class Net(nn.Module):
    """Two of its layers share a weight; ``last`` may be another name of the last one."""

    def __init__(self, second_name: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(16, 5), nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 4)])
        self.layers[2].weight = self.layers[1].weight
        if second_name:
            self.last = self.layers[-1]

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x.tanh())
        return x


def model(second_name: bool, seed: int = 0, **options) -> dvae.DiscreteVAE:
    torch.manual_seed(seed)
    return dvae.DiscreteVAE(REBAR(), encoder=Net(second_name), seed=seed, **TINY, **options)


def fit(module: pl.LightningModule, data: dvae.data.ArrayData) -> None:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    pl.Trainer(max_steps=8, accelerator="cpu", limit_val_batches=0, **quiet).fit(module, data)


def assert_equal_and_trained(named: dvae.DiscreteVAE, plain: dvae.DiscreteVAE, before: dict[str, Tensor]) -> None:
    trained = dict(named.named_parameters())
    for name, parameter in plain.named_parameters():
        assert torch.equal(trained[name], parameter), name
        assert not torch.equal(parameter, before[name]), name
        assert trained[name].requires_grad, name


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"steps_per_execution": 1, "compile": False}, id="eager"),
        pytest.param({"steps_per_execution": 4}, id="whole step"),
        pytest.param({"steps_per_execution": 4, "compile": True}, id="compiled"),
    ],
)
def test_a_layer_of_two_names_trains_as_one_of_one(options, tiny_data):
    named, plain = model(True, **options), model(False, **options)
    before = {name: parameter.detach().clone() for name, parameter in plain.named_parameters()}
    fit(named, tiny_data)
    fit(plain, tiny_data)
    assert_equal_and_trained(named, plain, before)


def test_replicas_with_a_layer_of_two_names_train_as_those_of_one(tiny_data):
    named, plain = (Replicas([model(second_name, seed) for seed in (0, 1)]) for second_name in (True, False))
    before = [{name: parameter.detach().clone() for name, parameter in own.named_parameters()} for own in plain.models]
    fit(named, tiny_data)
    fit(plain, tiny_data)
    for own, other, start in zip(named.models, plain.models, before, strict=True):
        assert_equal_and_trained(own, other, start)
