"""``dvae export``: a run's model for other people and other programs."""

import pytest
import torch

import dvae
from dvae.cli import main
from dvae.training.checkpoints import load_model


@pytest.fixture
def run(fit):
    assert fit("--name=small", "--without", "Pictures") == 0
    return "runs/small"


def test_a_run_becomes_a_folder_to_share_with_its_figures(run, folder, capsys):
    pytest.importorskip("safetensors")
    assert main(["evaluate", run, "--num_samples=2", "--num_draws=4", "--json=figures.json", "--device=cpu"]) == 0
    assert main(["export", run, "--out=shared", "--figures=figures.json"]) == 0
    assert "dvae.VAE.from_pretrained('shared')" in capsys.readouterr().out
    assert "| ELBO (nats) | -" in (folder / "shared" / "README.md").read_text()
    x = torch.rand(5, 16).round()
    assert torch.equal(dvae.VAE.from_pretrained("shared").codes(x), load_model(run)[0].codes(x))


def test_a_run_becomes_programs(run, folder):
    assert main(["export", run, "--format=torch-export", "--out=programs"]) == 0
    x = torch.rand(5, 1, 4, 4).round()
    encoder = torch.export.load(folder / "programs" / "encoder.pt2").module()
    assert torch.equal(encoder(x), load_model(run)[0].codes(x))


def test_what_cannot_be_exported_is_refused(run, folder, refused):
    assert "format must be hub, onnx or torch-export, got 'tflite'" in refused("export", run, "--format=tflite", "--out=x")
    sentence = refused("export", run, "--format=onnx", "--figures=f.json", "--out=x")
    assert "figures are for the card of --format hub, got format onnx" in sentence
    (folder / "f.json").write_text("[1]")
    assert "figures must be a file that dvae evaluate --json wrote" in refused("export", run, "--figures=f.json", "--out=x")
    assert not (folder / "x").exists()
