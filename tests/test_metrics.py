"""How a code is used, and how alike images are."""

import math

import pytest
import pytorch_lightning as pl
import torch

import dvae
from dvae.metrics import CodeEntropy, CodeRate, psnr, ssim


def test_entropy_of_bits_is_that_of_their_mean_over_the_data():
    metric = CodeEntropy([3])
    metric.update(torch.tensor([[0.0, 1.0, 0.5], [1.0, 1.0, 0.5]]))
    metric.update(torch.tensor([[0.0, 1.0, 0.0], [1.0, 1.0, 0.0]]))
    quarter = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    torch.testing.assert_close(metric.compute(), torch.tensor([1.0, 0.0, quarter]))
    torch.testing.assert_close(metric.perplexity, torch.tensor([2.0, 1.0, 2**quarter]))


def test_perplexity_of_classes_is_how_many_are_used():
    metric = CodeEntropy([2, 4])
    classes = torch.tensor([[0, 0], [1, 0], [2, 0], [3, 0], [0, 1], [1, 1], [2, 1], [3, 1]])
    metric.update(torch.nn.functional.one_hot(classes, 4).float())
    torch.testing.assert_close(metric.perplexity, torch.tensor([4.0, 2.0]))


def test_places_of_a_grid_count_for_themselves():
    spec = dvae.latents.Spec(dvae.latents.Categorical, 8, 3, grid=(2, 2))
    mean = torch.rand(5, *spec.sample_shape).softmax(-1)
    metric, flat = CodeEntropy(spec.place_shape), CodeEntropy([2, 3])
    metric.update(mean)
    flat.update(mean.reshape(20, 2, 3))
    assert metric.compute().shape == (2,)
    torch.testing.assert_close(metric.compute(), flat.compute())


def test_the_rate_of_independent_fair_bits_is_their_number_and_of_a_place_that_repeats_itself_half():
    code = torch.randint(0, 2, (4000, 4), generator=torch.Generator().manual_seed(0))
    apart, together = CodeRate(4, 2), CodeRate(4, 2, per_symbol=2)
    for metric in (apart, together):
        metric.update(code[:1000])
        metric.update(code[1000:])
    assert apart.compute() == pytest.approx(4, abs=0.01)
    assert together.compute() == pytest.approx(4, abs=0.01)
    repeated = torch.stack([code[:, 0], code[:, 0], code[:, 1], code[:, 1]], -1)
    apart, together = CodeRate(4, 2), CodeRate(4, 2, per_symbol=2)
    apart.update(repeated)
    together.update(repeated)
    assert apart.compute() == pytest.approx(4, abs=0.01)
    assert together.compute() == pytest.approx(2, abs=0.01)
    assert together.perplexity == pytest.approx(2, abs=0.01)


def test_symbols_of_too_many_values_to_count_are_counted_latent_by_latent():
    metric = CodeRate(40, 2, per_symbol=20)
    metric.update(torch.zeros(3, 40))
    assert metric.counts.shape == (40, 2)
    assert metric.compute() == 0


def test_psnr_is_of_each_image_and_does_not_depend_on_the_unit():
    images, others = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 25.5)
    others[1] = 255
    torch.testing.assert_close(psnr(images, others, 255.0), torch.tensor([20.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(psnr(images / 255, others / 255, 1.0), psnr(images, others, 255.0))
    assert psnr(images, images, 255.0).isfinite().all()


def test_ssim_is_one_of_an_image_and_itself():
    images = torch.rand(2, 3, 16, 16)
    values = ssim(images, torch.stack([images[0], images[1].flip(-1)]), 1.0)
    assert values[0] == pytest.approx(1)
    assert values[1] < 0.5


@pytest.fixture
def data():
    images = torch.randint(0, 256, (30, 3, 12, 12), generator=torch.Generator().manual_seed(0)).byte()
    return dvae.data.ArrayData(images[:20], images[20:25], images[25:], batch_size=10)


def model_of(data) -> dvae.DiscreteVAE:
    levels = dvae.likelihoods.DiscretizedLogistic()
    return dvae.DiscreteVAE(
        dvae.estimators.LOO(), likelihood=levels, image_shape=data.image_shape, num_latents=4, val_num_samples=2
    )


def test_an_evaluation_of_photographs_says_how_alike_reconstructions_are(data):
    model = model_of(data)
    model.set_mean(data.mean)
    result = dvae.evaluate(model, data, num_samples=2, num_draws=4)
    assert 5 < result.psnr.mean < 20
    assert -1 < result.ssim.mean < 0.5
    assert len(result.code_entropy) == 1
    assert result.perplexity[0] <= 2
    names = [name for name, _, _ in result.rows()]
    assert {"PSNR of reconstructions (dB)", "SSIM of reconstructions"} <= set(names)
    assert dvae.lab.evaluate.Evaluation.of(result.as_dict()) == result


def test_an_evaluation_of_bits_has_no_psnr(tiny_data):
    model = dvae.VAE(dvae.estimators.LOO(), num_pixels=16, num_latents=4)
    result = dvae.evaluate(model, tiny_data, num_samples=2, num_draws=4)
    assert (result.psnr, result.ssim) == (None, None)
    assert 0 <= result.code_entropy[0] <= 1


def test_an_evaluation_of_continuous_latents_has_no_entropy_of_codes(tiny_data):
    model = dvae.VAE(dvae.estimators.Reparameterization(), num_pixels=16, num_latents=4, latent="Gaussian")
    assert dvae.evaluate(model, tiny_data, num_samples=2, num_draws=4).code_entropy is None


@pytest.mark.parametrize(
    "latents",
    [{"num_latents": 4}, {"num_latents": 1}, {"num_latents": 4, "latent": "Gaussian", "estimator": dvae.estimators.LAX()}],
    ids=["bits", "bit", "gaussian"],
)
def test_validation_logs_the_entropy_of_discrete_codes(tiny_data, latents):
    model = dvae.DiscreteVAE(num_pixels=16, val_num_samples=2, **latents)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", **quiet)
    trainer.fit(model, tiny_data)
    assert ("val/code_entropy" in trainer.logged_metrics) == ("latent" not in latents)
