"""Counting the operations of a step's products."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from dvae.training.module import DiscreteVAE
from dvae.training.step import step_loss

__all__ = ["count_products"]


def count_products(model: DiscreteVAE, batch_size: int) -> int:
    """Floating-point operations of all matrix products and convolutions of one step, forward and backward."""
    counter = _Products()
    x = torch.zeros(batch_size, model.num_pixels, device=model.mean.device)
    with counter:
        step_loss(model, x, model.noise(batch_size)).loss.backward()
    model.zero_grad()
    return counter.flops


class _Products(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        return out
