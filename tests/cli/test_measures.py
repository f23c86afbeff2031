"""Further metrics from the shell: along a run, and in an evaluation."""

import json

NETWORK = """
import torch


class Rows(torch.nn.Module):
    def forward(self, images):
        return images.mean(-1).flatten(1)
"""


def test_metrics_are_logged_along_a_run(fit, folder):
    usage = "{usage: {class_path: dvae.metrics.CodeUsage, init_args: {shape: [4]}}}"
    psnr = "{psnr: {class_path: torchmetrics.image.PeakSignalNoiseRatio, init_args: {data_range: 1.0}}}"
    flags = [f"--trainer.callbacks.codes={usage}", f"--trainer.callbacks.reconstructions={psnr}"]
    assert fit("--name=measured", "--without", "Pictures", "--trainer.callbacks+=Measures", *flags) == 0
    header = (folder / "runs" / "measured" / "version_0" / "metrics.csv").read_text().splitlines()[0]
    assert {"val/usage", "val/psnr"} <= set(header.split(","))


def test_frechet_distances_are_in_the_features_of_a_network_of_the_users(fit, folder, refused):
    from dvae.cli import main

    (folder / "my_rows.py").write_text(NETWORK)
    assert fit("--name=small", "--without", "Pictures") == 0
    flags = ["runs/small", "--num_samples=2", "--num_draws=4", "--device=cpu"]
    assert main(["evaluate", *flags, "--features=my_rows.Rows", "--json=figures.json"]) == 0
    figures = json.loads((folder / "figures.json").read_text())
    assert figures["frechet_samples"] > 0
    assert figures["frechet_reconstructions"] > 0
    assert "features: cannot import 'my_rows.Columns'" in refused("evaluate", *flags, "--features=my_rows.Columns")
