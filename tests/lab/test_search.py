"""Neighbours in Hamming distance are those that counting differing bits finds, and an index of usearch finds most of them."""

import numpy as np
import pytest
import torch

from dvae.errors import InputError
from dvae.lab import search
from dvae.lab.search import Index, distances, nearest, recall, search_speed


def bits(*shape: int, seed: int = 0) -> torch.Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5).to(torch.uint8)


def test_distances_count_the_bits_that_differ():
    queries, database = bits(5, 201), bits(7, 201, seed=1)
    expected = (queries[:, None] != database).sum(-1)
    assert torch.equal(distances(queries, database).long(), expected)
    packed = [np.packbits(own.numpy(), axis=1) for own in (queries, database)]
    np.testing.assert_array_equal(np.bitwise_count(packed[0][:, None] ^ packed[1]).sum(-1), expected.numpy())


@pytest.mark.parametrize("num_bits", [1, 7, 64, 300])
def test_counting_words_ranks_as_all_distances_do(num_bits, monkeypatch):
    """Over several blocks, with bytes and words to spare, and of more bits than a byte counts."""
    monkeypatch.setattr(search, "_BLOCK", 37)
    queries, database = bits(5, num_bits), bits(203, num_bits, seed=1)
    for k in (1, 40, 203):
        expected = distances(queries, database).argsort(dim=1, stable=True)[:, :k]
        assert torch.equal(nearest(queries, database, k), expected)


def test_the_nearest_come_first_and_equally_near_ones_in_the_databases_order():
    database = torch.tensor([[1, 1, 1], [0, 0, 1], [0, 0, 0], [0, 1, 0]])
    assert nearest(torch.tensor([[0, 0, 0]]), database, 3).tolist() == [[2, 1, 3]]
    with pytest.raises(InputError, match="k must be from 1 to 4, the size of the database, got 5"):
        nearest(database, database, 5)
    with pytest.raises(InputError, match=r"must be \[\*, D\] of one D, got \(4, 3\) and \(4, 2\)"):
        nearest(database, database[:, :2], 1)


def test_recall_counts_any_that_is_as_near_as_the_last():
    queries, database = torch.tensor([[0, 0]]), torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    for found, share in (([0, 1], 1.0), ([0, 2], 1.0), ([0, 3], 0.5), ([0, -1], 0.5)):
        assert recall(torch.tensor([found]), queries, database, 2) == share


def test_an_index_is_saved_read_again_and_finds_the_nearest(tmp_path):
    pytest.importorskip("usearch")
    queries, database = bits(20, 12), bits(500, 12, seed=1)
    index = Index(database)
    index.save(tmp_path / "codes.usearch")
    again = Index.open(tmp_path / "codes.usearch")
    assert (len(again), again.num_bits) == (500, 12)
    assert again.holds(database)
    assert not again.holds(1 - database)
    assert not again.holds(database[1:])
    found = again.nearest(queries, 10)
    assert found.shape == (20, 10)
    assert torch.equal(found, index.nearest(queries, 10))
    assert recall(found, queries, database, 10) > 0.9
    assert torch.equal(again.nearest(queries[:1], 10), found[:1])


def test_what_is_no_index_and_what_does_not_fit_it_is_refused(tmp_path):
    library = pytest.importorskip("usearch.index")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(InputError, match=r"cannot read .*text as an index of usearch"):
        Index.open(tmp_path / "text")
    with pytest.raises(InputError, match="nothing"):
        Index.open(tmp_path / "nothing")
    library.Index(ndim=3).save(str(tmp_path / "real"))
    with pytest.raises(InputError, match="real is no index of bits"):
        Index.open(tmp_path / "real")
    with pytest.raises(InputError, match=r"must be bits \[N, D\] of at least one code, got shape \(0, 4\)"):
        Index(torch.zeros(0, 4))
    index = Index(bits(5, 8))
    with pytest.raises(InputError, match=r"queries must be bits \[Q, 8\], as many as are indexed, got \(2, 9\)"):
        index.nearest(bits(2, 9), 1)
    with pytest.raises(InputError, match="k must be from 1 to 5"):
        index.nearest(bits(2, 8), 6)


def test_the_rate_of_searches_is_measured_and_what_cannot_be_is_refused():
    found = search_speed(300, num_bits=16, num_queries=3, k=5)
    assert found[0].way == "counting words"
    assert all(own.queries_per_second > 0 for own in found)
    with pytest.raises(InputError, match="num_codes must be at least 1, got 0"):
        search_speed(0)
    with pytest.raises(InputError, match="k must be from 1 to 50"):
        search_speed(50)
