"""The convolutional networks learn with their defaults, and those of earlier versions stay what they were."""

import copy

import pytest
import pytorch_lightning as pl
import torch

import dvae
from dvae import DiscreteVAE, InputError
from dvae.data import BinarizedMNIST
from dvae.estimators import LOO, REBAR, RELAX, GumbelStraightThrough
from dvae.metrics import ActiveUnits
from dvae.training.checkpoints import Checkpoint, load_model

BITS = {"num_latents": 200}
CLASSES = {"latent": "Categorical", "num_latents": 20, "num_classes": 10}
QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
}


def num_active(model: DiscreteVAE, data: BinarizedMNIST) -> int:
    active = ActiveUnits(model.latent.sample_shape)
    with torch.no_grad():
        active.update(model.encode(data.split("test")[:500]).mean)
    return int(active.compute())


def trained(steps: int, *, channels: int = 32, **options) -> int:
    data = BinarizedMNIST(batch_size=24)
    encoder, decoder = (
        {"class_path": f"dvae.networks.{name}", "init_args": {"channels": channels}} for name in ("ConvEncoder", "ConvDecoder")
    )
    model = DiscreteVAE(encoder=encoder, decoder=decoder, seed=0, **options)
    pl.Trainer(max_steps=steps, limit_val_batches=0, **QUIET).fit(model, data)
    return num_active(model, data)


@pytest.mark.parametrize("latents", [BITS, CLASSES], ids=["bits", "classes"])
def test_units_are_active_after_a_hundred_steps(latents):
    """At PyTorch's own initial weights none is."""
    assert trained(150, channels=4, estimator=LOO(), **latents) > 15


@pytest.mark.slow
@pytest.mark.parametrize("latents", [BITS, CLASSES], ids=["bits", "classes"])
@pytest.mark.parametrize("make", [RELAX, REBAR, LOO, GumbelStraightThrough])
def test_the_default_pair_learns_with_every_kind_of_estimator(make, latents):
    assert trained(600, estimator=make(), **latents) > (20 if latents is BITS else 14)


# Checkpoints of earlier versions --------------------------------------------------------------------------------------------


def network(name: str, **arguments) -> dict:
    return {"class_path": f"dvae.networks.{name}", "init_args": {"image_shape": [1, 8, 8], "channels": 2, **arguments}}


def tiny(**arguments) -> DiscreteVAE:
    encoder, decoder = network("ConvEncoder", out_features=4, **arguments), network("ConvDecoder", in_features=4, **arguments)
    return DiscreteVAE(LOO(), encoder, decoder, num_pixels=64, num_latents=4, seed=0)


@pytest.fixture
def data() -> dvae.data.ArrayData:
    images = (torch.rand(30, 64, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    return dvae.data.ArrayData(images, images, images, batch_size=10)


def saved(run, data, path, max_steps=3):
    trainer = pl.Trainer(max_steps=max_steps, **QUIET)
    trainer.fit(run, data)
    trainer.save_checkpoint(path)
    return path


def without_activation(config):
    """A config as an earlier version wrote it."""
    if isinstance(config, dict):
        return {key: without_activation(value) for key, value in config.items() if key != "activation"}
    return [without_activation(value) for value in config] if isinstance(config, list) else config


def as_of_0_1_0(path):
    content = torch.load(path, weights_only=True)
    del content["dvae"]["format"]
    content["hyper_parameters"] = without_activation(content["hyper_parameters"])
    for entry in content["dvae"].get("replicas", []):
        entry["hyper_parameters"] = without_activation(entry["hyper_parameters"])
    torch.save(content, path)
    return path


@pytest.mark.parametrize("replica", [None, 1])
def test_an_earlier_versions_checkpoint_is_of_relu_networks_as_it_was(replica, data, tmp_path):
    torch.manual_seed(0)
    model = tiny(activation="relu")
    run = model if replica is None else dvae.replicate(model, 2)
    path = as_of_0_1_0(saved(run, data, tmp_path / "old.ckpt"))
    again, _ = load_model(path, replica=replica)
    x, own = data.split("test"), model if replica is None else run.models[replica]
    torch.testing.assert_close(again.encode(x).logits, own.encode(x).logits, rtol=0, atol=0)
    torch.testing.assert_close(again.decode(again(x)), own.decode(own(x)), rtol=0, atol=0)
    # Gone on with, it says so in its own files.
    newer = saved(again, data, tmp_path / "new.ckpt")
    assert Checkpoint.open(newer).model().encoders[0].activation == "relu"


def test_a_checkpoint_of_this_version_has_the_activation_that_is_the_default(data, tmp_path):
    path = saved(tiny(), data, tmp_path / "new.ckpt")
    assert "activation" not in torch.load(path, weights_only=True)["hyper_parameters"]["encoder"]["init_args"]
    assert load_model(path)[0].encoders[0].activation == "silu"
    single = Checkpoint.open(saved(dvae.replicate(tiny(), 2), data, tmp_path / "two.ckpt")).single(0)
    assert single["dvae"]["format"] == 3


def test_an_earlier_versions_weights_are_not_put_into_networks_of_another_activation(data, tmp_path):
    path = as_of_0_1_0(saved(tiny(activation="relu"), data, tmp_path / "old.ckpt"))
    with pytest.raises(
        InputError, match=r"whose ConvEncoder was a ReLU network, but encoders\.0 is built with 'silu': give it activation"
    ):
        pl.Trainer(max_steps=6, **QUIET).fit(tiny(), copy.deepcopy(data), ckpt_path=path, weights_only=True)
    pl.Trainer(max_steps=6, **QUIET).fit(tiny(activation="relu"), data, ckpt_path=path, weights_only=True)
