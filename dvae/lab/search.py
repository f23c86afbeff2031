"""Nearest neighbours of bits in Hamming distance: exactly, by counting, and from an index in a file."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dvae.errors import InputError
from dvae.files import written_whole
from dvae.latents import pack_bits

__all__ = ["Index", "SearchSpeed", "distances", "nearest", "recall", "search_speed", "seconds"]

# Codes that are compared with a query at a time: what is computed of them stays in a core's cache.
_BLOCK = 1 << 15
# Neighbours that an index looks at for each that it returns: its own 64 would be fewer than are often asked for.
_EXPANSION = 4


def distances(queries: Tensor, database: Tensor) -> Tensor:
    """Hamming distances of bits, int16 [Q, N].

    Arguments:
        queries: [Q, D] in {0, 1}.
        database: [N, D].

    Example:
        >>> dvae.lab.search.distances(torch.tensor([[0, 1, 1]]), torch.tensor([[0, 1, 1], [1, 0, 1]]))
        tensor([[0, 2]], dtype=torch.int16)
    """
    # Products of signs, exact in float32, are faster than counting bits where all distances are wanted.
    signs, others = (2 * bits.float() - 1 for bits in (queries, database))
    return ((queries.shape[1] - signs @ others.T) / 2).to(torch.int16)


def nearest(queries: Tensor, database: Tensor, k: int) -> Tensor:
    """Places of the k nearest in Hamming distance, int64 [Q, k], exactly; equally near ones in the database's order.

    Bits are counted in machine words, without an index: of :func:`search_speed`'s ways the fastest that is exact.

    Arguments:
        queries: bits [Q, D].
        database: bits [N, D].
        k: neighbours, at most N.

    Raises:
        InputError: there are not so many, the codes are of different lengths, or they are no bits.

    Example:
        >>> dvae.lab.search.nearest(torch.tensor([[0, 1, 1]]), torch.tensor([[1, 0, 1], [0, 1, 1], [0, 0, 1]]), 2)
        tensor([[1, 2]])
    """
    _require_fit(queries, database, k)
    return torch.from_numpy(_nearest(_words(queries), _words(database), k, queries.shape[1]))


def recall(found: Tensor, queries: Tensor, database: Tensor, k: int) -> float:
    """Share of the k nearest that a search found, where any other as near as the k-th would have done as well.

    Arguments:
        found: places in the database, int64 [Q, k]; -1 where nothing was found.
        queries: bits [Q, D].
        database: bits [N, D].
        k: neighbours.

    Raises:
        InputError: as :func:`nearest`.
    """
    exact = nearest(queries, database, k)
    far = (database[exact[:, -1]] != queries).sum(-1)
    apart = (database[found.clamp(min=0)] != queries[:, None]).sum(-1)
    return ((apart <= far[:, None]) & (found >= 0)).float().mean().item()


class Index:
    """Bits in a graph of neighbours (Malkov & Yashunin 2018, HNSW) by ``usearch``: fast among many, and not exact.

    Its file is one of usearch's own, which its programs in other languages read: key n is place n of the database, and a vector's
    bits are packed as :func:`dvae.latents.pack_bits` does.

    Arguments:
        database: bits [N, D].

    Raises:
        InputError: usearch is not installed, or the database is empty or holds no bits.
    """

    def __init__(self, database: Tensor) -> None:
        library = _usearch()
        if database.dim() != 2 or not database.numel():
            raise InputError(f"database must be bits [N, D] of at least one code, got shape {tuple(database.shape)}")
        kinds = {"metric": library.MetricKind.Hamming, "dtype": library.ScalarKind.B1}
        self._index = library.Index(ndim=database.shape[1], **kinds)
        self._index.add(np.arange(len(database)), _packed(database), threads=torch.get_num_threads())

    def __len__(self) -> int:
        return len(self._index)

    @property
    def num_bits(self) -> int:
        """D."""
        return int(self._index.ndim)

    @classmethod
    def open(cls, path: str | Path) -> Index:
        """The index in a file.

        Raises:
            InputError: usearch is not installed, or there is no such file, or it holds no index of bits.
        """
        library = _usearch()
        try:
            found = library.Index.restore(str(path))
        except (ValueError, RuntimeError, OSError) as error:
            raise InputError(f"cannot read {path} as an index of usearch: {str(error).rstrip('!.')}") from None
        if found is None or found.dtype != library.ScalarKind.B1:
            raise InputError(f"{path} is no index of bits: dvae retrieve --index makes one where there is no file")
        index = cls.__new__(cls)
        index._index = found
        return index

    def save(self, path: str | Path) -> None:
        """Write the index to a file, whole or not at all.

        Raises:
            InputError: it cannot be written.
        """
        with written_whole(path) as temporary:
            self._index.save(str(temporary))

    def holds(self, database: Tensor) -> bool:
        """Whether these bits [N, D] are what is indexed."""
        if tuple(database.shape) != (len(self), self.num_bits):
            return False
        found = self._index.get(np.arange(len(self)))
        return all(own is not None for own in found) and bool((np.stack(found) == _packed(database)).all())

    def nearest(self, queries: Tensor, k: int) -> Tensor:
        """Places of about the k nearest in Hamming distance, int64 [Q, k]; -1 where the graph leads to fewer.

        Arguments:
            queries: bits [Q, D].
            k: neighbours.

        Raises:
            InputError: the codes have another length, there are none or no bits, or there are not so many neighbours.
        """
        if queries.dim() != 2 or not len(queries) or queries.shape[1] != self.num_bits:
            raise InputError(f"queries must be bits [Q, {self.num_bits}], as many as are indexed, got {tuple(queries.shape)}")
        _require_k(k, len(self))
        self._index.expansion_search = _EXPANSION * k
        # One more, for of a single query usearch returns something of another shape.
        packed = _packed(torch.cat([queries, queries[:1]]))
        found = self._index.search(packed, k, threads=torch.get_num_threads())
        places = np.asarray(found.keys).astype(np.int64)
        places[np.arange(k) >= np.asarray(found.counts)[:, None]] = -1
        return torch.from_numpy(places[:-1])


class SearchSpeed(NamedTuple):
    """How fast one exact way of searching is.

    way: what searches.
    queries_per_second: of one thread.
    """

    way: str
    queries_per_second: float


def search_speed(num_codes: int = 1_000_000, *, num_bits: int = 64, num_queries: int = 100, k: int = 100) -> list[SearchSpeed]:
    """Time exact searches among random bits on one thread: :func:`nearest`'s, and usearch's where that is installed.

    Arguments:
        num_codes: N, codes that are searched.
        num_bits: D, of each.
        num_queries: how many are sought, one after the other.
        k: neighbours of each.

    Raises:
        InputError: a number is less than 1, or there are fewer codes than neighbours.
    """
    for name, value in {"num_codes": num_codes, "num_bits": num_bits, "num_queries": num_queries}.items():
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    _require_k(k, num_codes)
    generator = torch.Generator().manual_seed(0)
    shape = (num_codes + num_queries, num_bits)
    packed = _packed(torch.randint(2, shape, generator=generator, dtype=torch.uint8))
    queries, database = packed[:num_queries], packed[num_queries:]
    sought, words = _as_words(queries), _as_words(database)
    ways: dict[str, Callable[[], Any]] = {"counting words": lambda: _nearest(sought, words, k, num_bits)}
    try:
        library = _usearch()
    except InputError:
        pass
    else:
        kind = {"metric": library.MetricKind.Hamming, "exact": True, "threads": 1}
        ways["usearch, exact"] = lambda: library.search(database, queries, k, **kind)
    return [SearchSpeed(way, num_queries / seconds(search)) for way, search in ways.items()]


def seconds(run: Callable[[], Any]) -> float:
    """What a call takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _nearest(queries: NDArray[np.uint64], database: NDArray[np.uint64], k: int, num_bits: int) -> NDArray[np.int64]:
    """Of words [W, Q] and [W, N], places [Q, k]."""
    return np.stack([_nearest_to(query, database, k, num_bits) for query in queries.T])


