"""``dvae fit-prior``: a model's prior is fitted afterwards, and the commands use it."""

import json

import pytest
import torch

from dvae.cli import main
from dvae.training.checkpoints import load_model


@pytest.fixture
def run(fit, capsys):
    """A run of the small model, whose codes depend on each other."""
    assert fit("--name=small", "--model.estimator=LOO", "--model.beta=0.5", "--model.lr=0.05", steps=100) == 0
    capsys.readouterr()
    return "runs/small"


FLAGS = ("--accelerator=cpu", "--max_steps=40", "--val_check_interval=10", "--lr=0.05")


def kl_of(path, folder) -> float:
    flags = ("--num_samples=20", "--num_draws=2", f"--json={folder / 'figures.json'}", "--device=cpu", "--split=train")
    assert main(["evaluate", path, *flags]) == 0
    return json.loads((folder / "figures.json").read_text())["kl"]["mean"]


@pytest.mark.parametrize(("name", "gain"), [("autoregressive", 0.1), ("boltzmann", 0.1), ("factorial", -0.05)])
def test_evaluation_uses_the_prior_that_was_fitted_afterwards(name, gain, run, folder, capsys):
    assert main(["fit-prior", run, "--prior", name, "--name=other", *FLAGS]) == 0
    assert "log p(b) of validation codes" in capsys.readouterr().out
    before, after = load_model(run)[0], load_model("runs/other")[0]
    assert type(after.prior).__name__.lower().startswith(name)
    for part in ("encoders", "decoders"):
        for one, other in zip(getattr(before, part).parameters(), getattr(after, part).parameters(), strict=True):
            assert torch.equal(one, other)
    assert kl_of("runs/other", folder) < kl_of(run, folder) - gain
    assert main(["sample", "runs/other", "--num_images=4", "--device=cpu"]) == 0


def test_arguments_of_the_prior_go_into_the_checkpoint(run):
    assert main(["fit-prior", run, "--prior=Autoregressive", "--prior.hidden=[7]", "--name=other", *FLAGS]) == 0
    assert load_model("runs/other")[0].prior.network.layers[0].out_features == 7


def test_a_run_does_not_go_on_from_it_but_starts_from_it(run, fit, refused, small):
    assert main(["fit-prior", run, "--prior=factorial", "--name=other", *FLAGS]) == 0
    sentence = refused("fit", *small, "--trainer.max_steps=20", "--ckpt_path=runs/other/version_0/checkpoints/best.ckpt")
    assert "holds a model alone, whose prior was fitted afterwards" in sentence
    assert fit("--model.estimator=LOO", "--init_from=runs/other", "--name=further") == 0


def test_what_cannot_be_fitted_is_refused_in_a_sentence(run, refused):
    assert "lr must be positive, got 0.0" in refused("fit-prior", run, "--prior=factorial", "--lr=0")
    assert "patience must be at least 1, got 0" in refused("fit-prior", run, "--prior=factorial", "--patience=0")
    assert "SpatialFactorial needs latents on a grid" in refused("fit-prior", run, "--prior=SpatialFactorial")
    assert "prior" in refused("fit-prior", run, "--prior=Unknown")
    assert "prior" in refused("fit-prior", run)
