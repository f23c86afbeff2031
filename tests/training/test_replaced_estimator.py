"""A model's estimator is replaced by assigning another: training, files and errors follow."""

import pytest
import pytorch_lightning as pl
import torch

import dvae
from dvae import DiscreteVAE, InputError
from dvae.estimators import LOO, NVIL, REBAR, RELAX, VIMCO, DisARM
from dvae.training.checkpoints import load_model

TINY = {"num_pixels": 16, "num_latents": 3, "seed": 0}


def trainer(steps: int = 4, **options) -> pl.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False}
    return pl.Trainer(max_steps=steps, accelerator="cpu", **quiet, **options)


def fitted(model, data):
    trainer().fit(model, data)
    return model


def weights(model) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in model.encoders.parameters()]


@pytest.mark.parametrize("num_layers", [1, 2])
def test_training_goes_on_with_the_new_estimator_as_if_the_model_had_been_made_with_it(num_layers, tiny_data):
    torch.manual_seed(0)
    expected = fitted(DiscreteVAE(DisARM(), num_layers=num_layers, **TINY), tiny_data)
    torch.manual_seed(0)
    model = DiscreteVAE(LOO(), num_layers=num_layers, **TINY)
    model.estimator = DisARM()
    assert [type(each) for each in model.estimators] == [DisARM] * num_layers
    torch.testing.assert_close(weights(fitted(model, tiny_data)), weights(expected), atol=0, rtol=0)


def test_every_layer_gets_a_copy_that_is_built_where_the_model_is():
    for model in (dvae.VAE(num_pixels=16, num_latents=3, num_layers=2), DiscreteVAE(num_layers=2, **TINY)):
        model.double().eval()
        relax = RELAX(hidden=5)
        model.estimator = relax
        assert model.estimator is relax
        assert model.estimators[1] is not relax
        contexts = [each.network.context_weight for each in model.estimators]
        assert [weight.shape for weight in contexts] == [(5, 16), (5, 19)]
        assert {weight.dtype for weight in contexts} == {torch.float64}
        assert not any(each.training for each in model.estimators)
        assert len(model.phi()) == sum(1 for name, _ in model.named_parameters() if name.startswith("estimators."))


def test_a_checkpoint_rebuilds_the_model_with_its_new_estimator(tiny_data, tmp_path):
    model = DiscreteVAE(**TINY)
    model.estimator = {"class_path": "dvae.estimators.NVIL", "init_args": {"hidden": [7]}}
    run = trainer()
    run.fit(model, tiny_data)
    model.estimator = RELAX(hidden=5, temperature=0.3)  # after the fit, too
    run.fit_loop.epoch_loop.max_steps = 8
    run.fit(model, tiny_data)
    run.save_checkpoint(tmp_path / "model.ckpt")
    again, content = load_model(tmp_path / "model.ckpt")
    assert content["hyper_parameters"]["estimator"]["init_args"] == {"hidden": 5, "temperature": 0.3}
    assert model.hparams["estimator"] == again.estimator.config
    torch.testing.assert_close(again.state_dict(), model.state_dict(), atol=0, rtol=0)
    assert type(dvae.replicate(model, 2).models[1].estimator) is RELAX


def test_what_does_not_fit_is_refused_as_in_the_constructor_and_nothing_changes():
    model = DiscreteVAE(REBAR(), kl="analytic", **TINY)
    before = model.estimator
    for given, message in (
        (dvae.estimators.LAX(), "LAX is for Gaussian latents, got Bernoulli"),
        (VIMCO(), "kl must be 'sampled' for the K-sample bound of VIMCO, got 'analytic'"),
        (torch.nn.Linear(2, 2), "estimator must be a GradientEstimator"),
        (DisARM, "estimator must be a GradientEstimator"),
        (None, "estimator must be a GradientEstimator"),
    ):
        with pytest.raises(InputError, match=message):
            model.estimator = given
    assert model.estimator is before
    assert model.config["init_args"]["estimator"] == REBAR().config


def test_a_class_that_takes_no_estimator_says_that_it_could_not_be_rebuilt():
    class Mine(DiscreteVAE):
        def __init__(self):
            super().__init__(REBAR(), **TINY)

    model = Mine()
    with pytest.raises(InputError, match="estimator cannot be replaced: Mine does not take it in its constructor"):
        model.estimator = DisARM()
    assert isinstance(model.estimator, REBAR)


@pytest.mark.parametrize("replicas", [1, 2])
def test_in_the_middle_of_a_fit_one_sentence_says_when(replicas, tiny_data):
    class Swap(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, *rest):
            pl_module.models[-1].estimator = DisARM()

    model = DiscreteVAE(LOO(), **TINY)
    run = model if replicas == 1 else dvae.replicate(model, replicas)
    with pytest.raises(InputError, match=r"in the middle of a fit: assign it before Trainer.fit or after it"):
        trainer(callbacks=[Swap()]).fit(run, tiny_data)
    for each in run.models:
        each.estimator = DisARM()  # the fit is over
    fitted(run, tiny_data)


def test_replicas_of_which_one_has_another_estimator_are_refused(tiny_data):
    run = dvae.replicate(DiscreteVAE(LOO(), **TINY), 2)
    run.models[1].estimator = NVIL()
    with pytest.raises(InputError, match="replicas must be of one architecture, but model 1 has NVIL"):
        trainer().fit(run, tiny_data)
