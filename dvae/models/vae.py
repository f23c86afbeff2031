"""The mathematics of a variational autoencoder with discrete latents, without a trainer."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from typing_extensions import Self

from dvae.config import instantiate
from dvae.errors import InputError
from dvae.estimators import RELAX, GradientEstimator
from dvae.functional import named_parameters
from dvae.latents import Latent, Spec
from dvae.likelihoods import Bernoulli, Likelihood
from dvae.models import pretrained
from dvae.models.autoencoder import Autoencoder
from dvae.models.building import linear_or_given, network_sizes, require_at_least, size_of_example
from dvae.models.controls import Controls
from dvae.models.spatial import on_grid
from dvae.noise import place, uniform, uniform_from, uniform_of
from dvae.objectives import ELBOTerms, importance_weighted_bound
from dvae.priors import Factorial, Prior, SpatialFactorial

__all__ = ["VAE", "Layer"]


# Nobody's model; a file can name any number.
_MOST_LAYERS = 1000


class Layer(NamedTuple):
    """One stochastic layer's distribution and its sample, hard or relaxed; ``z`` is the continuous sample behind it.

    ``direct`` says whether :attr:`log_q` has a gradient to the logits of q.
    """

    q: Latent
    z: Tensor
    sample: Tensor
    direct: bool = True

    @property
    def log_q(self) -> Tensor:
        """log q(sample), [K, B]; always with the sample's own gradient, where it has one."""
        return (self.q if self.direct else self.q.detach()).log_prob(self.sample)


