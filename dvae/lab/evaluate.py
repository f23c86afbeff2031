"""Evaluating a trained model on a data set."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from dvae.data import Examples, data_module, examples_of
from dvae.data.batches import StreamedExamples
from dvae.data.source import is_loader
from dvae.errors import InputError
from dvae.estimators import GradientEstimator
from dvae.lab.likeness import Frechet, Likeness, Mean
from dvae.latents import Latent
from dvae.metrics import ActiveUnits, BitInformation, CodeEntropy, CodeUsage, MeanWithError
from dvae.models import VAE, Autoencoder, Quantized
from dvae.training import lightning, record
from dvae.training.checkpoints import Checkpoint
from dvae.training.gradient_variance import GradientVariance, log_gradient_variance
from dvae.training.single import Trainable

__all__ = [
    "CodeEvaluation",
    "Evaluation",
    "Mean",
    "evaluate",
    "evaluation_of",
    "open_autoencoder",
    "open_model",
    "picture_shape",
    "pooled",
    "sized_for",
]


A = TypeVar("A", bound=Autoencoder)

# Samples are evaluated this many pixels at a time, so that memory does not grow with the number of samples.
_MAX_PIXELS = 1 << 23
# Pairs of more bits than this are not counted, nor words of larger codebooks.
_MOST_BITS, _MOST_WORDS = 2048, 2**20


class Evaluation(NamedTuple):
    """What :func:`evaluate` measured.

    train_elbo: the training ELBO that the checkpoint's run logged last, nats; None for a model without a checkpoint.
    elbo, importance_weighted_bound, reconstruction, kl: means over examples, nats.
    active_units: for each layer, latents whose mean under q(b | x) has a variance above .01 over the data.
    is_bound: whether the likelihood gives the data's values a probability, so that the ELBO and the bound are bounds on log p(x);
        grey levels under a Bernoulli make them cross-entropies.
    bits_per_dimension: the negative ELBO and its standard error in bits for each value of x, where these are integers; else None.
    code_entropy, perplexity: for each layer, means over latents of what :class:`dvae.metrics.CodeEntropy` measures, in bits and as
        a number of values; None for continuous latents.
    code_usage: for each layer, the share of its latents' values that are some example's most probable ones, see
        :class:`dvae.metrics.CodeUsage`; None for continuous latents.
    word_usage: of a code on a grid, the share of all words (the latents of one place together) that occur in the data's codes; None
        for other codes and for more than a million words.
    bit_information: for each layer, the mutual information of two bits, the mean over pairs, see
        :class:`dvae.metrics.BitInformation`; None where there are no two bits, or more than 2,048 (at a place).
    frechet_samples, frechet_reconstructions: Fréchet distances of the data from as many samples of the prior, and from
        reconstructions, in the features that were asked for.
    psnr, ssim: of images of more than two levels, decibels and at most 1: how alike they are to their reconstructions from one
        sampled code; None for other data (ssim also for images of fewer than 11 pixels a side).
    log_partition: log Z of a prior that is known up to it, nats, with the error of its estimate, which ELBO and bound share; else
        None.
    mse: mean squared error of a value of x, in its own unit, against the reconstruction from that code.
    rate, symbol_perplexity: bits of that code, of the first layer, if each symbol is coded by itself, and the mean number of values
        of a symbol in use: see :class:`dvae.metrics.CodeRate`; None for continuous latents.
    is_density: whether the likelihood is one of real values, whose ELBO is a logarithm of a density and depends on their unit.
    log_variance_logits, log_variance_encoder: see :func:`dvae.metrics.log_gradient_variance`; on one batch of training size. Not a
        number for images of another size than the model's, where an estimator's network is for that alone.
    """

    num_examples: int
    num_samples: int
    elbo: Mean
    importance_weighted_bound: Mean
    reconstruction: Mean
    kl: Mean
    active_units: list[int]
    num_latents: int
    log_variance_logits: float
    log_variance_encoder: float
    train_elbo: float | None
    is_bound: bool = True
    bits_per_dimension: Mean | None = None
    is_density: bool = False
    code_entropy: list[float] | None = None
    perplexity: list[float] | None = None
    psnr: Mean | None = None
    ssim: Mean | None = None
    code_usage: list[float] | None = None
    word_usage: float | None = None
    bit_information: list[float] | None = None
    frechet_samples: float | None = None
    frechet_reconstructions: float | None = None
    log_partition: Mean | None = None
    mse: Mean | None = None
    rate: float | None = None
    symbol_perplexity: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return plain_of(self)

    @classmethod
    def of(cls, figures: Mapping[str, Any]) -> Evaluation:
        """What :meth:`as_dict` gave, back from JSON."""
        return cls(**values_of(figures))

    def rows(self) -> list[tuple[str, str, str]]:
        """(quantity, value, standard error) as text, for a table."""

        def nats(name: str, value: Mean) -> tuple[str, str, str]:
            return name, *_two_digits(value)

        def bits(value: Mean) -> tuple[str, str, str]:
            return "bits per dimension, of the ELBO", f"{value.mean:.4f}", f"{value.standard_error:.4f}"

        return [
            nats(self._name_of_elbo, self.elbo),
            nats("  reconstruction", self.reconstruction),
            nats("  KL", self.kl),
            nats(
                f"importance-weighted {'bound' if self.is_bound else 'objective, no bound'}, {self.num_samples} samples",
                self.importance_weighted_bound,
            ),
            *([] if self.bits_per_dimension is None else [bits(self.bits_per_dimension)]),
            (f"active units (of {self.num_latents} a layer)", ", ".join(map(str, self.active_units)), ""),
            *([] if self.code_entropy is None or self.perplexity is None else [self._code(self.code_entropy, self.perplexity)]),
            *self._shares(),
            *_rows_of_code(self),
            *self._distances(),
            *([] if self.log_partition is None else [nats("log Z of the prior", self.log_partition)]),
            ("log-variance of the gradient: logits", f"{self.log_variance_logits:.2f}", ""),
            ("log-variance of the gradient: encoder", f"{self.log_variance_encoder:.2f}", ""),
            *([] if self.train_elbo is None else [(self._name_of_train_elbo, f"{self.train_elbo:.2f}", "")]),
        ]

    @staticmethod
    def _code(entropy: Sequence[float], perplexity: Sequence[float]) -> tuple[str, str, str]:
        values = (f"{bits:.2f} ({number:.2f})" for bits, number in zip(entropy, perplexity, strict=True))
        return "entropy of a latent over the data, bits (perplexity)", ", ".join(values), ""

    def _shares(self) -> list[tuple[str, str, str]]:
        found = []
        if self.code_usage is not None:
            found.append(("values of a latent in use", ", ".join(f"{share:.1%}" for share in self.code_usage), ""))
        if self.word_usage is not None:
            found.append(("words of a place in use", f"{self.word_usage:.1%}", ""))
        if self.bit_information is not None:
            figures = ", ".join(f"{bits:.2g}" for bits in self.bit_information)
            found.append(("mutual information of two bits, bits", figures, ""))
        return found

    def _distances(self) -> list[tuple[str, str, str]]:
        figures = {"samples": self.frechet_samples, "reconstructions": self.frechet_reconstructions}
        return [(f"Fréchet distance of {name}", f"{value:.4g}", "") for name, value in figures.items() if value is not None]

    @property
    def _name_of_elbo(self) -> str:
        if not self.is_bound:
            return "cross-entropy objective, no bound (nats)"
        return "ELBO (nats, of a density)" if self.is_density else "ELBO (nats)"

    @property
    def _name_of_train_elbo(self) -> str:
        if self.log_partition is not None:
            return "training objective, last logged: log Z is not in it (nats)"
        return f"training {'ELBO' if self.is_bound else 'cross-entropy objective'}, last logged (nats)"


class CodeEvaluation(NamedTuple):
    """What :func:`evaluate` measured of a quantised autoencoder, whose code has no distribution and no bound.

    reconstruction: log p(x | code), mean over examples, nats.
    num_latents: vectors of an example.
    num_values: values that each may have.
    mse, psnr, ssim, rate, symbol_perplexity: as in :class:`Evaluation`.
    """

    num_examples: int
    reconstruction: Mean
    num_latents: int
    num_values: int
    mse: Mean
    rate: float
    symbol_perplexity: float
    psnr: Mean | None = None
    ssim: Mean | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return plain_of(self)

    def rows(self) -> list[tuple[str, str, str]]:
        """(quantity, value, standard error) as text, for a table."""
        return [("reconstruction (nats)", *_two_digits(self.reconstruction)), *_rows_of_code(self)]


def evaluation_of(figures: Mapping[str, Any]) -> Evaluation | CodeEvaluation:
    """What ``as_dict`` of an evaluation gave, back from JSON."""
    return Evaluation.of(figures) if "elbo" in figures else CodeEvaluation(**values_of(figures))


def values_of(figures: Mapping[str, Any]) -> dict[str, Any]:
    """What :func:`plain_of` gave, back from JSON."""
    return {name: Mean(**value) if isinstance(value, dict) else value for name, value in figures.items()}


def plain_of(figures: Any) -> dict[str, Any]:
    """The fields of a named tuple of figures, as plain values for JSON."""
    return {name: value._asdict() if isinstance(value, Mean) else value for name, value in figures._asdict().items()}


def _rows_of_code(evaluation: Evaluation | CodeEvaluation) -> list[tuple[str, str, str]]:
    """The rate of a code and its distortion."""
    rows = []
    if evaluation.rate is not None:
        rows.append(("rate of the code, symbol by symbol (bits)", f"{evaluation.rate:.2f}", ""))
        rows.append(("  values of a symbol in use (perplexity)", f"{evaluation.symbol_perplexity:.2f}", ""))
    if evaluation.mse is not None:
        mse, error = evaluation.mse
        rows.append(("mean squared error of reconstructions", f"{mse:.4g}", f"{error:.2g}"))
    if evaluation.psnr is not None:
        rows.append(("PSNR of reconstructions (dB)", *_two_digits(evaluation.psnr)))
    if evaluation.ssim is not None:
        rows.append(("SSIM of reconstructions", f"{evaluation.ssim.mean:.4f}", f"{evaluation.ssim.standard_error:.4f}"))
    return rows


def _two_digits(value: Mean) -> tuple[str, str]:
    return f"{value.mean:.2f}", f"{value.standard_error:.2f}"


def pooled(evaluations: Sequence[Evaluation | CodeEvaluation]) -> dict[str, Mean]:
    """The mean over models, such as replicas, of each figure that is one number; the standard error is between models."""
    figures = {}
    for name in (
        "train_elbo",
        "elbo",
        "importance_weighted_bound",
        "reconstruction",
        "kl",
        "log_variance_logits",
        "log_variance_encoder",
        "bits_per_dimension",
        "rate",
        "symbol_perplexity",
        "mse",
        "psnr",
        "ssim",
    ):
        values = [getattr(own, name, None) for own in evaluations]
        numbers = [value.mean if isinstance(value, Mean) else value for value in values if value is not None]
        if len(numbers) == len(evaluations):
            figures[name] = Mean(fmean(numbers), stdev(numbers) / math.sqrt(len(numbers)) if len(numbers) > 1 else math.nan)
    return figures


@torch.no_grad()
def evaluate(
    model: Autoencoder | Checkpoint | str | Path,
    data: Any = None,
    *,
    split: str = "test",
    num_examples: int | None = None,
    num_samples: int = 100,
    num_draws: int = 100,
    seed: int = 0,
    device: str | torch.device | None = None,
    trust: bool = False,
    replica: int | None = None,
    features: nn.Module | str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> Evaluation | CodeEvaluation:
    """ELBO, importance-weighted bound and what belongs to them, with standard errors over the examples.

    A quantised autoencoder has no bound and nothing random: its rate and distortion are measured, and ``num_samples``,
    ``num_draws`` and ``seed`` have no say.

    Arguments:
        model: a model, which is left as it was; a checkpoint, or a folder that holds some.
        data: any LightningDataModule, a DataLoader (which is the split), what :func:`dvae.data.data_module` takes, or None for the
            checkpoint's own.
        split: "train", "valid" or "test".
        num_examples: so many of the split, drawn without replacement; by default all. Fewer are faster, and the standard errors
            say what that costs.
        num_samples: samples of q for each example; memory does not grow with it.
        num_draws: draws for the log-variance of the gradient, on the split's first 24 examples.
        seed: of all noise; the same seed gives the same figures.
        device: where to compute; by default where the model is, for a checkpoint the GPU if there is one.
        trust: import classes from outside ``dvae`` that the checkpoint names.
        replica: which model of a checkpoint of several, from 0.
        features: a network from images [B, C, H, W] in [0, 1] to [B, F], or its import path, see
            :func:`dvae.metrics.frechet_distance`: then Fréchet distances are measured, at the cost of as many samples as examples.
        progress: called with the number of examples done and their total, None where only the end tells.

    Raises:
        InputError: an argument, the checkpoint or the data set is not what was expected.
    """
    if num_samples < 1:
        raise InputError(f"num_samples must be at least 1, got {num_samples}")
    if num_examples is not None and num_examples < 2:
        raise InputError(f"num_examples must be at least 2, for standard errors are over examples, got {num_examples}")
    with _left_as_it_was(model):
        model, data, train_elbo = open_autoencoder(model, data, device=device, trust=trust, replica=replica)
        examples = examples_of(data, split, input_key=getattr(model, "input_key", None), trust=trust)
        if num_examples is not None:
            examples = StreamedExamples([examples.some(num_examples, seed).reshape(-1, *examples.shape)])
        if isinstance(model, VAE):
            return _measured(model, examples, train_elbo, num_samples, num_draws, seed, features, progress)
        assert isinstance(model, Quantized)
        if features is not None:
            raise InputError(
                "features are for models that have samples of a prior, which a quantised autoencoder has not: leave them out"
            )
        return _code_measured(model, examples, progress)


def _code_measured(model: Quantized, examples: Examples, progress: Callable[[int, int | None], None] | None) -> CodeEvaluation:
    model = sized_for(model, examples)
    reconstruction, likeness = MeanWithError().to(model.device), Likeness(model, examples.shape)
    done = 0
    for piece in examples.pieces(100):
        x = model.check_input(piece.x.to(model.device))
        quantised = model.quantize(x)
        outputs = model.decode(quantised.values)
        reconstruction.update(model.likelihood.log_prob(x, outputs))
        likeness.update(x, model.likelihood.mean(outputs), quantised.code)
        done += len(x)
        if progress is not None:
            progress(done, examples.count)
    return CodeEvaluation(
        num_examples=done,
        reconstruction=Mean.of(reconstruction),
        num_latents=model.num_latents,
        num_values=model.quantizer.num_values,
        mse=Mean.of(likeness.mse),
        rate=likeness.of_code("rate") or 0.0,
        symbol_perplexity=likeness.of_code("perplexity") or 0.0,
        psnr=likeness.of("psnr"),
        ssim=likeness.of("ssim"),
    )


def _measured(
    model: VAE,
    examples: Examples,
    train_elbo: float | None,
    num_samples: int,
    num_draws: int,
    seed: int,
    features: nn.Module | str | None,
    progress: Callable[[int, int | None], None] | None,
) -> Evaluation:
    model.prior.normalize(torch.Generator().manual_seed(seed))
    own, model = model, sized_for(model, examples)
    generator = torch.Generator().manual_seed(seed)
    elbo, bound, reconstruction, kl = (MeanWithError().to(model.device) for _ in range(4))
    active = [ActiveUnits(model.latent.sample_shape).to(model.device) for _ in range(model.num_layers)]
    codes = [_CodeFigures(model) for _ in active]
    likeness = Likeness(model, examples.shape)
    frechet = None if features is None else Frechet(model, examples.shape, features)
    done, is_bound = 0, True
    # Of one size whatever the loader's is, for the noise depends on it.
    for piece in examples.pieces(100):
        x = model.check_input(piece.x.to(model.device))
        is_bound = is_bound and model.likelihood.covers(x)
        chunk = max(1, _MAX_PIXELS // x.numel())
        sums = torch.zeros(2, x.shape[0], dtype=torch.float64, device=x.device)
        log_total = torch.full((x.shape[0],), -math.inf, dtype=torch.float64, device=x.device)
        for first in range(0, num_samples, chunk):
            layers = model.sample_layers(x, min(chunk, num_samples - first), generator)
            terms = model.terms(x, layers)
            sums += torch.stack([part.double().sum(0) for part in terms])
            if first == 0:
                b = layers[0].sample[0]
                reconstructed = model.likelihood.mean(model.decode(b))
                likeness.update(x, reconstructed, model.latent.code(b))
                if frechet is not None:
                    frechet.update(x, reconstructed)
            sampled = terms if model.kl == "sampled" else model.terms(x, layers, kl="sampled")
            log_total = torch.logaddexp(log_total, torch.logsumexp(sampled.elbo.double(), 0))
        reconstruction.update(sums[0] / num_samples)
        kl.update(sums[1] / num_samples)
        elbo.update((sums[0] - sums[1]) / num_samples)
        bound.update(log_total - math.log(num_samples))
        for layer, metric in zip(layers, active, strict=True):
            metric.update(layer.q.mean.reshape(-1, *model.latent.sample_shape))
        for layer, figures in zip(layers, codes, strict=True):
            figures.update(layer.q)
        done += len(x)
        if progress is not None:
            progress(done, examples.count)
    if model is own or _are_on_grid(model.estimators):
        variance = log_gradient_variance(model, examples.first(24).to(model.device), num_draws, seed)
    else:
        variance = GradientVariance(*[math.nan] * 4)
    measured = Mean.of(elbo)
    distances = (None, None) if frechet is None else frechet.compute(seed)
    unit, has_bits = math.log(2) * model.num_pixels, is_bound and model.likelihood.whole
    return Evaluation(
        num_examples=done,
        num_samples=num_samples,
        elbo=measured,
        importance_weighted_bound=Mean.of(bound),
        reconstruction=Mean.of(reconstruction),
        kl=Mean.of(kl),
        active_units=[int(metric.compute()) for metric in active],
        num_latents=model.num_latents,
        log_variance_logits=variance.logits,
        log_variance_encoder=variance.encoder,
        train_elbo=train_elbo,
        is_bound=is_bound,
        bits_per_dimension=Mean(-measured.mean / unit, measured.standard_error / unit) if has_bits else None,
        is_density=not model.likelihood.whole,
        code_entropy=_of_each(codes, lambda own: None if own.entropy is None else own.entropy.compute().mean()),
        perplexity=_of_each(codes, lambda own: None if own.entropy is None else own.entropy.perplexity.mean()),
        code_usage=_of_each(codes, lambda own: None if own.usage is None else own.usage.compute().mean()),
        word_usage=None if codes[0].words is None else codes[0].words.compute().item(),
        bit_information=_of_each(codes, lambda own: None if own.information is None else own.information.between_bits),
        psnr=likeness.of("psnr"),
        ssim=likeness.of("ssim"),
        frechet_samples=distances[0],
        frechet_reconstructions=distances[1],
        log_partition=None if model.prior.log_constant is None else Mean(*model.prior.log_constant),
        mse=Mean.of(likeness.mse),
        rate=likeness.of_code("rate"),
        symbol_perplexity=likeness.of_code("perplexity"),
    )


class _CodeFigures:
    """How one layer's code is used: metrics, None where they are not of its latents."""

    def __init__(self, model: VAE) -> None:
        latent = model.latent
        self.entropy: CodeEntropy | None = None
        self.usage: CodeUsage | None = None
        self.words: CodeUsage | None = None
        self.information: BitInformation | None = None
        if latent.num_values is None:
            return
        self.entropy = CodeEntropy(latent.place_shape).to(model.device)
        self.usage = CodeUsage(latent.place_shape).to(model.device)
        if latent.grid is not None and model.num_ids <= _MOST_WORDS:
            self.words = CodeUsage([1, model.num_ids]).to(model.device)
            self.ids_of, self.code = model.ids_of, latent.code
        if latent.family.binary and 1 < latent.num_per_place <= _MOST_BITS:
            self.information = BitInformation(latent.num_per_place).to(model.device)

    def update(self, q: Latent) -> None:
        for metric in (self.entropy, self.usage, self.information):
            if metric is not None:
                metric.update(q.mean)
        if self.words is not None:
            self.words.update(self.ids_of(self.code(q.mode())))


