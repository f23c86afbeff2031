"""Configs as factors: a model by an estimator, found wherever the command runs."""

import itertools
from pathlib import Path

import pytest
import yaml

from dvae.cli import main
from dvae.cli.configs import find_config, given, run_name

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES, ESTIMATORS = (sorted(path.stem for path in (CONFIGS / kind).glob("*.yaml")) for kind in ("model", "estimator"))

# A quantised code has no estimator.
QUANTIZED = [name for name in NAMES if "quantizer:" in (CONFIGS / "model" / f"{name}.yaml").read_text()]
MODELS = [name for name in NAMES if name not in QUANTIZED]

# These read data of their own, or take long: one estimator is enough.
WITH_ONE = ("conv", "photos", "spatial", "words")
PAIRS = [
    pytest.param(model, estimator, marks=() if estimator == "rebar" or model == "l1" else pytest.mark.slow)
    for model, estimator in itertools.product(MODELS, ESTIMATORS)
    if model not in WITH_ONE or estimator == "rebar"
]


@pytest.mark.parametrize(("model", "estimator"), PAIRS)
def test_every_pair_trains_a_step(model, estimator, tmp_path, monkeypatch):
    """On its own data and networks, outside of the clone; only validation is cut down."""
    monkeypatch.chdir(tmp_path)
    small = ["--trainer.max_steps=1", "--trainer.limit_val_batches=1", "--model.val_num_samples=2", "--without=VarianceMonitor"]
    flags = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", *small]
    assert main(["fit", "--config", model, "--config", estimator, *flags]) == 0
    (version,) = tmp_path.glob("runs/*/version_0")
    assert version.parent.name == f"{model}_{estimator}"
    assert (version / "checkpoints" / "best.ckpt").is_file()


@pytest.mark.parametrize("prior", sorted(path.stem for path in (CONFIGS / "prior").glob("*.yaml")))
def test_every_prior_trains_a_step(prior, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ["--trainer.max_steps=1", "--trainer.limit_val_batches=1", "--model.val_num_samples=2", "--without=VarianceMonitor"]
    flags = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", *small]
    quick = ["--model.prior.num_temperatures=10"] if prior == "boltzmann" else []
    assert main(["fit", "--config=l1", "--config=loo", f"--config={prior}", *flags, *quick]) == 0
    assert (tmp_path / "runs" / f"l1_loo_{prior}" / "version_0" / "checkpoints" / "best.ckpt").is_file()


@pytest.mark.parametrize("model", QUANTIZED)
def test_every_quantised_code_trains_a_step(model, tmp_path, monkeypatch):
    pytest.importorskip("vector_quantize_pytorch")
    monkeypatch.chdir(tmp_path)
    small = ["--trainer.max_steps=1", "--trainer.limit_val_batches=1", "--data.patches=100"]
    assert main(["fit", "--config", model, "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", *small]) == 0
    assert list(tmp_path.glob("runs/*/version_0/checkpoints/best.ckpt"))


def test_the_papers_models_and_estimators_are_there():
    assert set(MODELS) >= {"l1", "l2", "nl1", "categorical", "conv", "photos", "spatial", "words"}
    assert set(ESTIMATORS) >= {"reinforce", "rebar", "relax", "loo"}


def test_names_and_paths_mean_the_packages_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("l1", "model/l1", "model/l1.yaml", "configs/model/l1.yaml"):
        assert find_config(name) == str(CONFIGS / "model" / "l1.yaml")
    (tmp_path / "l1").write_text("name: own\n")
    assert find_config("l1") == "l1"


def test_runs_are_named_after_their_configs():
    assert run_name(["--config", "l1", "-c=relax", "--trainer.max_steps", "3"]) == "l1_relax"
    assert run_name([]) == "run"


def test_settings_of_files_and_flags_are_listed_in_their_order(tmp_path):
    (tmp_path / "a.yaml").write_text("model:\n  class_path: x.Y\n  init_args:\n    lr: 1\n    estimator: {class_path: LOO}\n")
    assert given(["--config", str(tmp_path / "a.yaml"), "--model.lr=2", "--trainer.callbacks+", "Z"]) == [
        ("model", "x.Y"),
        ("model.lr", 1),
        ("model.estimator", "LOO"),
        ("model.lr", "2"),
        ("trainer.callbacks", "Z"),
    ]


def printed(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(["fit", *arguments, "--print_config"])
    assert stop.value.code in (0, None)
    return yaml.safe_load(capsys.readouterr().out)


def test_an_estimator_does_not_inherit_another_ones_defaults(capsys):
    """LOO takes two samples by default, RELAX one."""
    for flags in (["--config", "relax", "--config", "loo"], ["--model.estimator=LOO"]):
        estimator = printed(capsys, *flags)["model"]["init_args"]["estimator"]
        assert estimator == {"class_path": "dvae.estimators.LOO", "init_args": {"num_samples": 2}}


def test_arguments_alone_are_those_of_the_default_classes(capsys):
    config = printed(capsys, "--model.estimator.temperature=0.1", "--model.lr=0.2")
    assert config["model"]["init_args"]["lr"] == 0.2
    assert config["model"]["init_args"]["estimator"]["class_path"] == "dvae.estimators.RELAX"
    assert config["model"]["init_args"]["estimator"]["init_args"]["temperature"] == 0.1


OWN = """
import dvae


class Small(dvae.DiscreteVAE):
    def __init__(self, num_pixels: int = 16, num_latents: int = 7, lr: float = 0.5):
        super().__init__(num_pixels=num_pixels, num_latents=num_latents, lr=lr, compile=False)
"""


def test_a_model_of_ones_own_keeps_its_defaults(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("own_model.py").write_text(OWN)
    config = printed(capsys, "--model", "own_model.Small", "--model.lr=0.1")
    assert config["model"] == {"class_path": "own_model.Small", "init_args": {"num_pixels": 16, "num_latents": 7, "lr": 0.1}}


def test_class_paths_of_before_are_read_as_todays(capsys, tmp_path):
    path = tmp_path / "old.yaml"
    callbacks = "trainer:\n  callbacks:\n  - class_path: dvae.callbacks.Pictures\n"
    path.write_text(f"model:\n  class_path: dvae.models.DiscreteVAE\n  init_args:\n    lr: 0.3\n{callbacks}")
    config = printed(capsys, "--config", str(path), "--trainer.callbacks+=dvae.callbacks.VarianceMonitor")
    assert config["model"]["class_path"] == "dvae.DiscreteVAE"
    assert config["model"]["init_args"]["lr"] == 0.3
    paths = [callback["class_path"] for callback in config["trainer"]["callbacks"]]
    assert paths == ["dvae.training.callbacks.Pictures", "dvae.training.callbacks.VarianceMonitor"]


def test_data_is_a_file_or_a_word(capsys, folder):
    assert printed(capsys, "--data=images.npz")["data"]["class_path"] == "dvae.data.ArrayData"
    assert printed(capsys, "--data", "images.npz")["data"]["init_args"]["train"] == "images.npz"
    assert printed(capsys, "--data=bundled")["data"]["class_path"] == "dvae.data.BinarizedMNIST"
