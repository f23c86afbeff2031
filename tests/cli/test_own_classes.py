"""Classes of a user's own on the command line: what they do not leave to the library is as they say."""

import pytest
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
