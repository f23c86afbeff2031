"""Numbers that change along a run: at the steps they say, in blocks, after a resumption, in replicas."""

import math

import pytest
import pytorch_lightning as pl
import torch
from processes import done, fit_arguments

import dvae
from dvae import DiscreteVAE, InputError
from dvae.estimators import LOO, REBAR, VIMCO, Concrete
from dvae.training.callbacks import Schedule
from dvae.training.checkpoints import read_checkpoint
from dvae.training.schedule import Course
from dvae.training.sweep import Replicas, replicate

TINY = {"num_pixels": 16, "num_latents": 4, "seed": 0, "lr": 0.01, "compile": False}
COSINE = {"class_path": "torch.optim.lr_scheduler.CosineAnnealingLR", "init_args": {"T_max": 300}}


def schedules():
    """New ones: of a number of the model's, of its estimator's and of the optimizer's."""
    return [
        Schedule("beta", {0: 0.1, 13: 2.0, 20: 1.0}, every_n_train_steps=3),
        Schedule("estimator.temperature", {0: 2.0, 30: 0.2}, "exponential", every_n_train_steps=5),
        Schedule("lr", {0: 0.01, 25: 0.001}, "cosine", every_n_train_steps=4),
    ]


def trainer(tmp_path, *callbacks, max_steps=30, **options) -> pl.Trainer:
    off = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False, "logger": False}
    given = {"max_steps": max_steps, "accelerator": "cpu", **off, **options}
    return pl.Trainer(default_root_dir=tmp_path, callbacks=list(callbacks), **given)


def model(seed=0, estimator=Concrete, **options) -> DiscreteVAE:
    torch.manual_seed(seed)
    return DiscreteVAE(estimator(), **{**TINY, "num_layers": 2, "kl": "analytic", "seed": seed, **options})


def assert_same(one, other):
    for (name, tensor), expected in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(tensor, expected), name


