"""Starting from another checkpoint's weights: what fits is taken, what was taken is said, and everything else starts anew."""

import pytest
import pytorch_lightning as pl
import torch

import dvae
from dvae import DiscreteVAE, InputError
from dvae.estimators import LOO, REBAR, RELAX
from dvae.likelihoods import Bernoulli, Normal
from dvae.networks import MLP
from dvae.training.sweep import Replicas

TINY = {"num_pixels": 16, "num_latents": 4, "compile": False}


class Even(Bernoulli):
    """A likelihood whose outputs start at 0."""

    def start(self, mean):
        return torch.zeros_like(super().start(mean))


def make(estimator=REBAR, seed=5, **options) -> DiscreteVAE:
    torch.manual_seed(seed)
    return DiscreteVAE(estimator(), seed=seed, **{**TINY, **options})


@pytest.fixture
def save(tmp_path, tiny_data):
    """Trains a module for five steps and saves its checkpoint."""

    def run(module, name="first.ckpt"):
        off = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        trainer = pl.Trainer(max_steps=5, accelerator="cpu", limit_val_batches=0, **off)
        trainer.fit(module, tiny_data)
        trainer.save_checkpoint(tmp_path / name)
        return tmp_path / name

    return run


def test_the_same_model_starts_from_all_of_it_and_nothing_else(save):
    first = make(beta=0.5)
    path = save(first)
    second = make(seed=6, beta=2.0)
    taken = dvae.init_from(second, path)
    assert str(taken) == "took mean, encoders, decoders, prior, estimators"
    for name, tensor in second.state_dict().items():
        assert torch.equal(tensor, first.state_dict()[name]) == (name != "_beta"), name
    assert (second.beta, second.iteration, second.seed) == (2.0, 0, 6)


def test_another_estimator_keeps_what_it_alone_has(save):
    first = make(REBAR)
    path = save(first)
    second = make(RELAX)
    network = second.estimators[0].network.bias.clone()
    line = str(dvae.init_from(second, path))
    assert line.startswith(
        "took mean, encoders, decoders, prior, estimators.0.log_temperature, estimators.0.eta; new: estimators.0.network ("
    )
    assert torch.equal(second.prior.logits, first.prior.logits)
    assert torch.equal(second.estimators[0].eta, first.estimators[0].eta)
    assert torch.equal(second.estimators[0].network.bias, network)
    third = make(LOO)
    assert str(dvae.init_from(third, path)) == "took mean, encoders, decoders, prior; left there: estimators (2 tensors)"


def test_another_network_is_new_and_the_rest_is_taken(save):
    first = make()
    taken = dvae.init_from(second := make(decoder=MLP(4, 16, hidden=[5])), save(first))
    assert "took mean, encoders, prior, estimators; new: decoders (" in str(taken)
    assert torch.equal(second.mean, first.mean)
    assert second.mean_is_set


def test_another_likelihood_starts_its_outputs_at_the_mean_itself(save):
    path = save(make())
    same, other = make(), make(likelihood=Even())
    for model in (same, other):
        dvae.init_from(model, path)
        assert model.mean_is_set
    assert same.output_bias.abs().max() > 0
    assert other.output_bias.abs().max() == 0


def test_a_likelihood_in_units_of_the_data_takes_these_from_the_data(save):
    path = save(make())
    normal = make(likelihood=Normal(scale=1.0))
    assert (
        str(dvae.init_from(normal, path))
        == "took encoders, decoders, prior, estimators; new: mean (1 tensor), likelihood (2 tensors)"
    )
    assert not normal.mean_is_set
    save(normal, "second.ckpt")
    again = make(likelihood=Normal(scale=1.0))
    dvae.init_from(again, path.with_name("second.ckpt"))
    assert again.mean_is_set
    assert torch.equal(again.likelihood.unit, normal.likelihood.unit)


def test_a_data_set_of_another_size_sets_its_own_mean(save):
    path = save(make(num_layers=2))
    other = make(num_layers=2, num_pixels=9)
    taken = dvae.init_from(other, path)
    assert not other.mean_is_set
    assert {"mean"} < set(taken.new)
    assert any(name.startswith("encoders.1") for name in taken.taken)


def test_every_replica_starts_from_the_weights_of_the_one_that_is_named(save):
    first = Replicas([make(seed=0), make(seed=1)])
    path = save(first)
    with pytest.raises(InputError, match=r"holds 2 replicas: say whose weights, from 0 to 1 \(replica=r, --init_from_replica r\)"):
        dvae.init_from(make(), path)
    several = Replicas([make(seed=2), make(seed=3), make(seed=4)])
    dvae.init_from(several, path, replica=1)
    for model in several.models:
        assert torch.equal(model.prior.logits, first.models[1].prior.logits)
    assert not torch.equal(first.models[0].prior.logits, first.models[1].prior.logits)
    assert [model.seed for model in several.models] == [2, 3, 4]


def test_a_run_goes_on_learning_from_there(save, tiny_data):
    path = save(first := make())
    second = make()
    dvae.init_from(second, path)
    x = tiny_data.split("test")
    assert torch.equal(second.elbo(x, 3, torch.Generator().manual_seed(0)), first.elbo(x, 3, torch.Generator().manual_seed(0)))
    save(second, "second.ckpt")
    assert second.iteration == 5
    assert not torch.equal(second.prior.logits, first.prior.logits)


def test_a_checkpoint_of_which_nothing_fits_is_refused_with_the_shapes(save):
    path = save(make())
    model = make(num_latents=7, num_pixels=9)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(
        InputError, match=r"nothing of encoder, decoder and prior fits .*: .*prior.logits is \(4,\) there and \(7,\) in"
    ):
        dvae.init_from(model, path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_weights_that_are_no_numbers_are_refused(save):
    path = save(make())
    content = torch.load(path, weights_only=True)
    content["state_dict"]["prior.logits"][0] = torch.nan
    torch.save(content, path)
    with pytest.raises(InputError, match=r"prior\.logits must hold finite real numbers, but does not"):
        dvae.init_from(make(), path)
