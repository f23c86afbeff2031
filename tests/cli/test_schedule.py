"""``dvae fit --schedule``: numbers that change along a run."""

import csv

import pytest

from dvae.training.checkpoints import read_checkpoint


def test_a_schedule_is_logged_and_its_end_is_in_the_checkpoint(fit, folder):
    schedule = "{beta: {points: {0: 0, 8: 1}, every_n_train_steps: 4}, lr: {0: 0.01, 8: 0.001}}"
    assert fit("--name=s", f"--schedule={schedule}", "--trainer.log_every_n_steps=4") == 0
    with (folder / "runs/s/version_0/metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["schedule/beta"]]
    assert [(int(row["step"]) + 1, float(row["schedule/beta"])) for row in rows] == [(4, 0.0), (8, 0.5), (12, 1.0)]
    assert [float(row["schedule/lr"]) for row in rows] == pytest.approx([0.01] * 3)  # every 50 updates
    assert read_checkpoint(folder / "runs/s/version_0/checkpoints/last.ckpt")["state_dict"]["_beta"] == 1


def test_a_resumed_run_goes_on_with_it(fit, folder):
    schedule = "--schedule={estimator.temperature: {points: {0: 1, 20: 0.1}, interpolation: exponential, every_n_train_steps: 3}}"
    flags = ("--model.estimator=Concrete", schedule)
    assert fit("--name=whole", *flags, steps=16) == 0
    assert fit("--name=half", *flags, steps=7) == 0
    assert fit("--name=half", *flags, "--ckpt_path=last", steps=16) == 0
    whole, half = (
        read_checkpoint(folder / "runs" / name / "checkpoints/last.ckpt")["state_dict"]
        for name in ("whole/version_0", "half/version_1")
    )
    assert all((half[name] == tensor).all() for name, tensor in whole.items())


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("{beta: 3}", "schedule of beta must be a mapping from updates to values"),
        ("{beta: {points: {0: 1}, speed: 3}}", "schedule of beta has unknown keys ['speed']; expected every_n_train_steps, inter"),
        ("{beta: {1: 1}}", "schedule of beta: points must be at whole steps, the first at 0"),
        ("{betta: {0: 1}}", "there is no betta in the model for a schedule to change"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(folder, refused, small, given, sentence):
    assert sentence in refused("fit", *small, "--model.num_pixels=16", f"--schedule={given}", "--trainer.max_steps=3")
