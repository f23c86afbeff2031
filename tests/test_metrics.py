"""How a code is used, and how alike images are."""

import math

import pytest
import pytorch_lightning as pl
import torch
import torchmetrics

import dvae
from dvae.errors import InputError
from dvae.metrics import BitInformation, CodeEntropy, CodeRate, CodeUsage, frechet_distance, psnr, ssim
from dvae.training.callbacks import Measures


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


def test_usage_is_the_share_of_values_that_some_example_has():
    bits, words = CodeUsage([2]), CodeUsage([1, 4])
    for mean in torch.tensor([[[0.1, 0.9]], [[0.8, 0.7]]]):
        bits.update(mean)
    torch.testing.assert_close(bits.compute(), torch.tensor([1.0, 0.5]))
    words.update(torch.tensor([[0, 3], [3, 3]]))  # tokens, as they are
    words.update(torch.nn.functional.one_hot(torch.tensor([[1]]), 4).float())
    torch.testing.assert_close(words.compute().reshape(-1), torch.tensor([0.75]))


def test_bits_of_equal_content_share_their_entropy_and_independent_ones_nothing():
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.rand(2, 20_000, generator=generator) < torch.tensor([[0.5], [0.2]])).float()
    flips = (torch.rand(20_000, generator=generator) < 0.1).float()
    noisy = (first - flips).abs()
    codes = torch.stack([first, 1 - first, second, noisy], 1)
    metric = BitInformation(4)
    for batch in codes.split(3000):
        metric.update(batch)
    found = metric.compute()

    def entropy(p):
        return -(p * math.log2(p) + (1 - p) * math.log2(1 - p))

    torch.testing.assert_close(found, found.T)
    torch.testing.assert_close(found[0, 1], found[0, 0], atol=1e-5, rtol=0)
    assert found[2, 2].item() == pytest.approx(entropy(codes[:, 2].mean().item()), abs=1e-5)
    # 2 N ln 2 times the information of independent bits is chi-squared with one degree of freedom.
    assert 2 * 20_000 * math.log(2) * found[0, 2].item() < 3.84 * 3
    flipped = flips.mean().item()
    assert found[0, 3].item() == pytest.approx(1 - entropy(flipped), abs=2e-3)
    off = [found[i, j] for i in range(4) for j in range(4) if i != j]
    torch.testing.assert_close(metric.between_bits, torch.stack(off).mean())


def test_information_of_probabilities_is_that_of_many_samples():
    probs = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)) ** 3
    exact, sampled = BitInformation(3), BitInformation(3)
    exact.update(probs)
    sampled.update(torch.bernoulli(probs.expand(4000, 50, 3), generator=torch.Generator().manual_seed(1)))
    torch.testing.assert_close(exact.compute(), sampled.compute(), atol=2e-3, rtol=0)


class Features(torch.nn.Module):
    """Means of an image's four quarters."""

    def forward(self, images):
        return torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


def test_frechet_distance_of_sets_that_differ_in_their_mean_alone():
    images = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0)) / 2
    metric = frechet_distance(Features(), (1, 8, 8))
    metric.update(images, real=True)
    metric.update(images + 0.25, real=False)
    assert metric.compute().item() == pytest.approx(4 * 0.25**2, rel=1e-3)


def test_what_is_no_network_of_features_is_refused():
    with pytest.raises(InputError, match=r"features must take images .* but took .* to \(2, 1, 8, 8\)"):
        frechet_distance(torch.nn.Identity(), (1, 8, 8))
    with pytest.raises(InputError, match=r"features must take images .*; it raised"):
        frechet_distance(torch.nn.Linear(3, 3), (1, 8, 8))
    with pytest.raises(InputError, match=r"features: cannot import 'no\.such'"):
        frechet_distance("no.such", (1, 8, 8))
    with pytest.raises(InputError, match=r"features must be an nn.Module or what makes one, got float at math.pi"):
        frechet_distance("math.pi", (1, 8, 8))


