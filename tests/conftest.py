"""Shared by all tests: one thread, which is faster and steadier at these sizes, compiling without code, and a small data set."""

import warnings

import pytest
import torch

from dvae.data import ArrayData
from dvae.testing import certified  # noqa: F401  # a fixture

warnings.filterwarnings("ignore", module="pytorch_lightning")


@pytest.fixture(autouse=True)
def _steady():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.set_flush_denormal(False)  # dvae fit sets it; hypothesis draws subnormal numbers


@pytest.fixture(autouse=True)
def _traced(request, monkeypatch):
    """``torch.compile`` runs what it has traced as it is: writing C++ takes most of its time, and is for tests marked ``inductor``.

    What a step loses by being compiled, it loses in tracing.
    """
    if request.node.get_closest_marker("inductor") is None:
        compile = torch.compile
        monkeypatch.setattr("torch.compile", lambda *args, options=None, **kwargs: compile(*args, backend="eager", **kwargs))


def pytest_collection_modifyitems(items):
    """The longest test first, so that the other processes go through the others beside it."""
    items.sort(key=lambda item: item.name != "test_commands_run_one_after_the_other")


@pytest.fixture
def tiny_data() -> ArrayData:
    """Sixty binary images of 4 x 4 pixels, in batches of 10; two kinds of image, so that there is something to learn."""
    generator = torch.Generator().manual_seed(0)
    stripes = torch.tensor([1.0, 0.0]).repeat(8)
    images = torch.where(torch.rand(60, 1, generator=generator) < 0.5, stripes, 1 - stripes)
    flips = torch.rand(60, 16, generator=generator) < 0.05
    images = (images - flips.float()).abs()
    return ArrayData(images[:40], images[40:50], images[50:], batch_size=10, eval_batch_size=5)
