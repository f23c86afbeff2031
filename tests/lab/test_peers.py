"""The steps that others write: they compute what ours does."""

import importlib.util
import json

import pytest
import torch

from dvae.cli import main
from dvae.errors import InputError
from dvae.lab.benchmark.algorithms import ALGORITHMS
from dvae.lab.benchmark.peers import _Worker
from dvae.lab.benchmark.plain_jax import PlainJax
from dvae.lab.benchmark.plain_torch import PlainTorch
from dvae.lab.benchmark.subject import ESTIMATORS
from dvae.training.module import DiscreteVAE

# Compiling JAX's takes seconds: of each form one.
QUICK = ("LOO", "RELAX")
TORCH = [pytest.param(name, PlainTorch, id=f"PyTorch-{name}") for name in ALGORITHMS]
JAX = [pytest.param(name, PlainJax, id=f"JAX-{name}", marks=() if name in QUICK else pytest.mark.slow) for name in ALGORITHMS]


@pytest.fixture
def in_double():
    """JAX, where it is installed, with numbers of 64 bits."""
    if (spec := importlib.util.find_spec("jax")) is None:
        yield spec
        return
    config = importlib.import_module("jax").config
    config.update("jax_enable_x64", True)
    yield spec
    config.update("jax_enable_x64", False)


@pytest.mark.parametrize(("name", "peer"), TORCH + JAX)
def test_a_peer_computes_our_gradients(name, peer, in_double):
    if peer is PlainJax and in_double is None:
        pytest.skip("needs JAX")
    torch.manual_seed(0)
    model = DiscreteVAE(ESTIMATORS[name](), num_pixels=12, num_latents=5, seed=0).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    x = (torch.rand(7, 12) > 0.5).double()
    model.set_mean(x.mean(0))
    (noise,) = model.noise(7)
    model.step(x, [noise]).loss.backward()
    found = peer(model, ALGORITHMS[name], x, 7).gradients(x, noise)
    assert set(found) == {own for own, _ in model.named_parameters()}
    for own, parameter in model.named_parameters():
        scale = parameter.grad.abs().max().clamp(min=1)
        assert (found[own] - parameter.grad).abs().max() <= 5e-6 * scale, own


def test_the_command_prints_ratios_to_each_peer(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dvae.lab.benchmark.peers.find_spec", lambda name: None)  # compiling takes long
    flags = ["--peers", "--estimators=[LOO]", "--steps=50", "--repetitions=1", "--json=times.json"]
    assert main(["benchmark", *flags]) == 0
    output = capsys.readouterr().out
    assert "PyTorch" in output
    assert "JAX is not installed" in output
    (row,) = json.loads((tmp_path / "times.json").read_text())
    assert (row["estimator"], row["mode"], row["peer"]) == ("LOO", "eager", "PyTorch")
    assert row["ratio"] == pytest.approx(row["cpu"] / row["peer_cpu"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--estimators=[NVIL]"], "estimators with peers must be out of REINFORCE, LOO"),
        (["--num_layers=2"], "--peers are of one layer, got --num_layers 2"),
        (["--repetitions=0"], "repetitions must be at least 1, got 0"),
    ],
)
def test_what_has_no_peer_is_refused(flags, message, capsys):
    assert main(["benchmark", "--peers", *flags]) == 1
    assert message in capsys.readouterr().err


def test_a_process_that_stops_ends_the_timing_in_one_sentence(capfd):
    with _Worker("none of the estimators", "eager", 24) as worker, pytest.raises(InputError, match="a process that times a step"):
        worker.run(50)
    assert "none of the estimators" in capfd.readouterr().err
