"""Replicas: each is the model that a run of its own gives."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils._pytree import tree_flatten

import dvae
from dvae.cli import main
from dvae.errors import InputError, NonFiniteError
from dvae.estimators import LOO, NVIL, REBAR, RELAX, RODEO, Concrete
from dvae.training.checkpoints import load_model, read_checkpoint
from dvae.training.module import DiscreteVAE
from dvae.training.record import extract
from dvae.training.sweep import Replicas, replicate

TINY = {"num_pixels": 16, "num_latents": 4, "lr": 0.01, "steps_per_execution": 7}


@pytest.fixture
def fit(tmp_path, tiny_data):
    """Trains a module on the data of a seed, and returns its trainer; in float64, so that only the order of sums differs."""

    def run(module, seed, max_steps=100, precision="64-true", dynamic=False, **options):
        images = torch.rand(40, 16, generator=torch.Generator().manual_seed(0)) if dynamic else tiny_data.split("train")
        data = dvae.data.ArrayData(images, tiny_data.split("valid"), batch_size=12, eval_batch_size=5, seed=seed, dynamic=dynamic)
        trainer = pl.Trainer(
            max_steps=max_steps,
            max_epochs=-1,
            accelerator="cpu",
            precision=precision,
            logger=pl.loggers.CSVLogger(tmp_path),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            val_check_interval=25,
            check_val_every_n_epoch=None,
            log_every_n_steps=10,
        )
        trainer.fit(module, data, **options)
        return trainer

    return run


def seeded(start, make, **options):
    torch.manual_seed(start)
    return DiscreteVAE(make(), **{**TINY, **options})


def assert_equal_models(replica, single, rel=1e-8):
    for (name, tensor), expected in zip(replica.state_dict().items(), single.state_dict().values(), strict=True):
        torch.testing.assert_close(tensor, expected, rtol=rel, atol=rel, msg=lambda text, name=name: f"{name}: {text}")


COSINE = {"class_path": "torch.optim.lr_scheduler.CosineAnnealingLR", "init_args": {"T_max": 300}}
MLP = {"class_path": "dvae.networks.MLP", "init_args": {"in_features": 16, "out_features": 4, "hidden": [5]}}


@pytest.mark.parametrize(
    ("make", "options", "dynamic"),
    [
        (lambda: RELAX(hidden=5), {"num_layers": 2, "phi_warmup_steps": 20, "gradient_clip_norm": 1.0}, False),
        (lambda: NVIL(hidden=[5]), {"lr_scheduler": COSINE, "weight_decay": 0.01, "seed": 3}, True),
        (lambda: LOO(), {"latent": "Categorical", "num_classes": 3, "kl": "analytic"}, False),
        pytest.param(lambda: RODEO(hidden=5), {"encoder": MLP}, True, marks=pytest.mark.slow),
        pytest.param(lambda: REBAR(), {"compile": True}, False, marks=pytest.mark.slow),
    ],
)
def test_a_replica_is_the_model_of_a_run_with_its_seed(fit, make, options, dynamic):
    """Parameters, running statistics and buffers after 100 steps; and the logged metrics."""
    singles, metrics = [], []
    for index in range(3):
        own = {**options, **({"seed": options["seed"] + index} if "seed" in options else {})}
        singles.append(seeded(5 + index, make, **own))
        metrics.append(fit(singles[-1], 8 + index, dynamic=dynamic).callback_metrics)
    replicas = replicate(seeded(5, make, **options), 3)
    logged = fit(replicas, 8, dynamic=dynamic).callback_metrics
    for index, (replica, single) in enumerate(zip(replicas.models, singles, strict=True)):
        assert_equal_models(replica, single)
        assert replica.seed == single.seed
        for name, value in metrics[index].items():
            assert logged[f"{name}/{index}"].item() == pytest.approx(value.item(), rel=1e-5)
    assert not torch.equal(singles[0].prior.logits, singles[1].prior.logits)
    for name in ("train/elbo", "val/importance_weighted_bound"):
        values = np.array([own[name].item() for own in metrics])
        assert logged[name].item() == pytest.approx(values.mean(), rel=1e-5)
        assert logged[f"{name}_std_error"].item() == pytest.approx(values.std(ddof=1) / 3**0.5, rel=1e-3)


def test_a_sweep_trains_every_combination_as_a_run_of_its_own(fit):
    options = {"phi_warmup_steps": 2}
    sweep = {"lr": [0.01, 0.03], "phi_lr": [0.1], "weight_decay": [0.0, 0.1], "estimator.temperature": [0.4]}
    replicas = replicate(seeded(2, RELAX, **options), 1, sweep)
    fit(replicas, 0, max_steps=30)
    assert [own["lr"] for own in replicas.settings] == [0.01, 0.01, 0.03, 0.03]
    for replica, setting in zip(replicas.models, replicas.settings, strict=True):
        own = {name: setting[name] for name in ("lr", "phi_lr", "weight_decay")}
        single = seeded(2, lambda: RELAX(temperature=0.4), **options, **own)
        fit(single, 0, max_steps=30)
        assert_equal_models(replica, single)


def test_a_temperature_that_is_not_learned_can_be_swept_too(fit):
    replicas = replicate(seeded(2, Concrete), 2, {"estimator.temperature": [0.2, 2.0]})
    fit(replicas, 0, max_steps=20)
    assert replicas.seed_offsets == [0, 1, 0, 1]
    for index, temperature, seed in ((1, 0.2, 1), (2, 2.0, 0)):
        single = seeded(2 + seed, lambda temperature=temperature: Concrete(temperature))
        fit(single, seed, max_steps=20)
        assert_equal_models(replicas.models[index], single)


class Breaks(DiscreteVAE):
    """Its loss is not a number once a buffer, which counts its steps, is beyond a limit."""

    def __init__(self, estimator=None, limit=1000.0, **kwargs):
        super().__init__(estimator, **kwargs)
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("limit", torch.tensor(limit))

    def objective(self, terms):
        if self.training:
            self.count = self.count + 0.5  # the objective is asked for twice in a step of REBAR
        return terms.elbo + torch.where(self.count > self.limit, torch.log(self.limit * 0 - 1), 0 * self.limit)


def test_a_replica_that_fails_is_named_and_the_others_go_on(fit, tmp_path):
    def models(limits):
        made = []
        for index, limit in enumerate(limits):
            torch.manual_seed(index)
            made.append(Breaks(LOO(), limit, **{**TINY, "seed": index}))
        return made

    whole = Replicas(models([1000.0, 1000.0, 1000.0]))
    fit(whole, 0, max_steps=40)
    broken = Replicas(models([1000.0, 8.0, 1000.0]))
    with pytest.warns(UserWarning, match=r"replica 1 \(seed=1\) stopped at iteration 16: .* not finite: elbo; .*|.* go on") as told:
        trainer = fit(broken, 0, max_steps=40)
    assert sum("stopped" in str(warning.message) for warning in told) == 1
    assert trainer.global_step == 40
    for index in (0, 2):
        limit = broken.models[index].state_dict()
        torch.testing.assert_close(limit["prior.logits"], whole.models[index].prior.logits, rtol=1e-12, atol=1e-12)
    early = Replicas(models([1000.0, 1000.0, 1000.0]))
    fit(early, 0, max_steps=16)
    torch.testing.assert_close(broken.models[1].prior.logits, early.models[1].prior.logits, rtol=1e-12, atol=1e-12)
    trainer.logger.save()
    rows = list(csv.DictReader((Path(trainer.log_dir) / "metrics.csv").open()))
    logged = {index: [int(row["step"]) for row in rows if row[f"train/elbo/{index}"]] for index in (0, 1)}
    assert logged == {0: [9, 19, 29, 39], 1: [9]}
    values = [trainer.callback_metrics[f"val/elbo/{index}"].item() for index in (0, 2)]
    assert trainer.callback_metrics["val/elbo"].item() == pytest.approx(sum(values) / 2)

    trainer.save_checkpoint(tmp_path / "broken.ckpt")
    entries = read_checkpoint(tmp_path / "broken.ckpt")["dvae"]["replicas"]
    assert [entry["iteration"] for entry in entries] == [40, 16, 40]
    assert entries[1]["train_elbo"] == pytest.approx(float(rows[0]["train/elbo/1"]))
    resumed = Replicas(models([1000.0, 8.0, 1000.0]))
    fit(resumed, 0, max_steps=60, ckpt_path=tmp_path / "broken.ckpt", weights_only=True)
    assert resumed.active == [0, 2]
    torch.testing.assert_close(resumed.models[1].prior.logits, broken.models[1].prior.logits, rtol=0, atol=0)

    with pytest.raises(NonFiniteError, match="It was the last one"):
        fit(Replicas(models([8.0, 4.0])), 0, max_steps=40)


@pytest.mark.parametrize("make", [lambda: seeded(0, NVIL), lambda: replicate(seeded(0, NVIL), 2)])
@pytest.mark.parametrize("step", [4, 13])
def test_a_checkpoint_loaded_and_saved_again_holds_the_same(fit, tmp_path, make, step):
    fit(make(), 0, max_steps=step).save_checkpoint(tmp_path / "first.ckpt")
    fit(make(), 0, step, ckpt_path=tmp_path / "first.ckpt", weights_only=True).save_checkpoint(tmp_path / "second.ckpt")
    first, second = (read_checkpoint(tmp_path / name)["dvae"] for name in ("first.ckpt", "second.ckpt"))
    (entry, *_) = first.get("replicas", [first])
    assert (entry["train_elbo"] is None) == (step == 4)  # it logs every 10 steps
    (values, form), (saved_again, other_form) = tree_flatten(first), tree_flatten(second)
    assert form == other_form
    for value, again in zip(values, saved_again, strict=True):
        assert torch.equal(value, again) if isinstance(value, torch.Tensor) else value == again


def of_each_group(name, **arguments):
    return {"class_path": f"torch.optim.lr_scheduler.{name}", "init_args": arguments}


@pytest.mark.parametrize(
    "schedule",
    [
        COSINE,
        of_each_group("OneCycleLR", max_lr=[0.05, 0.01], total_steps=60, base_momentum=[0.8, 0.85]),
        of_each_group("CyclicLR", base_lr=[0.001, 0.01], max_lr=[0.01, 0.02], step_size_up=7, cycle_momentum=False),
        of_each_group("MultiStepLR", milestones=[10, 40], gamma=0.5),  # two of them, as of groups, and not of these
    ],
    ids=lambda schedule: schedule["class_path"].rpartition(".")[2],
)
def test_an_extracted_replica_goes_on_as_its_own_run_would(fit, tmp_path, schedule):
    """Its learning rates too, where the schedule has a value for theta and one for phi."""

    def make():
        return NVIL(hidden=[5])

    trainer = fit(replicate(seeded(5, make, lr_scheduler=schedule), 3), 8, max_steps=33)
    trainer.save_checkpoint(tmp_path / "three.ckpt")
    single = extract(read_checkpoint(tmp_path / "three.ckpt"), 1)
    torch.save(single, tmp_path / "one.ckpt")
    assert (tmp_path / "one.ckpt").stat().st_size < 0.6 * (tmp_path / "three.ckpt").stat().st_size
    whole, rest = (seeded(6, make, lr_scheduler=schedule) for _ in range(2))
    fit(whole, 9, max_steps=60)
    fit(rest, 9, max_steps=60, ckpt_path=tmp_path / "one.ckpt", weights_only=True)
    assert_equal_models(rest, whole)
    loaded, checkpoint = load_model(tmp_path / "three.ckpt", replica=1)
    assert checkpoint["dvae"]["data"]["init_args"]["seed"] == 9
    assert loaded.seed == whole.seed


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({"kl": ["sampled", "analytic"]}, "kl is 'sampled' in the first and 'analytic' in model"),
        ({"num_latents": [4, 5]}, "tensors of the same shapes|num_latents is 4"),
        ({"estimator.depth": [1, 2]}, r"estimators\.0\.depth is 1 in the first and 2 in model 1"),
        ({"estimator.hidden": [5, 6]}, r"estimators\.0\.hidden is 5 in the first and 6 in model 1"),
        ({"estimator.nonsense": [1, 2]}, "nonsense"),
        ({"encoder.hidden": [1, 2]}, "encoder is not a module with a class_path"),
        ({"lr": 0.1}, "a list of values for each argument, got 0.1 for lr"),
        ({"lr": []}, "a list of values"),
        ({"lr": [0.1]}, "models must be at least two, got 1"),
        ({"lr_scheduler": [None, COSINE]}, "lr_scheduler"),
        ({"betas": [[0.9, 0.99], [0.9, 0.999]]}, "betas is"),
    ],
)
def test_what_replicas_cannot_differ_in_is_told(sweep, message):
    with pytest.raises(InputError, match=message):
        replicate(seeded(0, lambda: RELAX(hidden=5)), 1, sweep)


def test_a_network_s_argument_that_replicas_cannot_differ_in_is_told():
    with pytest.raises(InputError, match=r"encoders\.0\.hidden is \[5\] in the first and \[6\] in model 1"):
        replicate(seeded(0, LOO, encoder=MLP), 1, {"encoder.hidden": [[5], [6]]})


def test_what_replicas_cannot_do_is_told(fit, tmp_path):
    with pytest.raises(InputError, match="replicas must be at least 1, got 0"):
        replicate(seeded(0, LOO), 0)
    with pytest.raises(InputError, match="accumulate_grad_batches must be 1"):
        replicate(seeded(0, LOO, accumulate_grad_batches=2), 2)
    with pytest.raises(InputError, match="constructor arguments are not recorded"):
        replicate(seeded(0, LOO, encoder=torch.nn.Linear(16, 4)), 2)

    class Annealed(DiscreteVAE):
        def objective(self, terms):
            return terms.elbo * self.trainer.max_steps

    with pytest.raises(InputError, match="looks at the iteration or the trainer"):
        fit(Replicas([Annealed(LOO(), **TINY), Annealed(LOO(), **TINY)]), 0)

    trainer = fit(replicate(seeded(0, LOO), 2), 0, max_steps=3)
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    with pytest.raises(InputError, match="holds 2 replicas: say which one, from 0 to 1"):
        load_model(tmp_path / "two.ckpt")
    with pytest.raises(InputError, match="replica must be from 0 to 1, got 2"):
        load_model(tmp_path / "two.ckpt", replica=2)
    with pytest.raises(InputError, match="the checkpoint holds 2 replicas, expected one model"):
        fit(seeded(0, LOO), 0, ckpt_path=tmp_path / "two.ckpt", weights_only=True)
    with pytest.raises(InputError, match="the checkpoint must hold the same replicas"):
        fit(replicate(seeded(0, LOO), 3), 0, ckpt_path=tmp_path / "two.ckpt", weights_only=True)


def test_the_command_trains_evaluates_and_extracts_replicas(tmp_path, tiny_data, monkeypatch, capsys):
    """Replica 1 is, number for number, what the flags of a single run give."""
    monkeypatch.chdir(tmp_path)
    np.savez("images.npz", **{name: tiny_data.split(name).numpy() for name in ("train", "valid", "test")})
    flags = ["--data=dvae.data.ArrayData", "--data.train=images.npz", "--data.batch_size=10", "--data.eval_batch_size=5"]
    flags += ["--model.num_pixels=16", "--model.num_latents=4", "--model.encoder=dvae.networks.MLP"]
    flags += ["--model.encoder.in_features=16", "--model.encoder.out_features=4", "--model.estimator=dvae.estimators.RODEO"]
    flags += ["--trainer.max_steps=60", "--trainer.val_check_interval=20", "--trainer.log_every_n_steps=20"]
    flags += ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.precision=64-true"]
    assert main(["fit", *flags, "--replicas=2", "--sweep={lr: [0.01, 0.001]}", "--name=four"]) == 0
    assert main(["fit", *flags, "--seed_everything=1", "--data.seed=1", "--model.lr=0.01", "--name=one"]) == 0
    four, one = (tmp_path / "runs" / name / "version_0" for name in ("four", "one"))
    rows, single = (list(csv.DictReader((folder / "metrics.csv").open())) for folder in (four, one))
    for name in ("train/elbo", "val/elbo", "train/gradient_second_moment"):
        values = [float(row[f"{name}/1"]) for row in rows if row[f"{name}/1"]]
        assert values == pytest.approx([float(row[name]) for row in single if row[name]], rel=1e-4)
        assert len(values) == 3
    assert (four / "samples.png").is_file()

    capsys.readouterr()
    last = four / "checkpoints" / "last.ckpt"
    assert main(["evaluate", str(last), "--samples=20", "--json=four.json"]) == 0
    output = capsys.readouterr().out
    assert output.count("mean") >= 2
    figures = json.loads((tmp_path / "four.json").read_text())
    assert [own["replica"] for own in figures] == [0, 1, 2, 3]
    assert figures[1]["setting"] == {"lr": 0.01, "seed": 1}
    assert main(["evaluate", str(one / "checkpoints" / "last.ckpt"), "--samples=20", "--json=one.json"]) == 0
    expected = json.loads((tmp_path / "one.json").read_text())
    assert figures[1]["elbo"]["mean"] == pytest.approx(expected["elbo"]["mean"], rel=1e-4)
    pooled = np.mean([own["elbo"]["mean"] for own in figures[:2]])
    assert f"{pooled:.2f}" in output

    assert main(["extract", str(last), "--replica=1"]) == 0
    extracted = four / "checkpoints" / "last.replica_1.ckpt"
    assert main(["evaluate", str(extracted), "--samples=20", "--json=extracted.json"]) == 0
    again = json.loads((tmp_path / "extracted.json").read_text())
    assert again["elbo"] == figures[1]["elbo"]
    assert main(["sample", str(last), "--replica=2", "--out=pictures"]) == 0
    assert (tmp_path / "pictures" / "samples.png").is_file()
    assert main(["sample", str(last), "--out=pictures"]) == 1
    assert "say which one, from 0 to 3" in capsys.readouterr().err
