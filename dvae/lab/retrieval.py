"""Search by codes: neighbours in Hamming distance, how often they are of the query's kind, and what simpler codes find."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dvae.data import Examples, examples_of
from dvae.errors import InputError
from dvae.lab.evaluate import sized_for
from dvae.lab.likeness import Mean
from dvae.lab.search import distances, nearest
from dvae.metrics import MeanWithError
from dvae.models import VAE
from dvae.report.pictures import image_grid

__all__ = [
    "Coded",
    "Figures",
    "Retrieval",
    "hyperplane_bits",
    "linear_probe",
    "picture_of_neighbours",
    "principal_bits",
    "retrieve",
]


# Queries that are ranked at a time: their distances to all of a database are in memory.
_QUERIES = 100
# Of a picture: queries, and neighbours of each.
_ROWS, _NEIGHBOURS = 8, 9


class Coded(NamedTuple):
    """Examples and their codes.

    x: [N, num_pixels].
    bits: [N, D] in {0, 1}, uint8.
    labels: [N]; None where the data have none.
    """

    x: Tensor
    bits: Tensor
    labels: Tensor | None


class Figures(NamedTuple):
    """What a code is worth for search: means over queries with their standard errors.

    precision: for each k, the share of the k nearest that have the query's label.
    average_precision: mean over the ranks of all that have it of the precision down to there.
    neighbours: share of queries whose label most of the first k nearest have, of equally many the smallest label.
    probe: share of queries that :func:`linear_probe` labels rightly.
    """

    precision: dict[int, Mean]
    average_precision: Mean
    neighbours: Mean
    probe: Mean

    @property
    def means(self) -> list[Mean]:
        """All in a row, the precisions first."""
        return [*self.precision.values(), self.average_precision, self.neighbours, self.probe]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        precision = {number: mean._asdict() for number, mean in self.precision.items()}
        others = {"average_precision": self.average_precision, "neighbours": self.neighbours, "probe": self.probe}
        return {"precision": precision, **{name: mean._asdict() for name, mean in others.items()}}


class Retrieval(NamedTuple):
    """What :func:`retrieve` found.

    figures: by kind of code, that of the model first, all of as many bits; None where the data have no labels, or queries and
        database none in common.
    queries, database: the examples.
    nearest: [Q, K], places in the database of each query's neighbours by the model's code, the nearest first; K is the largest k.
    """

    figures: dict[str, Figures] | None
    queries: Coded
    database: Coded
    nearest: Tensor


def hyperplane_bits(train: Tensor, x: Tensor, num_bits: int, seed: int = 0) -> Tensor:
    """On which side of random hyperplanes through the training set's mean x lies, uint8 [N, num_bits] (Charikar 2002).

    Arguments:
        train: [M, num_pixels], whose mean is taken.
        x: [N, num_pixels].
        num_bits: hyperplanes.
        seed: of their normals.
    """
    normals = torch.randn(x.shape[1], num_bits, generator=torch.Generator().manual_seed(seed)).to(x)
    return ((x - train.mean(0)) @ normals > 0).to(torch.uint8)


def principal_bits(train: Tensor, x: Tensor, num_bits: int) -> Tensor:
    """The signs of the first principal components, uint8 [N, num_bits] (as in Gong & Lazebnik 2011, without their rotation).

    Arguments:
        train: [M, num_pixels], whose components are taken.
        x: [N, num_pixels].
        num_bits: components, at most num_pixels.

    Raises:
        InputError: there are not so many.
    """
    if num_bits > x.shape[1]:
        raise InputError(f"num_bits must be at most {x.shape[1]}, the components of x, got {num_bits}")
    mean = train.mean(0)
    directions = torch.linalg.eigh((train - mean).T @ (train - mean)).eigenvectors.flip(1)[:, :num_bits]
    return ((x - mean) @ directions > 0).to(torch.uint8)


@torch.enable_grad()
def linear_probe(train: Tensor, labels: Tensor, x: Tensor, decay: float = 1e-3) -> Tensor:
    """The labels that softmax regression gives to x, int64 [N]; L-BFGS from zero, 100 iterations (Alain & Bengio 2016).

    Arguments:
        train: [M, D] features, such as bits.
        labels: [M], from 0.
        x: [N, D].
        decay: weight of half the squared norm of the weights.
    """
    probe = nn.Linear(train.shape[1], int(labels.max()) + 1).to(train.device)
    nn.init.zeros_(probe.weight)
    nn.init.zeros_(probe.bias)
    features = 2 * train.float() - 1
    optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = nn.functional.cross_entropy(probe(features), labels) + decay / 2 * probe.weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return probe(2 * x.float() - 1).argmax(1)


@torch.no_grad()
def retrieve(
    model: VAE,
    data: Any,
    *,
    split: str = "test",
    num_queries: int = 1000,
    k: Sequence[int] = (10, 100),
    seed: int = 0,
    trust: bool = False,
) -> Retrieval:
    """Search the training set for examples of a split by their bits, and measure it where the data have labels.

    Beside the model's code are random hyperplanes and the signs of principal components, of as many bits. The search is exact.

    Arguments:
        model: a trained model of Bernoulli latents.
        data: see :func:`dvae.data.examples_of`.
        split: of the queries, "valid" or "test".
        num_queries: how many, the split's first ones.
        k: numbers of neighbours that precision is of; the first one's vote.
        seed: of the hyperplanes.
        trust: import classes from outside ``dvae`` that the data's config names.

    Raises:
        InputError: the latents are no bits, an argument is outside its range, or the data do not fit the model.
    """
    if not model.latent.family.binary:
        raise InputError(f"retrieval is by bits, of Bernoulli latents, got {model.latent.family.__name__}")
    if num_queries < 1:
        raise InputError(f"num_queries must be at least 1, got {num_queries}")
    if not k:
        raise InputError("k must be at least one number of neighbours, such as 10,100, got none")
    if split == "train":
        raise InputError("split must be valid or test, for the training set is what is searched, got train")
    key = getattr(model, "input_key", None)
    queries = _coded(model, examples_of(data, split, input_key=key, trust=trust), num_queries)
    database = _coded(model, examples_of(data, "train", input_key=key, trust=trust), None)
    if min(k) < 1 or max(k) > len(database.bits):
        raise InputError(f"k must be from 1 to {len(database.bits)}, the size of the database, got {', '.join(map(str, k))}")
    places = nearest(queries.bits, database.bits, max(k))
    figures = None
    if _share_labels(queries, database):
        figures = {
            name: _figures(queries, database, code, k) for name, code in _codes(database.x, queries.bits.shape[1], seed).items()
        }
    return Retrieval(figures, queries, database, places)


def _share_labels(queries: Coded, database: Coded) -> bool:
    """Whether anything right can be found: not where a label says from which photograph of one set a patch is."""
    if queries.labels is None or database.labels is None:
        return False
    return bool(torch.isin(queries.labels, database.labels).any())


def picture_of_neighbours(model: VAE, found: Retrieval, image_shape: Sequence[int] | None = None) -> Tensor:
    """A row for each of the first queries: it, and its nearest neighbours; one picture [C, H, W] in [0, 1].

    Arguments:
        model: whose codes were searched by.
        found: what :func:`retrieve` found.
        image_shape: (C, H, W) of x.
    """
    places = found.nearest[:_ROWS, :_NEIGHBOURS]
    rows = torch.cat([found.queries.x[:_ROWS, None], found.database.x[places]], 1)
    return image_grid(model, rows.flatten(0, 1), image_shape, rows.shape[1])


Code = Callable[[Coded], Tensor]


def _codes(train: Tensor, num_bits: int, seed: int) -> dict[str, Code]:
    """How each kind of code is had of examples."""
    codes: dict[str, Code] = {
        "model": lambda own: own.bits,
        "random hyperplanes": lambda own: hyperplane_bits(train, own.x, num_bits, seed),
    }
    if num_bits <= train.shape[1]:
        codes["signs of principal components"] = lambda own: principal_bits(train, own.x, num_bits)
    return codes


def _coded(model: VAE, examples: Examples, number: int | None) -> Coded:
    model = sized_for(model, examples)
    xs, codes, labels, count = [], [], [], 0
    for piece in examples.pieces(1000):
        x = piece.x if number is None else piece.x[: number - count]
        x = model.check_input(x.to(model.device))
        codes.append(model.codes(x).cpu())
        xs.append(x.cpu())
        labels += [] if piece.labels is None else [piece.labels[: len(x)].cpu()]
        count += len(x)
        if count == number:
            break
    return Coded(torch.cat(xs), torch.cat(codes), torch.cat(labels) if len(labels) == len(codes) else None)


def _figures(queries: Coded, database: Coded, code: Code, k: Sequence[int]) -> Figures:
    bits, others = code(queries), code(database)
    assert queries.labels is not None
    assert database.labels is not None
    precisions = {number: MeanWithError() for number in k}
    average, majority, probe = (MeanWithError() for _ in range(3))
    for own, labels in zip(bits.split(_QUERIES), queries.labels.split(_QUERIES), strict=True):
        order = distances(own, others).argsort(dim=1, stable=True)
        found = database.labels[order]
        relevant = (found == labels[:, None]).float()
        for number, precision in precisions.items():
            precision.update(relevant[:, :number].mean(1))
        average.update(_average_precision(relevant))
        majority.update((found[:, : k[0]].mode(1).values == labels).float())
    probe.update((linear_probe(others, database.labels, bits) == queries.labels).float())
    means = {number: Mean.of(precision) for number, precision in precisions.items()}
    return Figures(means, *(Mean.of(metric) for metric in (average, majority, probe)))


def _average_precision(relevant: Tensor) -> Tensor:
    """Of each ranking [Q, N] of 0 and 1, [Q]; 0 where nothing is relevant."""
    ranks = torch.arange(1, relevant.shape[1] + 1, device=relevant.device)
    return (relevant.cumsum(1) / ranks * relevant).sum(1) / relevant.sum(1).clamp(min=1)
