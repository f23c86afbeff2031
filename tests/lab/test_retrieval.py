"""Search by codes finds what counting differing bits finds, and its figures are what they are called."""

import pytest
import torch

import dvae
from dvae.data import ArrayData
from dvae.errors import InputError
from dvae.lab.retrieval import hyperplane_bits, linear_probe, principal_bits, retrieve


def test_similar_examples_fall_on_the_same_side_of_hyperplanes():
    """The share of bits that differ is the angle over pi (Charikar 2002)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 30, generator=generator)
    train = torch.cat([x, -x])  # of mean zero
    codes = hyperplane_bits(train, x, 20_000)
    angle = torch.arccos(torch.nn.functional.cosine_similarity(x[0], x[1], dim=0)).item() / torch.pi
    z = ((codes[0] != codes[1]).float().mean().item() - angle) / (angle * (1 - angle) / 20_000) ** 0.5
    assert abs(z) < 4


def test_signs_of_principal_components_are_those_along_the_longest_axes():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 3, generator=generator) * torch.tensor([1.0, 10.0, 0.1])
    codes = principal_bits(x, x, 2)
    for column, axis in enumerate((1, 0)):
        agree = (codes[:, column] == (x[:, axis] > x[:, axis].mean())).float().mean()
        assert max(agree, 1 - agree) > 0.95
    with pytest.raises(InputError, match="num_bits must be at most 3, the components of x, got 4"):
        principal_bits(x, x, 4)


def test_a_probe_reads_labels_that_are_linear_in_the_bits():
    codes = torch.randint(2, (300, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels = (codes[:, 0] + codes[:, 1]).long()
    assert torch.equal(linear_probe(codes[:200], labels[:200], codes[200:], decay=1e-4), labels[200:])


@pytest.fixture
def labelled():
    """Two kinds of 4 x 4 images, and labels that say which."""
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(120, generator=generator) < 0.5).long()
    stripes = torch.tensor([1.0, 0.0]).repeat(8)
    images = torch.where(labels[:, None] == 1, stripes, 1 - stripes)
    images = (images - (torch.rand(120, 16, generator=generator) < 0.05).float()).abs()
    parts = {"train": labels[:80], "valid": labels[80:100], "test": labels[100:]}
    return ArrayData(images[:80], images[80:100], images[100:], labels=parts)


def test_a_code_that_says_the_kind_finds_it(labelled):
    model = dvae.VAE(dvae.estimators.LOO(), num_pixels=16, num_latents=8)
    found = retrieve(model, labelled, num_queries=15, k=(4, 20))
    assert list(found.figures) == ["model", "random hyperplanes", "signs of principal components"]
    assert found.nearest.shape == (15, 20)
    own = found.figures["model"]
    relevant = found.database.labels[found.nearest] == found.queries.labels[:, None]
    assert list(own.precision) == [4, 20]
    assert own.precision[4].mean == pytest.approx(relevant[:, :4].float().mean().item())
    assert own.precision[20].mean == pytest.approx(relevant.float().mean().item())
    assert own.average_precision.mean > 0.9
    assert min(own.neighbours.mean, own.probe.mean) > 0.9


def test_average_precision_is_the_textbooks():
    from dvae.lab.retrieval import _average_precision

    relevant = torch.tensor([[1.0, 0, 1, 0], [0, 0, 0, 0]])
    torch.testing.assert_close(_average_precision(relevant), torch.tensor([(1 + 2 / 3) / 2, 0]))


def test_without_labels_neighbours_are_found_and_nothing_is_measured(tiny_data):
    found = retrieve(dvae.VAE(dvae.estimators.LOO(), num_pixels=16, num_latents=8), tiny_data, k=[2])
    assert found.figures is None
    assert found.nearest.shape == (10, 2)


def test_labels_of_which_two_sets_share_none_measure_nothing(tiny_data):
    parts = {name: torch.full((len(tiny_data.split(name)),), place) for place, name in enumerate(("train", "valid", "test"))}
    data = ArrayData(*map(tiny_data.split, parts), labels=parts)
    assert retrieve(dvae.VAE(num_pixels=16, num_latents=4), data, k=[3]).figures is None


def test_what_cannot_be_searched_is_refused(tiny_data):
    model = dvae.VAE(num_pixels=16, num_latents=4, latent="Categorical", num_classes=3)
    with pytest.raises(InputError, match="retrieval is by bits, of Bernoulli latents, got Categorical"):
        retrieve(model, tiny_data)
    bernoulli = dvae.VAE(num_pixels=16, num_latents=4)
    with pytest.raises(InputError, match="split must be valid or test, for the training set is what is searched, got train"):
        retrieve(bernoulli, tiny_data, split="train")
    with pytest.raises(InputError, match="num_queries must be at least 1, got 0"):
        retrieve(bernoulli, tiny_data, num_queries=0)
    with pytest.raises(InputError, match="k must be at least one number of neighbours, such as 10,100, got none"):
        retrieve(bernoulli, tiny_data, k=[])
    with pytest.raises(InputError, match="k must be from 1 to 40, the size of the database, got 10, 100"):
        retrieve(bernoulli, tiny_data)