class ByHand(pl.Callback):
    """Sees every step, and sets the numbers as the schedules say."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        step = trainer.global_step
        pl_module.beta, temperature, lr = (own.value(step) for own in schedules())
        for estimator in pl_module.estimators:
            estimator.temperature = temperature
        trainer.optimizers[0].param_groups[0]["lr"] = lr


@pytest.mark.parametrize(
    ("interpolation", "values"),
    [
        ("linear", [1.0, 2.0, 3.0, 4.0, 5.0, 3.0, 1.0, 1.0]),
        ("cosine", [1.0, 3 - math.sqrt(2), 3.0, 3 + math.sqrt(2), 5.0, 3.0, 1.0, 1.0]),
        ("exponential", [1.0, 5**0.25, 5**0.5, 5**0.75, 5.0, 5**0.5, 1.0, 1.0]),
        ("step", [1.0, 1.0, 1.0, 1.0, 5.0, 5.0, 1.0, 1.0]),
    ],
)
def test_values_go_through_the_points(interpolation, values):
    course = Course({0: 1.0, 40: 5.0, 60: 1.0}, interpolation)
    assert [course(step) for step in (0, 10, 20, 30, 40, 50, 60, 1000)] == pytest.approx(values)


def test_a_number_changes_at_multiples_of_its_interval():
    schedule = Schedule("beta", {0: 0.0, 100: 1.0}, every_n_train_steps=10)
    assert [schedule.value(step) for step in (0, 9, 10, 19, 95, 100, 2000)] == [0.0, 0.0, 0.1, 0.1, 0.9, 1.0, 1.0]


@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 2}, {"compile": True}], ids=str)
def test_a_run_in_blocks_is_the_run_whose_numbers_are_set_by_hand(tmp_path, tiny_data, options):
    by_hand, driven = model(**options), model(steps_per_execution=7, **options)
    trainer(tmp_path, ByHand()).fit(by_hand, tiny_data)
    run = trainer(tmp_path, *schedules())
    run.fit(driven, tiny_data)
    if not options.get("compile"):
        assert_same(driven, by_hand)
    torch.testing.assert_close(driven.prior.logits, by_hand.prior.logits)
    assert driven.beta.item() == 1
    assert driven.estimators[0].temperature.item() == driven.estimators[1].temperature.item() == pytest.approx(2 * 0.1 ** (25 / 30))
    assert run.optimizers[0].param_groups[0]["lr"] == 0.001
    unchanged = model()
    trainer(tmp_path).fit(unchanged, tiny_data)
    assert not torch.equal(unchanged.prior.logits, driven.prior.logits)


def test_a_resumed_run_has_the_numbers_of_the_whole_one(tmp_path, tiny_data):
    """To the last bit, wherever it was stopped; temperatures are in no checkpoint."""
    whole = model(steps_per_execution=7)
    trainer(tmp_path, *schedules()).fit(whole, tiny_data)
    for stop in (11, 12):
        first = trainer(tmp_path, *schedules(), max_steps=stop)
        first.fit(model(steps_per_execution=7), tiny_data)
        first.save_checkpoint(tmp_path / "stopped.ckpt")
        rest = model(seed=5, steps_per_execution=7)
        trainer(tmp_path, *schedules()).fit(rest, tiny_data, ckpt_path=tmp_path / "stopped.ckpt", weights_only=True)
        assert_same(rest, whole)


def test_every_replica_has_them(tmp_path, tiny_data):
    arrays = [tiny_data.split(name) for name in ("train", "valid", "test")]

    def fitted(module, seed):
        data = dvae.data.ArrayData(*arrays, batch_size=10, eval_batch_size=5, seed=seed)
        trainer(tmp_path, *schedules(), precision="64-true").fit(module, data)
        return module

    replicas = fitted(Replicas([model(seed, steps_per_execution=7) for seed in (0, 1)]), 0)
    for seed, own in enumerate(replicas.models):
        alone = fitted(model(seed, steps_per_execution=7), seed)
        torch.testing.assert_close(own.prior.logits, alone.prior.logits, rtol=1e-9, atol=1e-9)
        assert own.beta == 1
        assert own.estimators[1].temperature == alone.estimators[1].temperature


def test_the_rate_of_phi_and_free_bits_have_schedules_too(tmp_path, tiny_data):
    own = model(estimator=REBAR, free_bits=0.0, kl_balance=0.5)
    points = {0: 0.5, 10: 0.75}
    names = ("phi_lr", "free_bits", "kl_balance")
    run = trainer(tmp_path, *(Schedule(name, points, every_n_train_steps=10) for name in names), max_steps=11)
    run.fit(own, tiny_data)
    assert [group["lr"] for group in run.optimizers[0].param_groups] == [0.01, 0.75]
    assert own.free_bits == own.kl_balance == 0.75


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("beta", {5: 1.0}), r"schedule of beta: points must be at whole steps, the first at 0, .*, got \[5\]"),
        (("beta", {0: 1.0, 9: 1.0, 9 - 4: 2.0}), r"each later than the one before, got \[0, 9, 5\]"),
        (("beta", {0: 1.0, 0.5: 2.0}), r"points must be at whole steps"),
        (("beta", {}), "points must be a mapping from steps to values"),
        (("beta", {0: math.nan}), r"points must have finite numbers as values, got \[nan\]"),
        (("lr", {0: 0.0, 9: 1.0}, "exponential"), "points must be above 0 for an exponential, got 0.0"),
        (("lr", {0: 0.1}, "quadratic"), "interpolation must be out of linear, cosine, exponential, step, got 'quadratic'"),
        (("lr", {0: -0.1}), "lr must be at least 0, got -0.1"),
        (("beta", {0: -1.0}), "beta must be a finite number of at least 0, got -1.0"),
        (("kl_balance", {0: 0.5, 5: 1.0}), "kl_balance must be between 0 and 1, got 1.0"),
        (("estimator.temperature", {0: 0.0}), "estimator.temperature must be positive, got 0.0"),
        (("beta", {0: 1.0}, "linear", 0), "every_n_train_steps must be at least 1, got 0"),
    ],
)
def test_points_that_make_no_sense_are_refused(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        Schedule(*arguments)


@pytest.mark.parametrize(
    ("name", "make", "sentence"),
    [
        ("betta", model, "there is no betta in the model for a schedule to change: known are lr, beta, estimator.temperature,"),
        ("estimator.heat", model, "there is no estimator.heat in the model"),
        ("encoders.9.scale", model, "there is no encoders.9.scale in the model"),
        ("estimator.temperature", lambda: model(estimator=REBAR), "is learned by REBAR, as its parameter log_temperature"),
        ("free_bits", model, r"free_bits is no part of the step of .*: make the model with free_bits=\.\.\."),
        ("beta", lambda: model(estimator=VIMCO, kl="sampled"), "beta is not for the K-sample bound of VIMCO"),
        ("mean", model, r"mean must be a buffer of DiscreteVAE with one number, got a tensor of shape \(16,\)"),
        ("num_pixels", model, "num_pixels must be a buffer of DiscreteVAE with one number, got int"),
        ("phi_lr", lambda: model(estimator=LOO), "phi_lr has nothing to schedule: LOO learns no parameters"),
        ("lr", lambda: model(lr_scheduler=COSINE), "lr must be driven by lr_scheduler or by a schedule, got both"),
        (
            "beta",
            lambda: replicate(model(), 1, {"beta": [0.5, 1.0]}),
            r"beta must be one for all replicas .*, got \[\[0.5\], \[1.0\]\]",
        ),
        ("lr", lambda: replicate(model(), 1, {"lr": [0.5, 1.0]}), r"lr must be one for all replicas .*, got \[0.5, 1.0\]"),
    ],
)
def test_a_number_that_cannot_be_driven_is_refused(tmp_path, tiny_data, name, make, sentence):
    with pytest.raises(InputError, match=sentence):
        trainer(tmp_path, Schedule(name, {0: 0.5})).fit(make(), tiny_data)


def test_two_schedules_of_one_number_are_refused(tmp_path, tiny_data):
    with pytest.raises(InputError, match="beta must have one schedule, got several"):
        trainer(tmp_path, Schedule("beta", {0: 0.5}), Schedule("beta", {0: 0.6})).fit(model(), tiny_data)


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["--replicas=2"]], ids=["one", "replicas"])
def test_two_processes_have_the_same_numbers(tmp_path, images, flags):
    several = ["--trainer.strategy=ddp", "--trainer.devices=2", "--trainer.max_steps=12", *flags]
    numbers = "{beta: {points: {0: 0, 8: 1}, every_n_train_steps: 4}, lr: {points: {0: 0.01, 8: 0.001}, every_n_train_steps: 4}}"
    done(fit_arguments(images, tmp_path, *several, f"--schedule={numbers}"), tmp_path)
    content = read_checkpoint(next((tmp_path / "runs").rglob("last.ckpt")))
    betas = [tensor.item() for name, tensor in content["state_dict"].items() if name.endswith("_beta")]
    assert betas == [1.0] * max(1, 2 * len(flags))
    assert 0.001 in {group["lr"] for group in content["optimizer_states"][0]["param_groups"]}