def _nearest_to(query: NDArray[np.uint64], database: NDArray[np.uint64], k: int, num_bits: int) -> NDArray[np.int64]:
    counts = np.uint8 if num_bits < 255 else np.uint16
    limit = num_bits + 1
    apart, places = np.empty(0, counts), np.empty(0, np.int64)
    for start in range(0, database.shape[1], _BLOCK):
        own = np.bitwise_count(database[:, start : start + _BLOCK] ^ query[:, None]).sum(0, dtype=counts)
        nearer = np.flatnonzero(own < limit)
        if not len(nearer):
            continue
        apart, places = np.concatenate([apart, own[nearer]]), np.concatenate([places, nearer + start])
        # What is as far as the k-th so far comes after it in the database's order.
        order = np.argsort(apart, kind="stable")[:k]
        apart, places = apart[order], places[order]
        limit = int(apart[-1]) if len(order) == k else limit
    return places


def _words(bits: Tensor) -> NDArray[np.uint64]:
    return _as_words(_packed(bits))


def _as_words(packed: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Bytes [N, B] as words of eight [W, N], in which the word is outside, so that codes follow each other in memory."""
    padded = np.pad(packed, ((0, 0), (0, -packed.shape[1] % 8)))
    return np.ascontiguousarray(np.ascontiguousarray(padded).view(np.uint64).T)


def _packed(bits: Tensor) -> NDArray[np.uint8]:
    return torch.cat([pack_bits(own) for own in bits.cpu().split(_BLOCK)]).numpy()


def _require_fit(queries: Tensor, database: Tensor, k: int) -> None:
    if queries.dim() != 2 or database.dim() != 2 or queries.shape[1] != database.shape[1]:
        raise InputError(f"queries and database must be [*, D] of one D, got {tuple(queries.shape)} and {tuple(database.shape)}")
    _require_k(k, len(database))


def _require_k(k: int, size: int) -> None:
    if not 1 <= k <= size:
        raise InputError(f"k must be from 1 to {size}, the size of the database, got {k}")


def _usearch() -> Any:
    try:
        import usearch.index
    except ImportError:
        raise InputError("an index needs usearch, which is not installed: pip install 'discrete-vae[retrieval]'") from None
    return usearch.index
