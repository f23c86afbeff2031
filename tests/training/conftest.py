"""Tests of training import what they share, ``processes.py`` and ``apart.py``, which run as scripts too, by its name."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent))


@pytest.fixture
def images(tmp_path, tiny_data):
    """The small data set as a file."""
    path = tmp_path / "images.npz"
    np.savez(path, **{name: tiny_data.split(name).numpy() for name in ("train", "valid", "test")})
    return path