def _of_each(codes: Sequence[_CodeFigures], figure: Callable[[_CodeFigures], Tensor | None]) -> list[float] | None:
    """A figure of each layer; None where it is not of these latents."""
    found = [value.item() for own in codes if (value := figure(own)) is not None]
    return found or None

    def of_code(self, name: str) -> float | None:
        """The codes' rate in bits, or the perplexity of a symbol; None where they cannot be counted."""
        if self.code is None:
            return None
        return (self.code.compute() if name == "rate" else self.code.perplexity).item()


def open_model(
    model: Autoencoder | Checkpoint | str | Path,
    data: Any = None,
    *,
    device: str | torch.device | None = None,
    trust: bool = False,
    replica: int | None = None,
) -> tuple[VAE, Any, float | None]:
    """A model with latents, as :func:`open_autoencoder` gives it.

    Raises:
        InputError: as :func:`evaluate`, or the model is quantised.
    """
    checkpoint = model if isinstance(model, (Autoencoder, Checkpoint)) else Checkpoint.open(model)
    if isinstance(checkpoint, Checkpoint) and checkpoint.is_quantized:
        checkpoint.model(replica, trust=trust)  # says so
    found, data, train_elbo = open_autoencoder(checkpoint, data, device=device, trust=trust, replica=replica)
    if not isinstance(found, VAE):
        raise InputError(f"model must have latents and a gradient estimator, got {type(found).__name__}")
    return found, data, train_elbo


