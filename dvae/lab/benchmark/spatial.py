"""The convolutional model's step against a plain PyTorch loop of the same networks, in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dvae.data import PhotoPatches
from dvae.errors import InputError
from dvae.estimators import GumbelStraightThrough
from dvae.likelihoods import DiscretizedLogistic
from dvae.training.module import DiscreteVAE
from dvae.training.run import joint_optimizer
from dvae.training.whole_step import WholeStep

__all__ = ["SPATIAL", "SpatialSpeed", "spatial_speed"]

SPATIAL = ("plain", "eager", "compiled", "compiled, channels_last")
"""A plain loop with ``torch.optim.Adam``; the library's step, one operation after the other; the same as one function; the same of
networks in the other order of memory."""


class SpatialSpeed(NamedTuple):
    """How fast one way of training the convolutional model is.

    way: out of :data:`SPATIAL`.
    images_per_second: the median over repetitions.
    to_plain: that, over the plain loop's rate, the median over turns; None without the plain loop.
    """

    way: str
    images_per_second: float
    to_plain: float | None


def spatial_speed(
    ways: Sequence[str] = SPATIAL,
    *,
    size: int = 32,
    channels: int = 32,
    blocks: int = 2,
    batch_size: int = 24,
    steps: int = 10,
    repetitions: int = 7,
    device: str | torch.device = "cpu",
    progress: Callable[[], None] | None = None,
) -> list[SpatialSpeed]:
    """Time the training of ``configs/model/spatial.yaml`` with Gumbel straight-through; all take turns.

    Arguments:
        ways: out of :data:`SPATIAL`.
        size: side of a patch, pixels, a multiple of 4.
        channels, blocks: of :class:`dvae.networks.ResidualEncoder` and its decoder.
        batch_size: examples in a batch.
        steps: timed steps in each repetition.
        repetitions: how often each is timed; compiling is not counted.
        device: where.
        progress: called after each timing, of which there are ``len(ways) * (repetitions + 1)``.

    Raises:
        InputError: a way is unknown, or a number is less than 1.
    """
    if unknown := [way for way in ways if way not in SPATIAL]:
        raise InputError(f"ways must be out of {', '.join(SPATIAL)}; got {', '.join(unknown)}")
    for name, value in {"steps": steps, "repetitions": repetitions, "batch_size": batch_size}.items():
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    data = PhotoPatches(size, max(1000, 4 * batch_size), batch_size=batch_size)
    device = torch.device(device)
    sizes = {"channels": channels, "blocks": blocks}
    runs = {way: _MADE[way](_model(data, {**sizes, "channels_last": "last" in way}, device), data) for way in ways}
    times: dict[str, list[float]] = {way: [] for way in ways}
    for repetition in range(repetitions + 1):
        for way, run in runs.items():
            seconds = _timed(run, steps, device)
            if repetition > 0:  # the first one compiles and warms up
                times[way].append(batch_size * steps / seconds)
            if progress is not None:
                progress()
    plain = times.get("plain")
    return [
        SpatialSpeed(way, median(own), None if plain is None else median(a / b for a, b in zip(own, plain, strict=True)))
        for way, own in times.items()
    ]


def _timed(run: Callable[[int], None], steps: int, device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    run(steps)
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _model(data: PhotoPatches, options: dict[str, int], device: torch.device) -> DiscreteVAE:
    torch.manual_seed(0)
    encoder, decoder = (
        {"class_path": f"dvae.networks.Residual{name}", "init_args": dict(options)} for name in ("Encoder", "Decoder")
    )
    model = DiscreteVAE(
        GumbelStraightThrough(),
        encoder,
        decoder,
        likelihood=DiscretizedLogistic(),
        image_shape=(3, data.size, data.size),
        num_latents=4 * (data.size // 4) ** 2,
        seed=0,
    )
    model.set_mean(data.mean, data.std)
    return model.to(device)


def _batches(data: PhotoPatches, model: DiscreteVAE) -> Callable[[int], Tensor]:
    x = data.split("train").reshape(-1, model.num_pixels).to(model.device, model.mean.dtype)
    count = len(x) // data.batch_size
    return lambda step: x[step % count * data.batch_size :][: data.batch_size]


def _plain(model: DiscreteVAE, data: PhotoPatches) -> Callable[[int], None]:
    """The loop that people write: one graph through a hard sample whose gradient is the relaxed one's."""
    encoder, decoder, batch = model.encoders[0], model.decoders[0], _batches(data, model)
    prior = nn.Parameter(torch.zeros(model.latent.num_per_place, device=model.device))
    parameters = [*encoder.parameters(), *decoder.parameters(), prior]
    optimizer = torch.optim.Adam(parameters, lr=model.lr, fused=True)
    temperature = float(model.estimator.temperature)  # type: ignore[arg-type]
    taken = 0

    def run(steps: int) -> None:
        nonlocal taken
        for _ in range(steps):
            x, taken = batch(taken), taken + 1
            logits = encoder(model.likelihood.features(x, model.mean))
            u = torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)
            soft = torch.sigmoid((logits + torch.logit(u)) / temperature)
            b = soft + ((soft > 0.5).to(soft) - soft).detach()
            reconstruction = model.likelihood.log_prob(x, decoder(2 * b - 1) + model.output_bias)
            top = prior.repeat(model.latent.num_places)
            log_q = -nn.functional.binary_cross_entropy_with_logits(logits, b, reduction="none").sum(-1)
            log_p = (b * top - nn.functional.softplus(top)).sum(-1)
            loss = -(reconstruction + log_p - log_q).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return run


def _eager(model: DiscreteVAE, data: PhotoPatches) -> Callable[[int], None]:
    optimizer, batch, taken = joint_optimizer([model]), _batches(data, model), 0

    def run(steps: int) -> None:
        nonlocal taken
        for _ in range(steps):
            x, noise = batch(taken), model.training_noise(data.batch_size, model.noise_stream(0), taken)
            taken += 1
            model.step(x, noise).loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    return run


def _compiled(model: DiscreteVAE, data: PhotoPatches) -> Callable[[int], None]:
    batch, taken = _batches(data, model), 0
    step = WholeStep([model], joint_optimizer([model]), batch(0))

    def run(steps: int) -> None:
        nonlocal taken
        for _ in range(steps):
            step(batch(taken), taken)
            taken += 1
        step.end_block()

    return run


_MADE: dict[str, Callable[[DiscreteVAE, PhotoPatches], Callable[[int], Any]]] = {
    "plain": _plain,
    "eager": _eager,
    "compiled": _compiled,
    "compiled, channels_last": _compiled,
}
