"""Modules as functions of their tensors: parts of two names, and tied parameters."""

import pytest
import torch
from torch import Tensor, nn

from dvae.functional import caller, frozen, named_parameters, pull_back


class Net(nn.Module):
    """Its last layer has a second name, and its first two share a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(3))
        self.layers[1].weight = self.layers[0].weight
        self.last = self.layers[-1]
        self.last.register_buffer("scale", torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.last.scale * self.last(self.layers[1](self.layers[0](x)))


def tensors_of(net: Net) -> dict[str, Tensor]:
    return dict(net.named_parameters(remove_duplicate=False)) | dict(net.named_buffers(remove_duplicate=False))


@pytest.fixture
def net():
    return Net()


def test_what_is_frozen_gets_no_gradient_and_keeps_its_parameters(net):
    before, x = tensors_of(net), torch.randn(2, 3, requires_grad=True)
    value = frozen(net)(x)
    assert value.requires_grad
    assert torch.equal(value, net(x))
    value.sum().backward()
    assert all(parameter.grad is None for parameter in net.parameters())
    assert all(tensor is before[name] for name, tensor in tensors_of(net).items())


def test_a_call_is_that_of_a_module_with_the_given_tensors(net):
    other, before, x = Net(), tensors_of(net), torch.randn(2, 3)
    call = caller(net, Net.__call__)
    assert torch.equal(call(dict(other.named_parameters()) | dict(other.named_buffers()), x), other(x))
    assert all(tensor is before[name] for name, tensor in tensors_of(net).items())


@pytest.mark.parametrize("name", ["layers.2.weight", "last.weight", "layers.0.weight", "layers.1.weight", "last.scale"])
def test_a_tensor_of_several_names_is_replaced_under_all_of_them(net, name):
    new, x = torch.randn(tensors_of(net)[name].shape), torch.randn(2, 3)
    value = caller(net, Net.__call__)({name: new}, x)
    with torch.no_grad():
        tensors_of(net)[name].copy_(new)
    assert torch.equal(value, net(x))


def test_buffers_that_a_call_assigns_leave_the_module_as_it_is(net):
    def grown(net: Net) -> dict[str, Tensor]:
        net.last.scale = net.last.scale + 1
        return dict(net.named_buffers())

    new = caller(net, grown)({"layers.2.scale": torch.zeros(3)})
    assert torch.equal(new["layers.2.scale"], torch.ones(3))
    assert torch.equal(net.last.scale, torch.ones(3))


def test_parameters_are_those_of_the_modules_own_method(net):
    own = list(net.named_parameters(remove_duplicate=False))
    assert [name for name, _ in named_parameters(net)] == [name for name, _ in own]
    assert all(a is b for (_, a), (_, b) in zip(named_parameters(net), own, strict=True))
    assert [name for name, _ in named_parameters(net, without=("layers",))] == [n for n, _ in own if not n.startswith("layers.")]


def test_what_is_frozen_within_a_transform_can_be_called_after_it(net):
    call, x = frozen(net), torch.randn(2, 3)
    torch.func.grad(lambda x: call(x).sum())(x)
    assert torch.equal(call(x), net(x))
    torch.func.grad(lambda x: call(x).sum())(x)


def curve(weight):
    return lambda x: (weight * x.sin()).sum(-1)


def test_a_derivative_is_that_of_torch_func_and_is_differentiable():
    x, weight = torch.randn(4, 3), torch.randn(3, requires_grad=True)
    value, back = pull_back(curve(weight), x)
    other, transposed = torch.func.vjp(curve(weight), x)
    derivative = back(torch.ones_like(value))
    assert torch.equal(value, other)
    assert torch.equal(derivative, transposed(torch.ones_like(other))[0])
    (gradient,) = torch.autograd.grad(derivative.square().sum(), weight)
    assert gradient.allclose(2 * weight * x.cos().square().sum(0))
    with torch.no_grad():
        assert not pull_back(curve(weight), x)[1](torch.ones(4)).requires_grad


@pytest.mark.parametrize(
    "f", [lambda x: torch.ones(4), lambda x: x.new_ones(4).requires_grad_(), lambda x: (x > 0).sum(-1).float()]
)
def test_the_derivative_of_what_does_not_depend_on_it_is_zero(f):
    value, back = pull_back(f, torch.randn(4, 3))
    assert torch.equal(back(torch.ones_like(value)), torch.zeros(4, 3))


def test_a_derivative_goes_through_transforms():
    x, weight = torch.randn(5, 4, 3), torch.randn(5, 3)

    def slope(x, weight):
        value, back = pull_back(curve(weight), x)
        return back(torch.ones_like(value))

    assert torch.vmap(slope)(x, weight).allclose(weight[:, None] * x.cos())
