"""Models whose code is on a grid, trained: they learn, their checkpoints are for every size, several train at once."""

import pytest
import pytorch_lightning as pl
import torch

import dvae
from dvae import DiscreteVAE
from dvae.data import ArrayData, BinarizedMNIST
from dvae.estimators import LOO, REBAR, RELAX
from dvae.metrics import ActiveUnits
from dvae.training.checkpoints import load_model

QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
}


def networks(channels: int = 4, blocks: int = 1) -> list[dict]:
    given = {"channels": channels, "blocks": blocks}
    return [{"class_path": f"dvae.networks.Residual{name}", "init_args": dict(given)} for name in ("Encoder", "Decoder")]


def tiny(size: int = 8, **options) -> DiscreteVAE:
    return DiscreteVAE(
        options.pop("estimator", LOO()),
        *networks(),
        image_shape=(1, size, size),
        num_latents=3 * (size // 4) ** 2,
        seed=0,
        **options,
    )


def stripes(size: int) -> ArrayData:
    images = (torch.rand(30, 1, size, size, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    return ArrayData(images, images, images, batch_size=10)


def fitted(run, data, max_steps: int = 3):
    trainer = pl.Trainer(max_steps=max_steps, limit_val_batches=0, **QUIET)
    trainer.fit(run, data)
    return trainer


@pytest.mark.parametrize("latents", [{"num_latents": 196}, {"latent": "Categorical", "num_latents": 49, "num_classes": 16}])
def test_units_are_active_after_a_hundred_steps(latents):
    data = BinarizedMNIST(batch_size=24)
    model = DiscreteVAE(LOO(), *networks(8), image_shape=(1, 28, 28), seed=0, **latents)
    fitted(model, data, 100)
    active = ActiveUnits(model.latent.sample_shape)
    with torch.no_grad():
        active.update(model.encode(data.split("test")[:500]).mean)
    assert active.compute() > 0.5 * model.num_latents


def test_a_checkpoint_is_for_every_size(tmp_path):
    model = tiny(estimator=RELAX(hidden=5))
    fitted(model, stripes(8)).save_checkpoint(tmp_path / "m.ckpt")
    again, _ = load_model(tmp_path / "m.ckpt")
    x = (torch.rand(4, 1, 12, 20) < 0.3).float()
    assert torch.equal(again.encode_ids(x), model.encode_ids(x))
    torch.testing.assert_close(again.encode(x).logits, model.encode(x).logits, rtol=0, atol=0)
    result = dvae.evaluate(tmp_path / "m.ckpt", stripes(16), num_samples=2, num_draws=4)
    assert result.num_latents == 48
    assert torch.tensor([*result.elbo, result.log_variance_logits]).isfinite().all()


def test_an_estimator_with_a_network_for_one_size_has_no_variance_at_another():
    result = dvae.evaluate(tiny(estimator=dvae.estimators.NVIL()), stripes(16), num_samples=2, num_draws=4)
    assert torch.tensor(result.elbo).isfinite().all()
    assert torch.tensor([result.log_variance_logits, result.log_variance_encoder]).isnan().all()


def test_a_model_for_larger_images_starts_from_the_weights_of_one_for_small_ones(tmp_path):
    model = tiny(estimator=RELAX(hidden=5))
    fitted(model, stripes(8)).save_checkpoint(tmp_path / "m.ckpt")
    larger = tiny(16, estimator=RELAX(hidden=5))
    taken = dvae.init_from(larger, tmp_path / "m.ckpt")
    assert set(taken.taken) >= {name for name, _ in model.named_parameters()}
    assert all(torch.equal(a, b) for a, b in zip(larger.parameters(), model.parameters(), strict=True))
    assert not larger.mean_is_set  # that is a matter of the data
    fitted(larger, stripes(16))


@pytest.mark.parametrize("make", [REBAR, lambda: RELAX(hidden=5)], ids=["REBAR", "RELAX"])
def test_several_models_train_at_once_as_each_alone(make):
    torch.manual_seed(0)
    model, data = tiny(estimator=make()), stripes(8)
    run = dvae.replicate(model, 2)
    alone = [tiny(estimator=make()) for _ in run.models]
    for own, other in zip(alone, run.models, strict=True):
        own.load_state_dict(other.state_dict())
        own.seed = other.seed
    trainer = pl.Trainer(max_steps=3, limit_val_batches=0, **QUIET)
    trainer.fit(run, data)
    for own, offset in zip(alone, run.seed_offsets, strict=True):
        images = data.split("train").reshape(-1, 1, 8, 8)
        fitted(own, ArrayData(images, images, images, batch_size=10, seed=offset))
    for own, other in zip(alone, run.models, strict=True):
        for a, b in zip(own.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_a_convolutional_model_is_trained_in_other_precisions(precision):
    model = tiny(compile=False)
    trainer = pl.Trainer(max_steps=2, val_check_interval=2, limit_val_batches=1, precision=precision, **QUIET)
    trainer.fit(model, stripes(8))
    assert trainer.callback_metrics["val/elbo"].isfinite()
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_the_order_of_memory_changes_no_more_than_the_last_digits():
    given = {"channels": 4, "blocks": 1}
    models = []
    for channels_last in (False, True):
        torch.manual_seed(0)
        arguments = {**given, "channels_last": channels_last}
        networks = [{"class_path": f"dvae.networks.Residual{name}", "init_args": arguments} for name in ("Encoder", "Decoder")]
        models.append(DiscreteVAE(LOO(), *networks, image_shape=(1, 8, 8), num_latents=12, seed=0, compile=False).double())
        fitted(models[-1], stripes(8))
    one, two = (torch.nn.utils.parameters_to_vector(p.contiguous() for p in model.parameters()) for model in models)
    torch.testing.assert_close(one, two)
    assert models[1].decoders[0].layers[0].weight.is_contiguous(memory_format=torch.channels_last)