def open_autoencoder(
    model: Autoencoder | Checkpoint | str | Path,
    data: Any = None,
    *,
    device: str | torch.device | None = None,
    trust: bool = False,
    replica: int | None = None,
) -> tuple[Autoencoder, Any, float | None]:
    """The model, moved to its device and in evaluation mode; its data, given or the checkpoint's; the training ELBO logged last.

    Raises:
        InputError: as :func:`evaluate`.
    """
    saved = train_elbo = None
    if isinstance(model, Autoencoder):
        if data is None and isinstance(model, Trainable):
            data = lightning.data_module_of(model)
        if data is None:
            raise InputError("data must be given: the model was not trained with a data module")
        device = device or model.device
    else:
        checkpoint = model if isinstance(model, Checkpoint) else Checkpoint.open(model)
        content = checkpoint.single(replica)
        model = checkpoint.autoencoder(replica, trust=trust)
        saved, train_elbo = record.data_of(content), record.train_elbo_of(content)
        if data is None and saved is None:
            raise InputError("the checkpoint does not say what data it was trained on; pass --data (data=...)")
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    # A file holds no loader, whatever a damaged one has in its place.
    module = data if data is not None and is_loader(data) else data_module(saved if data is None else data, trust=trust)
    return model.to(device).eval(), module, train_elbo