class VAE(Controls, Autoencoder):
    r"""Encoder, decoder, prior and likelihood, and how the gradient of their ELBO is estimated: a plain ``nn.Module``.

    .. math:: \text{ELBO}(x) = E_{q(b|x)}[\log p(x|b) + \log p(b) - \log q(b|x)]

    With L stochastic layers, :math:`q = \prod_l q(b_l | b_{l-1})`, b_0 = x, and :math:`p = p(b_L) \prod_l p(b_{l-1} | b_l)`. The
    defaults are the linear model L1 of Grathwohl et al. 2018; ``num_layers=2`` is their L2, and :class:`dvae.networks.MLP` as
    encoder and decoder their NL1. The encoder sees x less the training set's mean (or what the likelihood makes of both), further
    maps see 2b - 1, and the decoder's outputs have the likelihood's start added: both are set from the data by :meth:`set_mean`.
    With :class:`dvae.networks.ResidualEncoder` and :class:`dvae.networks.ResidualDecoder` the code is on a grid, and one model is
    for images of every size.

    :class:`dvae.DiscreteVAE` is this with its training. Every module argument is an instance or a config ``{"class_path": ...,
    "init_args": {...}}``; a network's config need not say ``in_features``, ``out_features``, ``image_shape`` and
    ``outputs_per_pixel``, which are the model's.

    Arguments:
        estimator: the gradient estimator; RELAX by default. With several layers each gets a copy.
        encoder: features to latent logits; with several layers a list, from the pixels up.
        decoder: 2b - 1 to outputs for the layer below; with several layers a list, from the pixels up.
        prior: the top layer's distribution, :class:`dvae.priors.Prior`; factorial by default, on a grid with logits per channel.
        likelihood: of the pixels, :class:`dvae.likelihoods.Likelihood`; Bernoulli by default.
        num_pixels: size of x; by default that of ``image_shape``, else 784.
        image_shape: (channels, height, width) of x where it is an image; by default one square channel, where it can be.
        num_latents: D, latents in each layer.
        latent: their family: "Bernoulli", "Categorical", "Gaussian" (continuous) or "PlackettLuce" (the order of ``num_latents``
            items), or a class derived from :class:`dvae.latents.Latent`, or its import path.
        num_classes: C of categorical latents; None for the others.
        num_layers: L, stochastic layers.
        kl: "sampled", as in the paper, or "analytic", with closed forms (lower variance), which all families but orders have.
        beta: weight of the KL in what training maximises (Higgins et al. 2017). What is called ELBO stays the ELBO.
        free_bits: nats of an example's KL that cost nothing (Kingma et al. 2016, one group); None for none. It needs the analytic
            KL, which with several layers is that given the samples of those below the top.
        kl_balance: the prior's share of the gradient of the KL's closed part, the top layer's (Hafner et al. 2021); None where each
            side has all of it. It needs the analytic KL and changes no value.
        direct_gradient: whether log q(b | x) of the sampled KL passes a gradient of its own to the encoder, beside the estimator's,
            as in the paper. Its mean is :math:`E_q[\nabla \log q(b)] = 0` (Roeder et al. 2017): noise, which the estimator's own
            variance does not show. By default it is left out where its mean is 0: not of the K-sample bound, and not where a
            subclass has :meth:`terms` or an :meth:`objective` of its own, which need not be linear in log q; False says of such a
            subclass that they are.

    Raises:
        InputError: an argument is outside its range or does not fit the others.

    Example:
        >>> model = dvae.VAE(num_pixels=6, num_latents=4)
        >>> model.elbo(torch.zeros(3, 6)).shape
        torch.Size([3])
    """

    def __init__(
        self,
        estimator: GradientEstimator | dict[str, Any] | None = None,
        encoder: nn.Module | dict[str, Any] | list[Any] | None = None,
        decoder: nn.Module | dict[str, Any] | list[Any] | None = None,
        prior: Prior | dict[str, Any] | None = None,
        likelihood: Likelihood | dict[str, Any] | None = None,
        *,
        num_pixels: int | None = None,
        image_shape: Sequence[int] | None = None,
        num_latents: int = 200,
        latent: str | type[Latent] = "Bernoulli",
        num_classes: int | None = None,
        num_layers: int = 1,
        kl: Literal["sampled", "analytic"] = "sampled",
        beta: float = 1.0,
        free_bits: float | None = None,
        kl_balance: float | None = None,
        direct_gradient: bool | None = None,
    ) -> None:
        super().__init__()
        num_pixels, self.image_shape = size_of_example(num_pixels, image_shape)
        require_at_least(1, num_latents=num_latents, num_layers=num_layers)
        if num_layers > _MOST_LAYERS:
            raise InputError(f"num_layers must be at most {_MOST_LAYERS}, got {num_layers}")
        if kl not in ("sampled", "analytic"):
            raise InputError(f"kl must be 'sampled' or 'analytic', got {kl!r}")
        if direct_gradient is not None and kl != "sampled":
            raise InputError(f"direct_gradient is for the sampled KL, got direct_gradient={direct_gradient} with kl={kl!r}")
        self.num_pixels, self.num_latents, self.num_layers = num_pixels, num_latents, num_layers
        self._made_for = num_pixels
        self.kl, self._direct_gradient = kl, direct_gradient
        self.latent = Spec.of(latent, num_latents, num_classes)
        # The estimator first, then from the pixels up: as they would be made before they are handed over, from the same seed.
        first = RELAX() if estimator is None else instantiate(estimator, GradientEstimator, "estimator")
        self.likelihood = Bernoulli() if likelihood is None else instantiate(likelihood, Likelihood, "likelihood")
        self.likelihood.build(num_pixels)
        sizes = network_sizes(num_pixels, self.image_shape, self.latent, self.likelihood, num_layers)
        self.encoders = linear_or_given(encoder, "encoder", sizes.encoders)
        self.decoders = linear_or_given(decoder, "decoder", sizes.decoders)
        self.latent = on_grid(self.latent, self.encoders, self.decoders)
        default = Factorial if self.grid is None else SpatialFactorial
        self.prior = default() if prior is None else instantiate(prior, Prior, "prior")
        self.prior.build(self.latent)
        self._require_closed_kl(kl == "analytic", free_bits is not None, kl_balance is not None)
        self.estimators: Sequence[GradientEstimator] = self._of_each_layer(first)  # type: ignore[assignment]
        self.make_statistics()
        self.hold(beta, free_bits, kl_balance)

    def _require_closed_kl(self, *asked: bool) -> None:
        family = self.latent.family
        without = f"{family.__name__} latents do" if not family.closed_kl else f"the prior {type(self.prior).__name__} does"
        for name, is_asked in zip(("kl='analytic'", "free_bits", "kl_balance"), asked, strict=True):
            if is_asked and not (family.closed_kl and self.prior.closed_kl):
                raise InputError(f"{name} needs the KL in closed form, which {without} not have: leave it out")

    @property
    def direct_gradient(self) -> bool:
        """Whether log q(b | x) passes a gradient of its own to the encoder in training; see the argument of this name."""
        if self._direct_gradient is None:
            return self.estimators[0].multi_sample or any(self._has_own(name) for name in ("terms", "objective"))
        return self._direct_gradient

    def keep_direct_gradient(self) -> None:
        """Go on as in a version that had no choice: called where a run of one is resumed."""
        if self._direct_gradient is None and self.kl == "sampled":
            self._direct_gradient = True
            self.record_argument("direct_gradient", True)

    def _has_own(self, name: str) -> bool:
        return name in self.__dict__ or getattr(type(self), name) is not getattr(VAE, name)

    # The estimators

    @property
    def estimator(self) -> GradientEstimator:
        """The first layer's estimator. Assign another, or a config, and it takes the place of all layers' as in the constructor."""
        return self.estimators[0]

    @estimator.setter
    def estimator(self, given: GradientEstimator | dict[str, Any]) -> None:
        self.replace_estimator(given)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "estimator":  # a property, which nn.Module would pass by: it keeps modules in a table of its own
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def replace_estimator(self, given: GradientEstimator | dict[str, Any]) -> None:
        """Estimate the gradient with another estimator from here on: what assigning to :attr:`estimator` does.

        Arguments:
            given: the estimator or its config; with several layers each gets a copy.

        Raises:
            InputError: it is no estimator, or is not for these latents or this ``kl``; or the model's class does not take an
                estimator.
        """
        first = instantiate(given, GradientEstimator, "estimator")
        estimators = self._of_each_layer(first)
        self.record_argument("estimator", first)
        self.estimators = estimators.to(self.mean).train(self.training)  # type: ignore[assignment]

    def replace_prior(self, prior: Prior) -> None:
        """Have another prior from here on, which was built for these latents.

        Raises:
            InputError: the model's ``kl``, ``free_bits`` or ``kl_balance`` needs a KL that it does not have; or the model's class
                does not take a prior.
        """
        old, self.prior = self.prior, prior.to(self.mean)
        try:
            self._require_closed_kl(self.kl == "analytic", self.free_bits is not None, self.kl_balance is not None)
            self.record_argument("prior", prior)
        except InputError:
            self.prior = old
            raise

    def _of_each_layer(self, first: GradientEstimator) -> nn.ModuleList:
        first.require_support(self.latent.family)
        if first.multi_sample and self.kl != "sampled":
            raise InputError(f"kl must be 'sampled' for the K-sample bound of {type(first).__name__}, got {self.kl!r}")
        if first.multi_sample and self._direct_gradient is False:
            raise InputError(
                f"direct_gradient cannot be left out of the K-sample bound of {type(first).__name__}, where its mean is not 0: "
                "leave the argument out"
            )
        estimators = [first] + [copy.deepcopy(first) for _ in range(self.num_layers - 1)]
        for index, estimator in enumerate(estimators):
            estimator.forget_listing()
            self.build_estimator(estimator, index)
        return nn.ModuleList(estimators)

    def build_estimator(self, estimator: GradientEstimator, index: int = 0) -> None:
        """Have an estimator make its parameters for the layer of this index; see :meth:`GradientEstimator.ensure_built`."""
        self.give_surrogate(estimator)
        estimator.ensure_built(self.latent.num_features, self.num_pixels + index * self.latent.num_features)

    # The distributions

    def infer(self, index: int, x: Tensor, below: Sequence[Tensor]) -> Latent:
        """q(b_index | ...): of x [B, num_pixels] for the first layer, else of the layer below, [*, B, D]."""
        features = self.likelihood.features(x, self.mean) if index == 0 else self.latent.features(below[index - 1])
        return self.latent(self.encoders[index](features))

    def priors(self, layers: Sequence[Layer]) -> list[Any]:
        """p(b_l | b_{l+1}) of each layer, from the pixels up; the top one's is :attr:`prior`."""
        above = [self.latent(self.decoders[i](self.latent.features(layers[i].sample))) for i in range(1, self.num_layers)]
        return [*above, self.prior()]

    def encode(self, x: Tensor) -> Latent:
        """q(b_1 | x), the distribution of the code of x, logits [B, D]."""
        model = self.suited_to(x)
        return model.infer(0, model.check_input(x), [])

    def decode(self, b: Tensor) -> Tensor:
        """What the likelihood takes, given the first layer's sample: [*, B, D] to [*, B, num_pixels] (logits, for Bernoulli)."""
        model = self.suited_to_code(b)
        return model.decoders[0](model.latent.features(b)) + model.output_bias

    def log_likelihood(self, x: Tensor, b: Tensor) -> Tensor:
        """log p(x | b), [*, B]."""
        return self.likelihood.log_prob(x, self.decode(b))

    def rollout(
        self,
        x: Tensor,
        noise: Sequence[Tensor],
        known: Sequence[Layer] = (),
        temperature: Tensor | float | None = None,
    ) -> list[Layer]:
        """Sample the layers that are not yet known, from the pixels up: hard, or relaxed where a temperature is given."""
        layers = list(known)
        for index in range(len(layers), self.num_layers):
            q = self.infer(index, x, [layer.sample for layer in layers])
            z = q.relaxed(noise[index][0])
            layers.append(Layer(q, z, q.hard(z) if temperature is None else q.soft(z, temperature)))
        return layers

    def terms(self, x: Tensor, layers: Sequence[Layer], kl: str | None = None) -> ELBOTerms:
        """The ELBO's parts at these samples, [K, B] each; ``kl`` overrides the model's choice of sampled or analytic."""
        analytic = (kl or self.kl) == "analytic"
        reconstruction = self.log_likelihood(x, layers[0].sample)
        divergences = []
        for index, (layer, prior) in enumerate(zip(layers, self.priors(layers), strict=True)):
            if not analytic:
                divergences.append(layer.log_q - prior.log_prob(layer.sample))
            elif index == self.num_layers - 1:
                divergences.append(self.prior.kl(layer.q).expand_as(reconstruction))
            else:
                # The prior of a lower layer depends on the layer above it, which depends on this sample: only q's part is closed.
                divergences.append(-layer.q.entropy() - prior.log_prob(layer.sample))
        return ELBOTerms(reconstruction, functools.reduce(torch.add, divergences))

    def objective(self, terms: ELBOTerms) -> Tensor:
        """What training maximises, [K, B]: the ELBO as ``beta`` weighs it. Override it for another objective of the same terms."""
        return terms.reconstruction - self.beta * self.charged(terms.kl)

    def context(self, x: Tensor, below: Sequence[Layer]) -> Tensor:
        """What an estimator's networks may look at: the centred input and 2b - 1 of the layers before, [*, B, C]."""
        centred = self.likelihood.features(x, self.mean)
        samples = [self.latent.features(layer.sample) for layer in below]
        if not samples:
            return centred
        return torch.cat([centred.expand(*samples[0].shape[:-1], -1), *samples], dim=-1)

    # On a grid

    @property
    def is_for_every_size(self) -> bool:
        return super().is_for_every_size and getattr(self.prior, "grid", None) is not None

    def code_of(self, x: Tensor) -> Tensor:
        return self.latent.code(self.infer(0, x, []).mode())

    def sample_of(self, code: Tensor) -> Tensor:
        return self.latent.from_code(code).to(self.mean)

    # Noise

    def noise(self, batch_size: int, *, num_samples: int | None = None, generator: torch.Generator | None = None) -> list[Tensor]:
        """Uniforms for :meth:`rollout`, [num_noise, K, batch_size, *sample_shape] for each layer, drawn anew.

        The last are the prior's, of its :attr:`dvae.priors.Prior.noise_shape`, where it has samples to move on. Training takes
        :meth:`training_noise` instead.
        """
        dtype, device = self._noise_dtype, self.mean.device
        shapes = self._noise_shapes(batch_size, num_samples)
        return [uniform_from(generator, shape, device, dtype) for shape in shapes]

    def training_noise(self, batch_size: int, stream: Tensor | int, iteration: Tensor | int) -> list[Tensor]:
        """The noise of one iteration of training, of the same shapes as :meth:`noise`.

        Arguments:
            batch_size: examples.
            stream: what :func:`dvae.noise.noise_stream` gave, or the same as a tensor [].
            iteration: from 0 on.
        """
        shapes = self._noise_shapes(batch_size)
        if isinstance(stream, int) and isinstance(iteration, int) and self.mean.device.type == "cpu":
            return uniform_of(stream, iteration, shapes, self._noise_dtype)
        # Filled in on the device: a copy from the host would wait for it.
        counter = iteration if isinstance(iteration, Tensor) else torch.full((), iteration, device=self.mean.device)
        start = place(stream, counter)
        noise = []
        for shape in shapes:
            noise.append(uniform(start, shape, self._noise_dtype))
            start = start + math.prod(shape)
        return noise

    def _noise_shapes(self, batch_size: int, num_samples: int | None = None) -> list[tuple[int, ...]]:
        of_each = [
            (estimator.num_noise, estimator.num_samples) if num_samples is None else (1, num_samples)
            for estimator in self.estimators
        ]
        of_layers = [(*numbers, batch_size, *self.latent.sample_shape) for numbers in of_each]
        of_prior = self.prior.noise_shape if num_samples is None else None
        return of_layers if of_prior is None else [*of_layers, of_prior]

    @property
    def _noise_dtype(self) -> torch.dtype:
        return torch.float64 if self.mean.dtype == torch.float64 else torch.float32

    # What people do with a model

    def forward(self, x: Tensor) -> Tensor:
        """The most probable code of each x, [B, D] in {0, 1} ([B, D, C], one-hot, for categorical latents); its range unchecked."""
        model = self.suited_to(x)
        return model.infer(0, model.flat_input(x), []).mode()

    def codes(self, x: Tensor) -> Tensor:
        """The most probable code of each x, all layers in a row, [B, L D]: bits, classes or ranks, uint8, or means of Gaussians.

        A layer's code is the mode of its distribution given the mode of the layer before.
        """
        model = self.suited_to(x)
        x = model.flat_input(x)
        layers: list[Tensor] = []
        for index in range(model.num_layers):
            layers.append(model.infer(index, x, layers).mode())
        return torch.cat([model.latent.code(layer) for layer in layers], dim=-1)

    def decode_codes(self, codes: Tensor) -> Tensor:
        """E[x | b], [B, num_pixels], of codes as :meth:`codes` gives them: probabilities of binary pixels.

        Arguments:
            codes: [B, L D] of bits, classes, ranks or means; of L layers x depends on the first one's alone. On a grid D may be
                that of another size of the same proportions.

        Raises:
            InputError: the codes have another shape, or values that the latents do not take.

        Example:
            >>> model = dvae.VAE(num_pixels=6, num_latents=4)
            >>> model.decode_codes(model.codes(torch.zeros(3, 6))).shape
            torch.Size([3, 6])
        """
        whole = self.num_layers * self.num_latents
        if codes.dim() != 2 or (self.grid is None and codes.shape[1] != whole):
            each = f"{self.num_latents} latents of each of {self.num_layers} layers" if self.num_layers > 1 else "one a latent"
            raise InputError(f"codes must be [B, {whole}], {each}, got shape {tuple(codes.shape)}")
        code = codes if self.grid is not None else codes[:, : self.num_latents]
        b = self.latent.from_code(code.to(self.mean.device)).to(self.mean.dtype)
        model = self.suited_to_code(b)
        return model.likelihood.mean(model.decode(b))

    def sample_layers(self, x: Tensor, num_samples: int = 1, generator: torch.Generator | None = None) -> list[Layer]:
        """Hard samples of every layer, [num_samples, B, D]."""
        model = self.suited_to(x)
        x = model.check_input(x)
        return model.rollout(x, model.noise(x.shape[0], num_samples=num_samples, generator=generator))

    def elbo(self, x: Tensor, num_samples: int = 1, generator: torch.Generator | None = None) -> Tensor:
        """The ELBO of each example in nats, [B], averaged over ``num_samples`` samples.

        Arguments:
            x: [B, num_pixels] or any [B, ...] of as many values, in the likelihood's range; of a model of codes on a grid images
                [B, C, H, W] of any size that :meth:`at` takes.

        Raises:
            InputError: x has another size, or values outside the range.
        """
        model = self.suited_to(x)
        layers = model.sample_layers(x, num_samples, generator)
        return model.terms(model.check_input(x), layers).elbo.mean(0)

    def log_weights(self, x: Tensor, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """log p(x, b) - log q(b | x) for samples from q, [num_samples, B]."""
        model = self.suited_to(x)
        layers = model.sample_layers(x, num_samples, generator)
        return model.terms(model.check_input(x), layers, kl="sampled").elbo

    def importance_weighted_bound(self, x: Tensor, num_samples: int = 100, generator: torch.Generator | None = None) -> Tensor:
        """The multi-sample bound on log p(x) of each example in nats, [B] (Burda et al. 2016)."""
        return importance_weighted_bound(self.log_weights(x, num_samples, generator))

    def sample(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """E[x | b] of ancestral samples b from the prior, [num_samples, num_pixels]: probabilities of binary pixels."""
        b = self.prior().sample(num_samples, generator=generator)
        for decoder in reversed(list(self.decoders)[1:]):
            b = self.latent(decoder(self.latent.features(b))).sample(generator=generator)
        return self.likelihood.mean(self.decode(b))

    def reconstruct(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """E[x | b] given one sampled code of each x, [B, num_pixels]: probabilities of binary pixels."""
        model = self.suited_to(x)
        layers = model.sample_layers(x, 1, generator)
        return model.likelihood.mean(model.decode(layers[0].sample[0]))

    # Files to share

    def save_pretrained(self, folder: str | Path, figures: Sequence[tuple[str, str, str]] = ()) -> Path:
        """Write the model as a folder to share: ``config.json``, ``model.safetensors`` and a card, ``README.md``.

        It is the model to use: a checkpoint holds also what is needed to go on training.

        Arguments:
            folder: made where it is not there.
            figures: rows of the card's table, such as ``dvae.evaluate(model, data).rows()``.

        Raises:
            InputError: safetensors is not installed (``pip install 'discrete-vae[hub]'``), the folder cannot be written, or the
                model is a copy :meth:`at` another size.

        Example:
            >>> model = dvae.VAE(num_pixels=6, num_latents=4)
            >>> twin = dvae.VAE.from_pretrained(model.save_pretrained("shared"))
            >>> torch.equal(twin.encoders[0](torch.ones(6)), model.encoders[0](torch.ones(6)))
            True
        """
        self._require_own_size()
        return pretrained.save(self, folder, self._facts(), figures)

    @classmethod
    def from_pretrained(cls, source: str | Path, *, trust: bool = False, revision: str | None = None, **overrides: Any) -> Self:
        """The model that :meth:`save_pretrained` or :meth:`push_to_hub` wrote, in evaluation mode on the CPU.

        Its class is the one that was saved, which must derive from the one that is asked.

        Arguments:
            source: a folder, or a repository on the Hugging Face hub, ``OWNER/NAME``.
            trust: import classes from outside ``dvae`` that it names; importing runs their code.
            revision: of a repository: a branch, a tag or a commit.
            overrides: constructor arguments that replace the saved ones, such as an encoder that has no config.

        Raises:
            InputError: there is no such model, its files are damaged, or it names a class that is not trusted.
        """
        return pretrained.load(cls, source, trust=trust, revision=revision, overrides=overrides)

    def push_to_hub(self, repository: str, figures: Sequence[tuple[str, str, str]] = (), *, private: bool = False) -> str:
        """Upload what :meth:`save_pretrained` writes to the Hugging Face hub; returns the address.

        Arguments:
            repository: ``NAME`` or ``OWNER/NAME``, made where it is not there; the account is that of ``hf auth login``.
            figures: see :meth:`save_pretrained`.
            private: whether a new repository is for its owner alone.

        Raises:
            InputError: huggingface_hub is not installed (``pip install 'discrete-vae[hub]'``), or the hub refuses it.
        """
        self._require_own_size()
        return pretrained.push(self, repository, self._facts(), figures, private=private)

    def _require_own_size(self) -> None:
        if self.num_pixels != self._made_for:
            raise InputError(f"a model at another size, {self.image_shape}, is a copy: save the model that at() was asked of")

    def _facts(self) -> dict[str, str]:
        latent = self.latent
        classes = "" if latent.num_classes is None else f" of {latent.num_classes} classes"
        places = "" if latent.grid is None else f", on a grid of {latent.grid[0]} x {latent.grid[1]}"
        layers = "" if self.num_layers == 1 else f", in each of {self.num_layers} layers"
        shape = self.num_pixels if self.image_shape is None else " x ".join(map(str, self.image_shape))
        return {
            "latents": f"{self.num_latents} {latent.family.__name__}{classes}{places}{layers}",
            "x": f"{shape} values, likelihood {type(self.likelihood).__name__}",
            "trained with": type(self.estimator).__name__,
        }

    # Parameters

    def named_theta(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters of encoder, decoder and prior; everything that is not an estimator's."""
        yield from named_parameters(self, without=("estimators",))

    def theta(self) -> list[nn.Parameter]:
        """Parameters of the model proper, trained on the ELBO."""
        return list(dict.fromkeys(parameter for _, parameter in self.named_theta()))

    def phi(self) -> list[nn.Parameter]:
        """Parameters of the estimators, trained on the variance of the gradient."""
        return [parameter for estimator in self.estimators for parameter in estimator.parameters()]
