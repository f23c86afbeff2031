"""Another optimizer than Adam: part of the compiled step where it is AdamW, step by step otherwise."""

import pytest
import pytorch_lightning as pl
import torch

from dvae import DiscreteVAE, InputError, Replicas
from dvae.estimators import LOO, NVIL
from dvae.training.step import step_loss

TINY = {"num_pixels": 16, "num_latents": 4, "seed": 0, "lr": 0.01}
ADAMW = {"class_path": "torch.optim.AdamW"}


def fitted(tmp_path, data, model, max_steps=30, **options):
    """Trains in float64; returns the trainer."""
    trainer = pl.Trainer(
        default_root_dir=tmp_path,
        max_steps=max_steps,
        max_epochs=-1,
        accelerator="cpu",
        precision="64-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, data, **options)
    return trainer


def nvil(start=0, **options):
    torch.manual_seed(start)
    # Some gradients are 0 but for rounding, of which Adam makes steps unless its epsilon is far larger.
    return DiscreteVAE(NVIL(hidden=[5]), **{**TINY, "eps": 1e-5, "weight_decay": 0.3, "phi_warmup_steps": 3, **options})


def assert_close(model, expected, tolerance=1e-10):
    for (name, tensor), other in zip(model.state_dict().items(), expected.state_dict().values(), strict=True):
        torch.testing.assert_close(tensor, other, rtol=tolerance, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}")


OTHER_BETAS = {"class_path": "torch.optim.AdamW", "init_args": {"betas": [0.5, 0.9]}}


@pytest.mark.parametrize("optimizer", [ADAMW, OTHER_BETAS], ids=str)
def test_a_compiled_step_of_adamw_is_that_of_torch(tmp_path, tiny_data, optimizer):
    """Parameters and moments after 30 steps; one step at a time, and several as one function."""
    torch._dynamo.reset()
    eager, compiled = nvil(optimizer=optimizer, compile=False), nvil(optimizer=optimizer, compile=True, steps_per_execution=4)
    states = []
    for model in (eager, compiled):
        own = fitted(tmp_path, tiny_data, model).optimizers[0]
        assert type(own) is torch.optim.AdamW
        assert own.param_groups[0]["betas"] == tuple(optimizer.get("init_args", {}).get("betas", (0.9, 0.99999)))
        assert (own.param_groups[0]["eps"], own.param_groups[0]["weight_decay"]) == (1e-5, 0.3)
        states.append(own.state_dict()["state"])
    assert_close(compiled, eager)
    assert len(states[0]) == len(list(eager.parameters()))
    for index, state in states[0].items():
        for name, expected in state.items():  # counters differ in type
            torch.testing.assert_close(states[1][index][name].double(), expected.double(), rtol=1e-10, atol=1e-10)


def test_the_decay_of_adamw_is_another_than_that_of_adam(tmp_path, tiny_data):
    """So that the test above can tell them apart."""
    with_decay, without = nvil(optimizer=ADAMW, compile=False), nvil(compile=False)
    for model in (with_decay, without):
        fitted(tmp_path, tiny_data, model)
    assert (with_decay.prior.logits - without.prior.logits).abs().max() > 1e-3


def test_replicas_with_adamw_are_runs_of_their_own(tmp_path, tiny_data):
    replicas = Replicas([nvil(seed, optimizer=ADAMW, seed=seed) for seed in range(2)], seed_offsets=[0, 0])
    fitted(tmp_path, tiny_data, replicas)
    for seed, replica in enumerate(replicas.models):
        single = nvil(seed, optimizer=ADAMW, seed=seed)
        fitted(tmp_path, tiny_data, single)
        assert_close(replica, single)


def test_a_run_with_another_optimizer_resumes_exactly_and_says_which_it_was(tmp_path, tiny_data):
    whole, half, rest = (nvil(optimizer=ADAMW) for _ in range(3))
    fitted(tmp_path, tiny_data, whole)
    fitted(tmp_path, tiny_data, half, max_steps=13).save_checkpoint(tmp_path / "half.ckpt")
    assert torch.load(tmp_path / "half.ckpt", weights_only=True)["hyper_parameters"]["optimizer"] == ADAMW
    fitted(tmp_path, tiny_data, rest, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert_close(rest, whole, 0)


@pytest.mark.parametrize("compile", [False, True])
def test_sgd_takes_its_own_steps(tmp_path, tiny_data, compile):
    """As a loop by hand, with momentum, decay on theta alone, and phi's own rate; compiled, the loss alone is."""
    torch._dynamo.reset()
    sgd = {"class_path": "torch.optim.SGD", "init_args": {"momentum": 0.5}}
    model, expected = (nvil(optimizer=sgd, compile=compile, phi_lr=0.1, phi_warmup_steps=0) for _ in range(2))
    trainer = fitted(tmp_path, tiny_data, model, max_steps=6)
    assert type(trainer.optimizers[0]) is torch.optim.SGD
    assert trainer.global_step == 6

    expected.double().set_mean(tiny_data.mean.double())
    groups = [{"params": expected.theta(), "weight_decay": 0.3}, {"params": expected.phi(), "lr": 0.1}]
    optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.5)
    loader = tiny_data.train_dataloader()
    batches = [batch for _ in range(2) for batch in loader]
    for iteration, x in enumerate(batches[:6]):
        noise = expected.training_noise(len(x), expected.noise_stream(0), iteration)
        optimizer.zero_grad()
        step_loss(expected, x.double(), noise).loss.backward()
        optimizer.step()
    assert_close(model, expected)


@pytest.mark.parametrize(
    ("path", "arguments", "message"),
    [
        ("AdamV", {}, "optimizer: cannot import 'torch.optim.AdamV'"),
        ("lr_scheduler.StepLR", {}, "optimizer: 'torch.optim.lr_scheduler.StepLR' is not a subclass of Optimizer"),
        ("SGD", {"momentun": 0.9}, "optimizer: torch.optim.SGD does not take these arguments: .*momentun"),
        ("SGD", {"momentum": -1}, "optimizer: torch.optim.SGD cannot be built: Invalid momentum value: -1"),
        ("SGD", {"lr": 0.1}, "optimizer must not set lr, which is the model's own argument, got 0.1"),
        ("AdamW", {"weight_decay": 1}, "optimizer must not set weight_decay, which is the model's own argument, got 1"),
        ("LBFGS", {}, "optimizer: torch.optim.LBFGS cannot be built: LBFGS doesn't support per-parameter options"),
    ],
)
def test_a_wrong_optimizer_is_told_in_a_sentence(tmp_path, tiny_data, path, arguments, message):
    with pytest.raises(InputError, match=message):
        fitted(tmp_path, tiny_data, nvil(optimizer={"class_path": f"torch.optim.{path}", "init_args": arguments}))


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize(
    ("path", "arguments", "message"),
    [
        ("StepLR", {"step": 3}, "lr_scheduler: torch.optim.lr_scheduler.StepLR does not take these arguments: .*step"),
        ("StepLR", {"step_size": "often"}, "lr_scheduler: torch.optim.lr_scheduler.StepLR cannot be built: TypeError"),
        (
            "OneCycleLR",
            {"max_lr": 0.1},
            "lr_scheduler: torch.optim.lr_scheduler.OneCycleLR cannot be built: ValueError: You must define",
        ),
        (
            "OneCycleLR",
            {"max_lr": [0.1] * 4, "total_steps": 9},
            "cannot be built: .*one for theta and, where the estimator has .* for phi",
        ),
        ("LambdaLR", {"lr_lambda": [3]}, "lr_scheduler: torch.optim.lr_scheduler.LambdaLR cannot be built: ValueError"),
        ("ReduceLROnPlateau", {}, "lr_scheduler must follow the number of updates alone, got .*ReduceLROnPlateau"),
    ],
)
def test_a_wrong_schedule_is_told_in_a_sentence(tmp_path, tiny_data, path, arguments, message, replicas):
    schedule = {"class_path": f"torch.optim.lr_scheduler.{path}", "init_args": arguments}
    models = [nvil(seed, lr_scheduler=schedule) for seed in range(replicas)]
    with pytest.raises(InputError, match=message):
        fitted(tmp_path, tiny_data, models[0] if replicas == 1 else Replicas(models))


def test_functions_of_each_group_serve_all_replicas(tmp_path, tiny_data):
    schedule = {"class_path": "torch.optim.lr_scheduler.LambdaLR", "init_args": {"lr_lambda": [lambda step: 0.5, lambda step: 2.0]}}
    models = [nvil(seed, lr=0.01, phi_lr=0.01, lr_scheduler=schedule) for seed in range(3)]
    trainer = fitted(tmp_path, tiny_data, Replicas(models))
    assert [group["lr"] for group in trainer.optimizers[0].param_groups] == [0.005, 0.02] * 3


def test_an_optimizer_that_asks_for_several_gradients_is_refused(tmp_path, tiny_data):
    """LBFGS takes a single group of parameters, as without a phi."""
    model = DiscreteVAE(LOO(), optimizer={"class_path": "torch.optim.LBFGS"}, **TINY)
    with pytest.raises(InputError, match="optimizer must take one gradient a step, got"):
        fitted(tmp_path, tiny_data, model)


def test_replicas_with_another_optimizer_are_refused(tmp_path, tiny_data):
    replicas = Replicas([nvil(seed, optimizer={"class_path": "torch.optim.SGD"}) for seed in range(2)])
    with pytest.raises(InputError, match="replicas are trained with Adam or AdamW"):
        fitted(tmp_path, tiny_data, replicas)