@contextmanager
def _left_as_it_was(model: Any) -> Iterator[None]:
    """Puts a model of the caller's back on its device and into its mode, and its prior's constant to what it was."""
    if not isinstance(model, Autoencoder):
        yield
        return
    device, training = model.device, model.training
    prior: nn.Module = model.prior if isinstance(model, VAE) else nn.Module()
    buffers = {name: buffer.clone() for name, buffer in prior.named_buffers()}
    try:
        yield
    finally:
        model.to(device).train(training)
        with torch.no_grad():
            for name, buffer in prior.named_buffers():
                buffer.copy_(buffers[name])


def sized_for(model: A, examples: Examples) -> A:
    """The model, at the examples' size where its code is on a grid; an InputError where it is not for them."""
    if model.grid is not None and len(examples.shape) == 3:
        return model.at(examples.shape)
    if (given := math.prod(examples.shape)) != model.num_pixels:
        raise InputError(f"data must have {model.num_pixels} values per example for this model, got {given}")
    return model


def picture_shape(model: Autoencoder, data: Any, examples: Examples) -> tuple[int, ...] | None:
    """(C, H, W) in which values of x are drawn; None where it is not known.

    Arguments:
        model: at the examples' size, see :func:`sized_for`.
        data: where the examples are from, which may say that they are no images.
        examples: of a split.

    Raises:
        InputError: they are no images.
    """
    if not getattr(data, "are_images", True):
        raise InputError(
            f"data must be images to be drawn, got {type(data).__name__}; in Python, model.sample(n) and dvae.lab.traverse have "
            "the numbers"
        )
    return getattr(data, "image_shape", None) or (examples.shape if len(examples.shape) == 3 else model.image_shape)


def _are_on_grid(estimators: Sequence[GradientEstimator]) -> bool:
    """Whether the estimators' networks, if any, are for images of every size."""
    networks = [getattr(estimator, "network", None) for estimator in estimators]
    return all(network is None or getattr(network, "grid", None) is not None for network in networks)
