r"""A jigsaw: digits cut into tiles and shuffled, whose order is a latent that a network infers.

.. math:: \max_\theta E_{b \sim q_\theta(b | \tilde x)}\big[-\|P_b \tilde x - x\|^2\big], \qquad
    q_\theta(b | \tilde x) = \text{PlackettLuce}(l_\theta(\tilde x))

The whole image x is known in training, as in Mena et al. 2018, and the order never is: the network sees the tiles in the order that
chance gave them, and gives each a score.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dvae.config import Module
from dvae.data import BinarizedMNIST
from dvae.errors import InputError
from dvae.estimators import GradientEstimator
from dvae.lab.toy import estimator_for
from dvae.latents import PlackettLuce, Spec, permutation_matrix
from dvae.networks import MLP

__all__ = ["JigsawRun", "TileScores", "cut", "jigsaw"]


_EVALUATIONS = 10

_SIDE = 28


class JigsawRun(NamedTuple):
    """What one estimator learned.

    steps: [N], after how many updates the rest was measured, on the 10,000 images of the test set.
    whole: [N], share of images put together without a fault by the most probable order.
    tiles: [N], share of places with the right tile; tiles with the same pixels are one tile.
    network: the trained scores.
    shuffled, restored, original: [8, n, pixels] each, tiles of the first test images.
    """

    estimator: str
    grid: int
    steps: Tensor
    whole: Tensor
    tiles: Tensor
    network: TileScores
    shuffled: Tensor
    restored: Tensor
    original: Tensor


class TileScores(Module):
    """A score for each tile from its own pixels and all tiles': [B, n, pixels] to [B, n], whatever order they come in.

    Arguments:
        num_pixels: of a tile.
        hidden: units of each layer.

    Example:
        >>> dvae.lab.jigsaw.TileScores(num_pixels=196)(torch.zeros(5, 4, 196)).shape
        torch.Size([5, 4])
    """

    def __init__(self, num_pixels: int, hidden: int = 200) -> None:
        super().__init__()
        self.tile = MLP(num_pixels, hidden, [hidden], activation="silu")
        self.score = MLP(2 * hidden, 1, [hidden], activation="silu")

    def forward(self, tiles: Tensor) -> Tensor:
        """[B, n, pixels] to [B, n]."""
        own = self.tile(tiles)
        together = own.mean(-2, keepdim=True).expand_as(own)
        return self.score(torch.cat([own, together], -1)).squeeze(-1)


def cut(images: Tensor, grid: int) -> Tensor:
    """Images [B, 784] as tiles [B, grid^2, pixels], row by row; what is left over at the right and below is cut off.

    Arguments:
        images: of 28 x 28 pixels.
        grid: tiles along each side.
    """
    size = _SIDE // grid
    square = images.unflatten(-1, (_SIDE, _SIDE))[..., : grid * size, : grid * size]
    return square.unflatten(-1, (grid, size)).unflatten(-3, (grid, size)).transpose(-3, -2).flatten(-2).flatten(-3, -2)


def jigsaw(
    estimator: str = "RELAX",
    grid: int = 2,
    *,
    latent: str = "PlackettLuce",
    num_steps: int = 2000,
    batch_size: int = 50,
    lr: float = 0.001,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> JigsawRun:
    """Train a network to put the bundled digits together, and count what it puts together right.

    Arguments:
        estimator: out of the library's catalogue, or a class by import path.
        grid: tiles along each side, from 2 to 7.
        latent: a family of orders, PlackettLuce or one with another relaxation.
        num_steps: updates.
        batch_size: images of an update, each in a new random order.
        lr: learning rate of Adam, for the network and for phi.
        seed: of weights, batches, orders and noise.
        progress: called with the number of updates done since the last call.

    Raises:
        InputError: an argument is outside its range.

    References:
        Mena, Belanger, Linderman & Snoek, *Learning latent permutations with Gumbel-Sinkhorn networks*, 2018 (the task and its
        objective). https://arxiv.org/abs/1802.08665
    """
    for name, value, low, high in (("grid", grid, 2, 7), ("num_steps", num_steps, 1, 10**9), ("batch_size", batch_size, 1, 50_000)):
        if not low <= value <= high:
            raise InputError(f"{name} must be from {low} to {high}, got {value}")
    family = Spec.of(latent, grid**2).family
    if not issubclass(family, PlackettLuce):
        raise InputError(f"latent must be a family of orders such as PlackettLuce, got {latent}")
    data = BinarizedMNIST()
    train, test = cut(data.split("train").float(), grid), cut(data.split("test").float(), grid)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = TileScores(train.shape[-1])
        chosen = estimator_for(family, estimator)
        chosen.ensure_built(grid**2, train[0].numel())
    optimizer = torch.optim.Adam([*network.parameters(), *chosen.parameters()], lr=lr)
    generator = torch.Generator().manual_seed(seed)
    shuffled_test = _shuffled(test, torch.Generator().manual_seed(seed + 1))
    interval = max(1, num_steps // _EVALUATIONS)
    figures = []
    for step in range(num_steps + 1):
        if step % interval == 0 or step == num_steps:
            figures.append((step, *_shares(network, shuffled_test, test)))
            if progress is not None:
                progress(min(interval, num_steps - step))
        if step == num_steps:
            break
        original = train[torch.randint(len(train), (batch_size,), generator=generator)]
        loss = _loss(chosen, family, network, _shuffled(original, generator), original, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    steps, whole, tiles = (torch.tensor(column) for column in zip(*figures, strict=True))
    shown = shuffled_test[:8]
    return JigsawRun(estimator, grid, steps, whole, tiles, network, shown, _restored(network, shown), test[:8])


def _loss(
    estimator: GradientEstimator,
    family: type[PlackettLuce],
    network: TileScores,
    shuffled: Tensor,
    original: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """What one backward gives the network the gradient of the squared error, and phi that of the variance."""

    def f(b: Tensor) -> Tensor:
        return -(permutation_matrix(b) @ shuffled - original).square().sum((-2, -1))

    logits = network(shuffled)
    estimate = estimator(f, family(logits), shuffled.flatten(-2), generator=generator)
    return estimate.loss(logits)


def _shuffled(tiles: Tensor, generator: torch.Generator) -> Tensor:
    """Each image's tiles in a random order of its own."""
    order = torch.rand(tiles.shape[:2], generator=generator).argsort(-1)
    return tiles.gather(1, order[..., None].expand_as(tiles))


@torch.no_grad()
def _restored(network: TileScores, shuffled: Tensor) -> Tensor:
    return permutation_matrix(PlackettLuce(network(shuffled)).mode()) @ shuffled


def _shares(network: TileScores, shuffled: Tensor, original: Tensor) -> tuple[float, float]:
    right = (_restored(network, shuffled) == original).all(-1)
    return right.all(-1).float().mean().item(), right.float().mean().item()
