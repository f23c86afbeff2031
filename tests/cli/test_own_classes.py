"""Classes of a user's own on the command line: what they do not leave to the library is as they say."""

import pytest
import torch
import yaml

from dvae.cli import main

OWN = """
import dvae


class Own(dvae.DiscreteVAE):
    def __init__(self, num_latents: int = 50, kl: str = "analytic", **kwargs):
        super().__init__(num_latents=num_latents, kl=kl, **kwargs)


class Data(dvae.data.ArrayData):
    def __init__(self, train: str = "x.npz", eval_batch_size: int = 7, **kwargs):
        super().__init__(train, eval_batch_size=eval_batch_size, **kwargs)


class Insisting(dvae.networks.Linear):
    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features)


class Encoder(dvae.networks.Linear):
    def __init__(self, in_features: int | None = None, out_features: int | None = None):
        super().__init__(in_features, out_features)


class Estimator(dvae.estimators.REBAR):
    def __init__(self, temperature: float = 0.1, **kwargs):
        super().__init__(temperature, **kwargs)
"""


def config(capsys, *arguments):
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["fit", *arguments, "--print_config"])
    return yaml.safe_load(capsys.readouterr().out)


def test_defaults_of_own_classes_are_not_overruled_by_those_of_the_library(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_classes.py").write_text(OWN)
    (tmp_path / "own.yaml").write_text("model: {class_path: own_classes.Own, init_args: {lr: 0.02}}\n")
    given = config(capsys, "--model", "own_classes.Own", "--data", "own_classes.Data")
    assert given["model"]["init_args"]["num_latents"] == 50
    assert given["model"]["init_args"]["kl"] == "analytic"
    assert given["data"]["init_args"]["eval_batch_size"] == 7
    given = config(
        capsys, "--config", "own.yaml", "--config", "l2", "--config", "relax", "--model.estimator", "own_classes.Estimator"
    )
    assert {name: given["model"]["init_args"][name] for name in ("num_latents", "lr", "num_layers")} == {
        "num_latents": 50,
        "lr": 0.02,
        "num_layers": 2,
    }
    assert given["model"]["init_args"]["estimator"]["init_args"]["temperature"] == 0.1


def test_an_estimator_after_another_has_its_own_defaults(capsys):
    for arguments in (["--config", "l1", "--config", "loo"], ["--config", "relax", "--model.estimator", "LOO"]):
        assert config(capsys, *arguments)["model"]["init_args"]["estimator"] == {
            "class_path": "dvae.estimators.LOO",
            "init_args": {"num_samples": 2},
        }


def test_an_argument_of_the_default_estimator_needs_no_class(capsys):
    estimator = config(capsys, "--model.estimator.temperature", "0.1")["model"]["init_args"]["estimator"]
    assert estimator["class_path"] == "dvae.estimators.RELAX"
    assert estimator["init_args"]["temperature"] == 0.1


@pytest.mark.parametrize("written", ["torch.optim.SGD", "SGD"])
def test_an_optimizer_and_a_schedule_are_given_by_their_classes(capsys, written):
    given = config(
        capsys,
        *("--model.optimizer", written, "--model.optimizer.momentum", "0.9", "--model.optimizer.nesterov=true"),
        *("--model.lr_scheduler=torch.optim.lr_scheduler.MultiStepLR", "--model.lr_scheduler.milestones", "[10, 20]"),
    )["model"]["init_args"]
    assert given["optimizer"] == {"class_path": "torch.optim.SGD", "init_args": {"momentum": 0.9, "nesterov": True}}
    schedule = {"class_path": "torch.optim.lr_scheduler.MultiStepLR", "init_args": {"milestones": [10, 20]}}
    assert given["lr_scheduler"] == schedule


def test_a_run_with_an_optimizer_by_its_class_trains_with_it(folder, fit):
    assert fit("--model.optimizer", "SGD", "--model.optimizer.momentum=0.5", "--name=sgd", steps=2) == 0
    saved = torch.load(folder / "runs/sgd/version_0/checkpoints/last.ckpt", weights_only=False)
    assert saved["optimizer_states"][0]["param_groups"][0]["momentum"] == 0.5


def test_what_is_no_optimizer_is_named(refused):
    assert "--model.optimizer cannot be 'SGDD'; it is a class of torch.optim or an import path" in refused(
        "fit", "--model.optimizer=SGDD", "--trainer.max_steps=2"
    )
    assert "optimizer: cannot import 'torch.optim.SGDD'" in refused(
        "fit", "--model.optimizer=torch.optim.SGDD", "--trainer.max_steps=2", "--trainer.logger=false"
    )


def test_a_network_takes_the_model_s_sizes_or_is_told_how(folder, fit, refused, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    (folder / "own_networks.py").write_text(OWN)
    sentence = refused("fit", "--model.encoder", "own_networks.Insisting", "--trainer.max_steps=2")
    assert "Insisting needs --model.encoder.in_features, or a class whose in_features is None by default" in sentence
    assert fit("--model.encoder=own_networks.Encoder", steps=2) == 0
