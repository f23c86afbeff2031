"""Codes in other forms come back as they were."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dvae.errors import InputError
from dvae.latents import from_integers, from_one_hot, one_hot, pack_bits, to_integers, unpack_bits


@st.composite
def codes(draw, most_values=300, most_bits=63):
    """Codes [*, D], how many values there are, and a number of variables that divides D and makes an int64."""
    num_values = draw(st.integers(2, most_values))
    group = draw(st.integers(1, max(1, int(most_bits / np.log2(num_values)))))
    shape = (*draw(st.lists(st.integers(1, 3), max_size=2)), group * draw(st.integers(1, 3)))
    size = int(np.prod(shape))
    values = draw(st.lists(st.integers(0, num_values - 1), min_size=size, max_size=size))
    dtype = torch.uint8 if num_values <= 256 else torch.int64
    return torch.tensor(values, dtype=dtype).reshape(shape), num_values, group


@settings(deadline=None)
@given(codes(most_values=2))
def test_bits_are_packed_as_numpy_does_and_come_back(drawn):
    bits, _, _ = drawn
    packed = pack_bits(bits)
    np.testing.assert_array_equal(packed.numpy(), np.packbits(bits.numpy(), axis=-1))
    back = unpack_bits(packed, bits.shape[-1])
    assert back.dtype == torch.uint8
    assert torch.equal(back, bits)


@settings(deadline=None)
@given(codes())
def test_integers_of_several_variables_come_back(drawn):
    given_codes, num_values, group = drawn
    integers = to_integers(given_codes, num_values, group)
    assert integers.shape == (*given_codes.shape[:-1], given_codes.shape[-1] // group)
    assert integers.min() >= 0
    assert torch.equal(from_integers(integers, num_values, group), given_codes.long())


@settings(deadline=None)
@given(codes(most_values=20))
def test_one_hot_vectors_come_back(drawn):
    given_codes, num_values, _ = drawn
    vectors = one_hot(given_codes, num_values)
    assert torch.equal(vectors.sum(-1), torch.ones(given_codes.shape))
    assert torch.equal(from_one_hot(vectors), given_codes.long())


def test_the_largest_integer_of_63_bits_comes_back():
    bits = torch.ones(1, 63)
    assert to_integers(bits, 2, 63).item() == 2**63 - 1
    assert torch.equal(from_integers(torch.tensor([[2**63 - 1]]), 2, 63), bits.long())


def test_what_would_be_lost_is_refused():
    with pytest.raises(InputError, match="codes must be whole numbers from 0 to 1, got values from 0 to 2"):
        pack_bits(torch.tensor([0, 2]))
    with pytest.raises(InputError, match=r"codes must be whole numbers from 0 to 1, got values from 0\.5"):
        pack_bits(torch.tensor([0.5, 1.0]))
    with pytest.raises(InputError, match=r"packed must be uint8 \[\*, 2\] of 9 bits, got torch.uint8 of shape \(3,\)"):
        unpack_bits(torch.zeros(3, dtype=torch.uint8), 9)
    with pytest.raises(InputError, match="group must divide the 3 variables of a code, got 2"):
        to_integers(torch.zeros(3), 2, 2)
    with pytest.raises(InputError, match="at most 63 bits, got 64 of 2"):
        to_integers(torch.zeros(64), 2, 64)
    with pytest.raises(InputError, match="integers must be whole numbers from 0 to 3, got values from 4 to 4"):
        from_integers(torch.tensor([4]), 2, 2)
    with pytest.raises(InputError, match="samples must be one-hot"):
        from_one_hot(torch.tensor([[1.0, 1.0]]))
