"""Checkpoints: enough by themselves, read without executing anything, and refused in one sentence when something is wrong."""

import os
import pickle

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from dvae import DiscreteVAE, InputError
from dvae.estimators import RELAX
from dvae.networks import MLP
from dvae.training.checkpoints import find_checkpoint, load_model


class Encoder(nn.Linear):
    """An encoder from outside the package that does not record its arguments."""


class Doubled(DiscreteVAE):
    """A model from outside the package."""

    def __init__(self, factor: float = 2.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def objective(self, terms):
        return self.factor * terms.elbo


def saved(tmp_path, data, model):
    run = pl.Trainer(
        default_root_dir=tmp_path,
        max_steps=3,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    run.fit(model, data)
    run.save_checkpoint(tmp_path / "model.ckpt")
    return tmp_path / "model.ckpt"


@pytest.fixture
def checkpoint(tmp_path, tiny_data):
    model = DiscreteVAE(RELAX(hidden=7), MLP(16, 4, hidden=[5]), num_pixels=16, num_latents=4, seed=0)
    return saved(tmp_path, tiny_data, model)


def test_a_checkpoint_rebuilds_its_model_by_itself(checkpoint):
    model, _ = load_model(checkpoint)
    again = DiscreteVAE.load_from_checkpoint(checkpoint, weights_only=True)
    x = torch.ones(3, 16)
    assert isinstance(model.estimators[0], RELAX)
    assert model.estimators[0].hidden == 7
    assert model.iteration == 3
    assert not model.training
    first, second = (m.elbo(x, 5, torch.Generator().manual_seed(0)) for m in (model, again.eval()))
    assert torch.equal(first, second)


def test_a_foreign_class_is_imported_on_trust_only(tmp_path, tiny_data):
    path = saved(tmp_path, tiny_data, Doubled(3.0, num_pixels=16, num_latents=4))
    with pytest.raises(InputError, match=r"names classes outside dvae \(.*Doubled\).* pass --trust"):
        load_model(path)
    model, _ = load_model(path, trust=True)
    assert isinstance(model, Doubled)
    assert model.factor == 3.0


def test_an_optimizer_of_pytorch_needs_no_trust(tmp_path, tiny_data):
    model = DiscreteVAE(optimizer={"class_path": "torch.optim.SGD"}, num_pixels=16, num_latents=4)
    assert load_model(saved(tmp_path, tiny_data, model))[0].config == model.config


def test_a_module_without_a_record_must_be_given_again(tmp_path, tiny_data):
    path = saved(tmp_path, tiny_data, DiscreteVAE(encoder=Encoder(16, 4), num_pixels=16, num_latents=4))
    with pytest.raises(InputError, match=r"encoder was given as an object of type .*Encoder.*; pass encoder=\.\.\. when loading"):
        load_model(path)
    model, _ = load_model(path, encoder=Encoder(16, 4))
    assert torch.equal(model.encoders[0].weight, torch.load(path, weights_only=True)["state_dict"]["encoders.0.weight"])


def test_a_folder_means_its_newest_best_checkpoint(tmp_path):
    for age, name in ((30, "a/best.ckpt"), (20, "b/best.ckpt"), (10, "c/last.ckpt")):
        path = tmp_path / name
        path.parent.mkdir()
        path.touch()
        os.utime(path, (1e9 - age, 1e9 - age))
    assert find_checkpoint(tmp_path) == tmp_path / "b" / "best.ckpt"


class Payload:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_pickled_code_is_refused_and_never_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, save in (("zip", torch.save), ("plain", lambda x, path: path.write_bytes(pickle.dumps(x)))):
        path = tmp_path / f"{name}.ckpt"
        save({"state_dict": Payload()}, path)
        with pytest.raises(InputError, match="holds pickled code, which is never executed"):
            load_model(path)
    assert not (tmp_path / "executed").exists()


def test_damaged_and_foreign_files_are_refused(tmp_path, checkpoint):
    content = checkpoint.read_bytes()
    for name, damaged in {"truncated": content[: len(content) // 2], "empty": b"", "text": b"hello " * 100}.items():
        path = tmp_path / f"{name}.ckpt"
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=f"checkpoint .*{name}.ckpt is damaged or not a checkpoint"):
            load_model(path)
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    with pytest.raises(InputError, match=r"was not written by dvae"):
        load_model(tmp_path / "foreign.ckpt")
    with pytest.raises(InputError, match=r"checkpoint .*none.ckpt does not exist"):
        load_model(tmp_path / "none.ckpt")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="holds no checkpoint"):
        load_model(tmp_path / "nothing")


def test_weights_of_another_shape_are_refused(tmp_path, checkpoint):
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"]["prior.logits"] = torch.zeros(5)
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match=r"does not fit the model it names: .*prior\.logits"):
        load_model(tmp_path / "other.ckpt")
