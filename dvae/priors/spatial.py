"""The autoregressive prior of codes on a grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvae.errors import InputError
from dvae.latents import Latent, Spec
from dvae.networks import MaskedMLP, dense
from dvae.noise import uniform_from
from dvae.priors.autoregressive import chained, require_values
from dvae.priors.base import Prior

__all__ = ["SpatialAutoregressive"]

# Of the waves that say where a place is, in places; two times two numbers each.
_WAVELENGTHS = (4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)


class SpatialAutoregressive(Prior):
    r"""Each place of a grid given those before it, row by row, by a causal transformer; for grids of every size.

    .. math:: \log p(b) = \sum_i \log p(b_i | h_i), \qquad h_i = \text{transformer}(b_1, \ldots, b_{i-1}; i)

    Within a place each latent is given h_i and those before it, by a masked network. Where a place is, is said by sines and cosines
    of its row and column, so that the same parameters are for every grid; sizes that were not trained on are a guess.

    At relaxed b, as in :class:`Autoregressive`, all that comes before is relaxed, and the log-probability is linear in each b
    given that. It starts as the uniform distribution, and has no closed KL. Sampling goes from place to place and keeps the
    transformer's keys and values of those before.

    Arguments:
        width: of the transformer, a multiple of ``heads``.
        heads: of its attention.
        blocks: layers of attention.
        hidden: width of each hidden layer of the masked network.

    Raises:
        InputError: a number is less than 1, or ``width`` no multiple of ``heads``; in :meth:`build`, the latents are not on a grid,
            or no bits or classes.

    References:
        Vaswani et al., *Attention is all you need*, 2017. https://arxiv.org/abs/1706.03762

        Van den Oord, Vinyals & Kavukcuoglu, *Neural discrete representation learning*, 2017 (a prior fitted afterwards).
        https://arxiv.org/abs/1711.00937

    Example:
        >>> prior = dvae.priors.SpatialAutoregressive(width=16, heads=2)
        >>> prior.build(dvae.latents.Spec(dvae.latents.Bernoulli, 12, grid=(2, 2)))
        >>> prior().sample(5).shape
        torch.Size([5, 12])
        >>> prior.grid = (3, 4)
        >>> prior().sample(5).shape
        torch.Size([5, 36])
    """

    closed_kl = False

    def __init__(self, width: int = 64, heads: int = 4, blocks: int = 2, hidden: Sequence[int] = (64,)) -> None:
        super().__init__()
        for name, value in {"width": width, "heads": heads, "blocks": blocks}.items():
            if value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        if width % heads:
            raise InputError(f"width must be a multiple of heads, {heads}, got {width}")
        MaskedMLP(1, hidden=hidden)  # a wrong argument is found here, where it is given
        self.width, self.heads, self.num_blocks, self.hidden = width, heads, blocks, hidden
        self.latent: Spec | None = None

    def build(self, latent: Spec) -> None:
        require_values(self, latent)
        if latent.grid is None:
            raise InputError(
                "prior: SpatialAutoregressive needs latents on a grid, those of a model of one layer whose encoder and decoder are "
                "ResidualEncoder and ResidualDecoder; for others take Autoregressive"
            )
        self.latent = latent
        place = place_of(latent)
        self.start = nn.Parameter(torch.zeros(self.width))
        self.embedding = dense(place.num_features, self.width)
        self.position = dense(4 * len(_WAVELENGTHS), self.width)
        self.blocks = nn.ModuleList(_Block(self.width, self.heads) for _ in range(self.num_blocks))
        self.norm = nn.LayerNorm(self.width)
        count = place.num_variables
        inputs, outputs = place.num_features // count, place.num_logits // count
        self.within = MaskedMLP(count, inputs, outputs, self.hidden, num_context=self.width)

    @property
    def grid(self) -> tuple[int, int] | None:
        """(H', W') of the codes that it is of; it may be set."""
        return None if self.latent is None else self.latent.grid

    @grid.setter
    def grid(self, grid: tuple[int, int]) -> None:
        assert self.latent is not None
        self.latent = self.latent.on(grid)

    def forward(self) -> Any:
        assert self.latent is not None
        return _OnGrid(self, self.latent)


class _OnGrid:
    """Places whose distributions a transformer gives of those before them."""

    def __init__(self, networks: SpatialAutoregressive, latent: Spec) -> None:
        self.networks, self.latent, self.place = networks, latent, place_of(latent)

    def log_prob(self, b: Tensor) -> Tensor:
        networks, count = self.networks, self.latent.num_places
        features = self.latent.features(b).unflatten(-1, (count, -1))
        before = networks.embedding(features[..., :-1, :])
        start = networks.start.expand(*before.shape[:-2], 1, -1)
        x = torch.cat([start, before], -2) + self._positions(b)
        for block in networks.blocks:
            x, _ = block(x)
        logits = networks.within(torch.cat([networks.norm(x), features], -1))
        return self.latent(logits.flatten(-2)).log_prob(b)

    @torch.no_grad()
    def sample(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        networks, start = self.networks, self.networks.start
        shape = (num_samples, *self.latent.sample_shape)
        noise = uniform_from(generator, shape, start.device, start.dtype)
        caches: list[_Cache | None] = [None] * len(networks.blocks)
        token, drawn = start.expand(num_samples, 1, -1), []
        parts = noise.split(self.place.num_variables, 1)
        for position, part in zip(self._positions(noise)[:, None], parts, strict=True):
            x = token + position
            for index, block in enumerate(networks.blocks):
                x, caches[index] = block(x, caches[index])
            drawn.append(chained(self._given(networks.norm(x[:, 0])), self.place, part))
            token = networks.embedding(self.place.features(drawn[-1]))[:, None]
        return torch.cat(drawn, 1)

    def _given(self, context: Tensor) -> Any:
        def given(b: Tensor) -> Latent:
            return self.place(self.networks.within(torch.cat([context, self.place.features(b)], -1)))

        return given

    def _positions(self, like: Tensor) -> Tensor:
        """[places, width]."""
        height, width = self.latent.grid or (1, 1)
        places = torch.arange(height * width, device=like.device)
        lengths = torch.tensor(_WAVELENGTHS, dtype=like.dtype, device=like.device)
        both = torch.stack([places // width, places % width], -1).to(like.dtype)
        angles = (2 * math.pi * both[..., None] / lengths).flatten(1)
        return self.networks.position(torch.cat([angles.sin(), angles.cos()], -1))


class _Cache(NamedTuple):
    """Keys and values of the places so far, [n, heads, places, width / heads] each."""

    keys: Tensor
    values: Tensor


class _Block(nn.Module):
    """Causal attention and a dense layer, each added to what it sees."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_dense = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project, self.attended = dense(width, 3 * width), dense(width, width)
        self.layers = nn.Sequential(dense(width, 2 * width), nn.SiLU(), dense(2 * width, width))

    def forward(self, x: Tensor, cache: _Cache | None = None) -> tuple[Tensor, _Cache]:
        """The features of the places of x [*, places, width], all or the one after those of the cache, and the cache with them."""
        split = self.project(self.before_attention(x)).unflatten(-1, (3 * self.heads, -1)).transpose(-2, -3)
        queries, keys, values = split.chunk(3, -3)
        if cache is None:
            seen = _causal(queries, keys, values)
        else:
            keys, values = torch.cat([cache.keys, keys], -2), torch.cat([cache.values, values], -2)
            seen = F.scaled_dot_product_attention(queries, keys, values)
        x = x + self.attended(seen.transpose(-2, -3).flatten(-2))
        return x + self.layers(self.before_dense(x)), _Cache(keys, values)


def _causal(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention of each place to itself and those before, [*, heads, places, width / heads]."""
    # PyTorch's own has no batching rule on a CPU: replicas and certificates would run one by one.
    places = torch.arange(queries.shape[-2], device=queries.device)
    scores = queries @ keys.transpose(-1, -2) / math.sqrt(queries.shape[-1])
    return scores.masked_fill(places > places[:, None], -math.inf).softmax(-1) @ values


def place_of(latent: Spec) -> Spec:
    """The latents at one place."""
    return Spec(latent.family, latent.num_per_place, latent.num_classes)