def test_an_evaluation_says_how_bits_are_used(tiny_data):
    model = dvae.VAE(dvae.estimators.LOO(), num_pixels=16, num_latents=4, num_layers=2)
    result = dvae.evaluate(model, tiny_data, num_samples=2, num_draws=4)
    bits = BitInformation(4)
    bits.update(model.encode(tiny_data.split("test")).mean)
    assert result.bit_information[0] == pytest.approx(bits.between_bits.item(), rel=1e-4)
    assert len(result.code_usage) == len(result.bit_information) == 2
    assert (result.word_usage, result.frechet_samples) == (None, None)
    assert "mutual information of two bits, bits" in [name for name, _, _ in result.rows()]


def test_frechet_distances_are_measured_on_request(data):
    model = model_of(data)
    model.set_mean(data.mean)
    plain = dvae.evaluate(model, data, num_samples=2, num_draws=4)
    result = dvae.evaluate(model, data, num_samples=2, num_draws=4, features=Features())
    assert plain == result._replace(frechet_samples=None, frechet_reconstructions=None)
    assert result.frechet_samples > 0
    assert result.frechet_reconstructions > 0
    names = [name for name, _, _ in result.rows()]
    assert {"Fréchet distance of samples", "Fréchet distance of reconstructions"} <= set(names)


QUIET = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False}


def test_measures_are_logged_after_a_validation_and_change_nothing(data):
    logged, parameters = [], []
    for extra in (False, True):
        torch.manual_seed(0)
        model = model_of(data)
        measures = Measures(
            reconstructions={"psnr": torchmetrics.image.PeakSignalNoiseRatio(data_range=1.0)},
            codes={
                "usage": {"class_path": "dvae.metrics.CodeUsage", "init_args": {"shape": [4]}},
                "shared": BitInformation(4),
            },
            features=Features(),
        )
        trainer = pl.Trainer(max_epochs=2, accelerator="cpu", callbacks=[measures] if extra else [], **QUIET)
        trainer.fit(model, data)
        logged.append(trainer.callback_metrics)
        parameters.append(torch.cat([p.flatten() for p in model.parameters()]))
    assert torch.equal(*parameters)
    assert {name for name in logged[1] if name not in logged[0]} == {"val/psnr", "val/usage", "val/shared", "val/frechet_distance"}
    assert 5 < logged[1]["val/psnr"] < 20
    assert 0.5 <= logged[1]["val/usage"] <= 1
    information = BitInformation(4)
    information.update(model.encode(data.split("valid")).mean)
    torch.testing.assert_close(logged[1]["val/shared"], information.between_bits)


def test_measures_are_of_each_replica(tiny_data):
    replicas = dvae.replicate(dvae.DiscreteVAE(dvae.estimators.LOO(), num_pixels=16, num_latents=4, val_num_samples=2), 2)
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", callbacks=[Measures(codes={"usage": CodeUsage([4])})], **QUIET)
    trainer.fit(replicas, tiny_data)
    assert {"val/usage", "val/usage/0", "val/usage/1"} <= set(trainer.callback_metrics)


def test_measures_that_cannot_be_are_refused(tiny_data):
    with pytest.raises(InputError, match="measures must have reconstructions, codes or features to measure, got none"):
        Measures()
    with pytest.raises(InputError, match="different names, got usage, usage"):
        Measures({"usage": CodeUsage([4])}, {"usage": CodeUsage([4])})
    with pytest.raises(InputError, match=r"codes.usage must be a Metric or a mapping"):
        Measures(codes={"usage": 3})
    normal = dvae.DiscreteVAE(num_pixels=16, num_latents=4, likelihood=dvae.likelihoods.Normal())
    measures = Measures({"psnr": torchmetrics.image.PeakSignalNoiseRatio(data_range=1.0)})
    with pytest.raises(InputError, match="images are measured in a range, which Normal has not"):
        pl.Trainer(max_epochs=1, accelerator="cpu", callbacks=[measures], **QUIET).fit(normal, tiny_data)
