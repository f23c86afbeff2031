"""Noise from counters: SplitMix64's numbers, the same eagerly, compiled, in every precision and for several models at once."""

import pytest
import torch

from dvae.estimators import RELAX
from dvae.noise import noise_seed, noise_stream, place, uniform, uniform_from, uniform_of
from dvae.training.module import DiscreteVAE

MASK = (1 << 64) - 1


def splitmix64(state, count):
    """The published algorithm, in Python's integers."""
    numbers = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        mixed = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & MASK
        numbers.append(mixed ^ (mixed >> 31))
    return numbers


def test_the_numbers_are_splitmix64s():
    assert splitmix64(1234567, 2) == [6457827717110365317, 3203168211198807973]  # its published test vector
    drawn = uniform(torch.tensor(1), (2, 50), torch.float64).flatten()
    assert drawn.tolist() == [(number >> 11) * 2.0**-53 for number in splitmix64(0, 100)]


@pytest.mark.parametrize("stream", [-(2**63), -1, 0, 2**63 - 1])
def test_precisions_share_their_first_digits(stream):
    start = place(stream, torch.tensor(7))
    double, single = uniform(start, (10_000,), torch.float64), uniform(start, (10_000,), torch.float32)
    assert 0 <= single.min() < 0.001
    assert 0.999 < double.max() < 1
    difference = double - single.double()
    assert 0 <= difference.min() < difference.max() < 2.0**-24


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("stream", [-(2**63), -1, 0, 2**63 - 1])
def test_numbers_from_an_integer_on_are_those_from_a_tensor_on(stream, dtype):
    for iteration in (0, 7, 10**9):
        first, second = uniform_of(stream, iteration, [(2, 3, 4), (5,)], dtype)
        assert first.dtype == second.dtype == dtype
        drawn = uniform(place(stream, torch.tensor(iteration)), (29,), dtype)
        assert torch.equal(first, drawn[:24].view(2, 3, 4))
        assert torch.equal(second, drawn[24:])


def test_numbers_that_are_changed_in_place_are_drawn_again_as_they_were():
    (drawn,) = uniform_of(3, 5, [(4,)])
    before = drawn.clone()
    drawn.zero_()
    assert torch.equal(uniform_of(3, 5, [(4,)])[0], before)


@pytest.mark.parametrize("coupled", [True, False])
def test_an_iteration_has_the_same_noise_from_integers_and_from_tensors(coupled):
    model = DiscreteVAE(RELAX(coupled=coupled), num_pixels=6, num_latents=4, num_layers=2, seed=3)
    stream = model.noise_stream(0)
    ours, again = model.training_noise(5, stream, 11), model.training_noise(5, torch.tensor(stream), torch.tensor(11))
    assert all(torch.equal(a, b) for a, b in zip(ours, again, strict=True))


def test_numbers_of_many_iterations_are_uniform_and_unrelated():
    count, iterations = 500, 400
    stream = noise_stream(0, 0, 0)
    u = torch.stack([uniform(place(stream, torch.tensor(iteration)), (count,), torch.float64) for iteration in range(iterations)])
    # Pearson's chi-squared over 64 cells, whose expectation is 63 with standard deviation 11.2.
    expected = u.numel() / 64
    statistic = ((torch.bincount((u * 64).long().flatten(), minlength=64) - expected) ** 2 / expected).sum()
    assert abs(statistic - 63) < 4 * 11.2
    centred = (u - 0.5) * 12**0.5
    for other in (centred.roll(1, 0), centred.roll(1, 1)):  # the iteration before, the number before
        assert abs((centred * other).mean()) * u.numel() ** 0.5 < 4


@pytest.mark.inductor
@pytest.mark.parametrize(
    ("shape", "dtype"), [((3,), torch.float64), ((1, 1, 24, 200), torch.float32), ((2, 3, 7, 5), torch.float64)], ids=str
)
def test_compiled_noise_is_the_same(shape, dtype):
    def draw(streams, clock):
        return uniform(place(streams[0], clock[0]), shape, dtype)

    compiled, streams = torch.compile(draw, dynamic=False, fullgraph=True), torch.tensor([noise_stream(3, 1)])
    for iteration in (0, 1, 10**9):
        clock = torch.tensor([iteration])
        assert torch.equal(compiled(streams, clock), draw(streams, clock))


def test_vectorized_noise_is_each_models_own():
    models = [DiscreteVAE(RELAX(coupled=False), num_pixels=6, num_latents=4, num_layers=2, seed=seed) for seed in range(3)]
    streams = torch.tensor([model.noise_stream(0) for model in models])
    together = torch.vmap(lambda stream: models[0].training_noise(5, stream, torch.tensor(8)))(streams)
    for index, model in enumerate(models):
        alone = model.training_noise(5, model.noise_stream(0), 8)
        assert [tuple(layer.shape) for layer in alone] == [(2, 1, 5, 4)] * 2
        for several, own in zip(together, alone, strict=True):
            assert torch.equal(several[index], own)


def test_layers_processes_and_iterations_differ():
    model = DiscreteVAE(RELAX(), num_pixels=6, num_latents=4, num_layers=2, seed=1)
    drawn = [model.training_noise(5, model.noise_stream(rank), iteration) for rank in (0, 1) for iteration in (0, 1)]
    numbers = torch.stack([layer for layers in drawn for layer in layers]).flatten()
    assert len(numbers.unique()) == len(numbers)


def test_a_seed_is_mixed_with_one_counter_after_the_other():
    state = 5
    for counter in (1, 2, 3):
        state = splitmix64((state + counter * 0x9E3779B97F4A7C15) & MASK, 1)[0]
    assert noise_seed(5, 1, 2, 3) == state >> 1
    assert noise_stream(5, 1, 2, 3) & MASK == state
    assert noise_stream(5, 1, 2, 3) == place(noise_stream(5, 1, 2), torch.tensor(3))


def test_a_generator_s_numbers_are_drawn_where_it_is(monkeypatch):
    drawn = []
    rand = torch.rand
    monkeypatch.setattr(torch, "rand", lambda *shape, device, **options: drawn.append(str(device)) or rand(*shape, **options))
    u = uniform_from(torch.Generator().manual_seed(3), (2, 5), "meta", torch.float64)
    assert (u.device.type, tuple(u.shape), u.dtype) == ("meta", (2, 5), torch.float64)
    uniform_from(None, (2, 5), "meta")
    assert drawn == ["cpu", "meta"]
