"""``dvae report``: one page of runs, which says what a run has, and why not what it has not."""

import html
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from dvae.cli import main
from dvae.lab.report import PARTS, report

pytest.importorskip("plotly")

QUICK = ("--quick", "--num_samples=3", "--device=cpu")


@pytest.fixture
def reported(capsys):
    """Writes a page; returns its parts as plain text, by name, and its file."""

    def run(*arguments: str) -> tuple[dict[str, str], Path]:
        capsys.readouterr()
        assert main(["report", *arguments, *QUICK]) == 0
        path = Path("report.html")
        assert capsys.readouterr().out.splitlines()[-1] == f"wrote report.html, {path.stat().st_size / 1e6:.1f} MB"
        return parts_of(path), path

    return run


def parts_of(path: Path) -> dict[str, str]:
    """What a reader sees of each part, charts as their data and pictures as their words."""
    sections = re.findall(r'<section id="(\w+)">(.*?)</section>', path.read_text(), re.DOTALL)
    shown = ((name, re.sub(r'<img [^>]*alt="([^"]*)"[^>]*>', r"\1", body)) for name, body in sections)
    return {name: html.unescape(re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", body))) for name, body in shown}


def test_a_run_of_replicas_is_shown_with_all_its_parts(fit, folder, reported):
    assert fit("--name=small", "--replicas=2", "--without=Pictures", "--model.estimator=LOO", steps=30) == 0
    parts, path = reported("runs/small", "--estimators=LOO,REINFORCE")
    assert list(parts) == list(PARTS)
    assert re.search(r"small mean of 2 LOO -\d+\.\d\d ± \d", parts["figures"])
    assert "measured on 10 examples of test" in parts["figures"]
    assert "small, replica 0 of 2" in parts["samples"]
    for name in ("reconstructions", "traversal", "retrieval"):
        assert "small, replica 0 of 2" in parts[name], name
    assert "its data have no labels" in parts["retrieval"]
    assert "LOO (trained with it)" in parts["variance"]
    assert "dvae fit --data=images.npz" in parts["configuration"]
    assert "--model.estimator=LOO" in parts["configuration"]
    figure = json.loads(re.search(r'<script type="application/json">(.*?)</script>', path.read_text())[1])
    (band, line) = figure["data"]
    assert band["fill"] == "toself"
    assert line["x"][-1] == 29
    again = re.search(r"dvae (fit --config \S+)", parts["configuration"])[1]
    assert main(again.split()) == 0
    assert (folder / "runs/small/version_1/metrics.csv").is_file()


def test_labels_give_figures_of_search_and_parts_are_left_out(fit, folder, reported):
    assert fit("--name=small", "--without=Pictures") == 0
    with np.load("images.npz") as file:
        images = dict(file)
    kinds = {f"{name}_labels": (split[:, 0] > 0.5).astype(np.int64) for name, split in images.items()}
    np.savez("labelled.npz", **images, **kinds)
    others = ",".join(name for name in PARTS if name != "retrieval")
    parts, _ = reported("runs/small", "--data=labelled.npz", f"--without={others}")
    assert list(parts) == ["retrieval"]
    assert re.search(r"small random hyperplanes \d\.\d{4} ± \d\.\d{4}", parts["retrieval"])


def test_what_a_run_cannot_have_is_said_in_a_line(fit, folder, small, reported):
    assert fit("--name=vae", "--without=Pictures") == 0
    quantised = ("--model=dvae.QuantizedAutoencoder", "--model.num_pixels=16", "--model.num_latents=4")
    assert main(["fit", *small, *quantised, "--trainer.max_steps=12", "--name=coded", "--without=Pictures,BestCheckpoint"]) == 0
    (folder / "logged").mkdir()
    (folder / "logged" / "metrics.csv").write_text("step,seconds,train/elbo\n9,1.0,-9.5\n19,2.0,-9\n")
    parts, _ = reported("runs/vae", "runs/coded", "logged", "--without=variance")
    for name in ("samples", "traversal", "retrieval"):
        assert "coded has none: a quantised autoencoder has no distribution of its code" in parts[name]
        assert "logged has none: folder logged holds no checkpoint" in parts[name]
        assert "vae has none" not in parts[name]
    assert "coded: a quantised code has no distribution" in parts["figures"]
    assert "logged is not evaluated: folder logged holds no checkpoint" in parts["figures"]
    assert "Rows of images and, below each, their reconstructions by coded" in parts["reconstructions"]
    assert "logged has no configuration" in parts["configuration"]
    assert "model.quantizer" in parts["configuration"]


def test_a_comparison_is_a_table_of_its_estimators_as_it_measured_them(folder, small, reported):
    flags = (*small, "--model.num_pixels=16", "--model.num_latents=4", "--model.compile=false", "--without=Pictures")
    compare = ["compare", "--estimators=[LOO, DisARM]", "--seeds=2", "--max_steps=12", "--num_samples=7", "--name=c", *flags]
    assert main(compare) == 0
    record = json.loads((folder / "runs/compare/c/version_0/figures.json").read_text())
    parts, _ = reported("runs/compare/c", "--without=variance,retrieval,traversal")
    for row in record["rows"]:
        elbo = f"{row['elbo']['mean']:.2f} ± {row['elbo']['standard_error']:.2f}"
        assert re.search(rf"{row['estimator']} mean of 2 {row['estimator']} .*{re.escape(elbo)}", parts["figures"])
    assert "dvae compare measured LOO, DisARM" in parts["figures"]
    assert "bound, 7 samples" in parts["figures"]


def test_a_runs_name_is_no_markup(fit, folder, reported):
    assert fit("--name=small", "--without=Pictures") == 0
    name = "<script>alert(1)<!--<img src=x onerror=alert(1)>"
    shutil.move("runs/small", f"runs/{name}")
    parts, path = reported(f"runs/{name}", "--without=variance,retrieval")
    assert name in parts["figures"]
    assert "<script>alert" not in path.read_text()
    assert "<img src=x" not in path.read_text()


def test_wrong_input_is_one_sentence_and_leaves_no_page(fit, folder, refused):
    assert fit("--name=small", "--without=Pictures") == 0
    assert "without must be out of figures, curves" in refused("report", "runs/small", "--without=curve")
    assert "did you mean curves?" in refused("report", "runs/small", "--without=curve")
    assert "a page is a .html file, got page.pdf" in refused("report", "runs/small", "--out=page.pdf", "--quick")
    assert "checkpoint runs/none does not exist" in refused("report", "runs/none")
    assert "split must be one of train, valid, test" in refused("report", "runs/small", "--split=all")
    assert "estimators must be import paths or out of" in refused("report", "runs/small", "--estimators=LOOO")
    assert "data must be a file, got none.npz" in refused("report", "runs/small", "--data=none.npz")
    assert "num_examples must be at least 2" in refused("report", "runs/small", "--num_examples=1")
    assert not list(folder.glob("*.html"))


def test_a_page_in_python(fit, folder):
    assert fit("--name=small", "--without=Pictures") == 0
    lines = []
    others = [name for name in PARTS if name != "figures"]
    path = report(["runs/small"], "page.html", without=others, num_samples=2, progress=lines.append)
    assert parts_of(path).keys() == {"figures"}
    assert lines == ["small: evaluating"]
