"""``dvae fit --init_from``: a new run from the weights of another."""

import torch

from dvae.cli import main
from dvae.cli.resume import resume_command
from dvae.training.checkpoints import read_checkpoint


def last(folder, name):
    return read_checkpoint(folder / "runs" / name / "version_0/checkpoints/last.ckpt")


def test_a_run_starts_from_the_weights_of_another(fit, folder, small, capsys):
    assert fit("--name=first", "--model.estimator=REBAR") == 0
    capsys.readouterr()
    still = ("--model.lr=0", "--model.phi_lr=0", "--seed_everything=3")
    flags = ("--init_from=runs/first/version_0/checkpoints/last.ckpt", *still)
    assert fit("--name=second", "--model.estimator=LOO", *flags, steps=4) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "starts from" in line)
    assert line.endswith("last.ckpt: took mean, encoders, decoders, prior; left there: estimators (2 tensors)")
    first, second = last(folder, "first"), last(folder, "second")
    for name in ("prior.logits", "mean", "output_bias"):
        assert torch.equal(first["state_dict"][name], second["state_dict"][name])
    assert second["global_step"] == second["dvae"]["iteration"] == 4
    assert second["dvae"]["seed"] == 3
    # Goes on as any other run.
    assert main(["fit", *small, "--name=second", "--trainer.max_steps=6", "--ckpt_path=last"]) == 0


def test_replicas_start_from_one_of_several(fit, folder, capsys):
    assert fit("--name=first", "--replicas=2", steps=3) == 0
    flags = ("--init_from=runs/first", "--init_from_replica=1", "--model.lr=0", "--model.phi_lr=0")
    assert fit("--name=second", "--replicas=3", *flags, steps=3) == 0
    assert "every replica starts from runs/first/version_0/checkpoints/best.ckpt: took mean, enc" in capsys.readouterr().out
    best = read_checkpoint(folder / "runs/first/version_0/checkpoints/best.ckpt")["state_dict"]
    second = last(folder, "second")["state_dict"]
    for index in range(3):
        assert torch.equal(second[f"models.{index}.prior.logits"], best["models.1.prior.logits"])


def test_what_does_not_go_together_is_refused(fit, folder, refused, small):
    assert fit("--name=first", steps=2) == 0
    again = ("fit", *small, "--model.num_pixels=16", "--name=second", "--trainer.max_steps=4")
    sentence = refused(*again, "--init_from=runs/first", "--ckpt_path=runs/first")
    assert "init_from and ckpt_path exclude each other, got runs/first and runs/first: leave init_from out" in sentence
    assert "init_from_replica needs init_from" in refused(*again, "--init_from_replica=1")
    assert "does not exist" in refused(*again, "--init_from=nowhere")


def test_the_command_that_goes_on_does_not_start_again():
    command = ["fit", "--name", "x", "--init_from", "runs/first", "--init_from_replica=1", "--trainer.max_steps", "4"]
    assert resume_command(command, "last") == "dvae fit --name x --trainer.max_steps 4 --ckpt_path last"
