"""A small data set as a file, and the commands on it."""

import numpy as np
import pytest

from dvae.cli import main


@pytest.fixture
def folder(tmp_path, tiny_data, monkeypatch):
    """A user's folder, in which images.npz lies and the command runs."""
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "images.npz", **{name: tiny_data.split(name).numpy() for name in ("train", "valid", "test")})
    return tmp_path


SMALL = (
    "--data=images.npz",
    "--data.batch_size=10",
    "--data.eval_batch_size=5",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
)


@pytest.fixture
def fit(folder):
    """Fits a small model; returns the exit status."""

    def run(*flags: str, steps: int = 12) -> int:
        model = ("--model.num_pixels=16", "--model.num_latents=4", "--model.compile=false")
        return main(["fit", *SMALL, *model, f"--trainer.max_steps={steps}", *flags])

    return run


@pytest.fixture
def refused(capsys):
    """The one sentence in which a command fails."""

    def run(*arguments: str) -> str:
        capsys.readouterr()
        assert main(list(arguments)) in (1, 2)
        (sentence,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dvae: error: ")]
        return sentence

    return run


@pytest.fixture
def small() -> tuple[str, ...]:
    return SMALL
