"""DiscreteVAE: the ELBO against enumeration, the training step, and what a Lightning user expects of a module."""

import csv
import math

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import dvae
from dvae import DiscreteVAE, InputError, NonFiniteError
from dvae.estimators import CATALOGUE, LOO, NVIL, REBAR, REINFORCE, RELAX, VIMCO, Concrete, GradientEstimator, named
from dvae.lab.codes import encode
from dvae.latents import Bernoulli
from dvae.models import Layer
from dvae.networks import MLP, ConvDecoder, ConvEncoder
from dvae.training.checkpoints import load_model
from dvae.training.compilation import FAILURES
from dvae.training.step import step_loss

TINY = {"num_pixels": 16, "num_latents": 4, "seed": 0}


def trainer(tmp_path, **kwargs) -> pl.Trainer:
    options = {"max_steps": 20, "accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(default_root_dir=tmp_path, enable_checkpointing=False, **{**options, **kwargs})


def small_model(**kwargs) -> DiscreteVAE:
    """Two layers of 3 latents over 4 pixels, in float64, with weights large enough to matter."""
    model = DiscreteVAE(num_pixels=4, num_latents=3, **kwargs).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.theta():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


X = torch.tensor([[1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.0]], dtype=torch.float64)


def log_evidence(model: DiscreteVAE, x: torch.Tensor) -> torch.Tensor:
    """log p(x) under one layer, by enumeration."""
    states = Bernoulli(torch.zeros(3, dtype=torch.float64)).enumerate()
    prior = model.prior().log_prob(states)
    return torch.stack([torch.logsumexp(prior + model.log_likelihood(row, states), 0) for row in x])


# The model ------------------------------------------------------------------------------------------------------------------


def test_defaults_are_the_papers_linear_model():
    model = DiscreteVAE()
    assert isinstance(model.estimators[0], RELAX)
    assert [tuple(p.shape) for p in model.encoders.parameters()] == [(200, 784), (200,)]
    assert [tuple(p.shape) for p in model.decoders.parameters()] == [(784, 200), (784,)]
    assert model.elbo(torch.zeros(3, 784)).shape == (3,)
    assert model.elbo(torch.zeros(3, 1, 28, 28)).shape == (3,)


@pytest.mark.parametrize("kl", ["sampled", "analytic"])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_elbo_has_the_enumerated_expectation(kl, num_layers):
    model = small_model(kl=kl, num_layers=num_layers)
    generator = torch.Generator().manual_seed(1)
    draws = torch.stack([model.elbo(X, 2000, generator) for _ in range(50)])
    q = model.infer(0, X, [])
    states = q.enumerate()[:, None].expand(-1, 2, -1)
    if num_layers == 1:
        values = model.terms(X, [Layer(q, states, states)], kl="sampled").elbo
        exact = (q.log_prob(states).exp() * values).sum(0)
    else:
        upper = model.infer(1, X, [states])
        exact = torch.zeros(2, dtype=torch.float64)
        for state in q.enumerate():
            top = state.expand_as(states)
            values = model.terms(X, [Layer(q, states, states), Layer(upper, top, top)], kl="sampled").elbo
            exact = exact + ((q.log_prob(states) + upper.log_prob(top)).exp() * values).sum(0)
    z = (draws.mean(0) - exact) / (draws.std(0) / math.sqrt(50))
    assert z.abs().max() < 4


def test_importance_weighted_bound_grows_from_the_elbo_to_the_evidence():
    model = small_model()
    generator = torch.Generator().manual_seed(0)
    elbo = model.elbo(X, 5000, generator)
    evidence = log_evidence(model, X)
    assert (elbo < evidence).all()
    torch.testing.assert_close(model.importance_weighted_bound(X, 20_000, generator), evidence, atol=0.05, rtol=0)


def test_model_samples_have_the_enumerated_pixel_means():
    model = small_model()
    states = Bernoulli(torch.zeros(3, dtype=torch.float64)).enumerate()
    exact = (model.prior().log_prob(states).exp()[:, None] * torch.sigmoid(model.decode(states))).sum(0)
    samples = model.sample(50_000, torch.Generator().manual_seed(0))
    z = (samples.mean(0) - exact) / (samples.std(0) / math.sqrt(50_000))
    assert z.abs().max() < 4


def test_mean_centres_the_encoder_and_biases_the_pixels():
    model = DiscreteVAE(**TINY)
    mean = torch.linspace(0, 1, 16)
    model.set_mean(mean)
    torch.testing.assert_close(model.output_bias, torch.logit(mean.clamp(0.001, 0.999)))
    torch.testing.assert_close(model.encode(mean[None]).logits, model.encoders[0](torch.zeros(1, 16)))


def test_convolutional_networks_fit_in():
    model = DiscreteVAE(REBAR(), ConvEncoder(8, (1, 8, 8), 4), ConvDecoder(8, (1, 8, 8), 4), num_pixels=64, num_latents=8)
    output = step_loss(model, torch.ones(3, 64), model.noise(3))
    output.loss.backward()
    assert all(p.grad is not None for p in model.parameters())


# The step -------------------------------------------------------------------------------------------------------------------


def test_one_backward_gives_theta_the_elbo_and_phi_the_variance():
    """theta's gradient from the loss is that of the surrogate alone, phi's that of the second moment alone."""
    model = small_model(estimator=RELAX(hidden=5, weight_decay=0.0))
    noise = model.noise(2, generator=torch.Generator().manual_seed(0))
    output = step_loss(model, X, noise)
    output.loss.backward()

    layers = model.rollout(X, noise)
    value = model.terms(X, [layer._replace(direct=False) for layer in layers]).elbo.mean()
    surrogate = value + (output.gradients[0] * layers[0].q.logits).sum(-1).mean()
    expected = torch.autograd.grad(-surrogate, model.theta())
    for parameter, gradient in zip(model.theta(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)

    log_temperature = model.estimators[0].log_temperature
    with torch.no_grad():
        log_temperature += 1e-6
        up = step_loss(model, X, noise).metrics["gradient_second_moment"]
        log_temperature -= 2e-6
        down = step_loss(model, X, noise).metrics["gradient_second_moment"]
    torch.testing.assert_close(log_temperature.grad, (up - down) / 2e-6, rtol=1e-4, atol=1e-6)


FAMILIES = {"Bernoulli": {}, "Categorical": {"num_classes": 3}, "Gaussian": {}, "PlackettLuce": {}}
COMBINATIONS = [
    (name, latent)
    for name, make in CATALOGUE.items()
    for latent in FAMILIES
    if issubclass(getattr(dvae.latents, latent), make().latents)
]


def made(name: str) -> GradientEstimator:
    """The estimator of that name or expression, with small networks."""
    estimator = named(name).make()
    if isinstance(getattr(estimator, "hidden", None), int):
        estimator.hidden = 10
    return estimator


@pytest.mark.parametrize(("name", "latent"), COMBINATIONS)
def test_every_estimator_learns_with_every_family_of_latents(name, latent, tmp_path, tiny_data):
    pl.seed_everything(0, verbose=False)
    model = DiscreteVAE(made(name), latent=latent, lr=0.01, **FAMILIES[latent], **TINY)
    model.set_mean(tiny_data.mean)
    x = tiny_data.split("train").float()
    before = model.elbo(x, 50).mean()
    trainer(tmp_path, max_steps=150, limit_val_batches=0).fit(model, tiny_data)
    assert model.elbo(x, 50).mean() > before + 1


def test_categorical_codes_samples_and_checkpoints(tmp_path, tiny_data):
    model = DiscreteVAE(REBAR(), latent=dvae.latents.Categorical, num_classes=3, num_layers=2, **TINY)
    run = trainer(tmp_path, max_steps=3)
    run.fit(model, tiny_data)
    run.save_checkpoint(tmp_path / "model.ckpt")
    loaded, _ = load_model(tmp_path / "model.ckpt")
    x = tiny_data.split("test").float()
    assert torch.equal(loaded(x), model(x))
    assert model(x).shape == (10, 4, 3)
    assert (model(x).sum(-1) == 1).all()
    assert model.sample(5).shape == (5, 16)
    codes = encode(loaded, x)
    assert codes.shape == (10, 8)
    assert codes.dtype == torch.uint8
    assert codes.max() < 3
    assert dvae.evaluate(loaded, tiny_data, num_samples=3, num_draws=5).active_units[0] <= 4


def test_a_users_own_latents_fit_in_by_class_and_by_path(tmp_path):
    class Sharp(dvae.latents.Bernoulli):
        def soft(self, z, temperature):
            return super().soft(z, 0.5 * temperature)

    model = DiscreteVAE(REBAR(), latent=Sharp, **TINY)
    assert isinstance(model.encode(torch.zeros(2, 16)), Sharp)
    assert model.config["init_args"]["latent"].endswith("Sharp")
    with pytest.raises(InputError, match=r"latent: cannot import 'dvae\.latents\.Poisson'"):
        DiscreteVAE(latent="Poisson", **TINY)


def test_k_sample_bound_is_what_theta_is_trained_on_and_needs_sampled_weights():
    model = small_model(estimator=VIMCO(3))
    noise = model.noise(2, generator=torch.Generator().manual_seed(0))
    output = step_loss(model, X, noise)
    weights = model.terms(X, model.rollout(X, noise)).elbo
    expected = (torch.logsumexp(weights, 0) - math.log(3)).mean()
    torch.testing.assert_close(output.metrics["importance_weighted_bound"], expected)
    with pytest.raises(InputError, match="kl must be 'sampled' for the K-sample bound of VIMCO, got 'analytic'"):
        DiscreteVAE(VIMCO(3), kl="analytic", **TINY)


@pytest.mark.parametrize("num_layers", [2])
@pytest.mark.parametrize("make", [REINFORCE, LOO, NVIL, Concrete, REBAR, RELAX, lambda: RELAX(coupled=False, num_samples=2)])
def test_estimators_learn_with_two_layers(make, num_layers, tmp_path, tiny_data):
    pl.seed_everything(0, verbose=False)
    model = DiscreteVAE(make(), num_layers=num_layers, lr=0.01, **TINY)
    model.set_mean(tiny_data.mean)
    x = tiny_data.split("train").float()
    before = model.elbo(x, 50).mean()
    trainer(tmp_path, max_steps=200, limit_val_batches=0).fit(model, tiny_data)
    assert model.elbo(x, 50).mean() > before + 1


def test_the_direction_of_theta_does_not_depend_on_who_estimates_phi(tmp_path, tiny_data):
    """At eta = 0 REBAR is REINFORCE, in the whole step."""
    models = [DiscreteVAE(estimator, num_layers=2, **TINY) for estimator in (REINFORCE(), REBAR(eta=0.0))]
    models[1].load_state_dict(models[0].state_dict(), strict=False)
    x = tiny_data.split("train").float()
    noise = models[0].noise(len(x))
    for model in models:
        step_loss(model, x, noise).loss.backward()
    for first, second in zip(models[0].theta(), models[1].theta(), strict=True):
        torch.testing.assert_close(first.grad, second.grad)


def gradients_of(model, x, noise, step):
    model.zero_grad()
    output = step(x, noise)
    output.loss.backward()
    return [output.loss.detach(), *output.gradients, *(p.grad for p in model.parameters() if p.grad is not None)]


def assert_compiled_equals_eager(estimator, num_layers, latent="Bernoulli"):
    torch._dynamo.reset()
    model = DiscreteVAE(estimator, num_layers=num_layers, compile=True, latent=latent, **FAMILIES[latent], **TINY).double()
    x = (torch.rand(5, 16) < 0.3).double()
    noise = model.noise(5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    compiled = gradients_of(model, x, noise, model.step)
    assert model._compiling  # it did not fall back
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(before)
    eager = gradients_of(model, x, noise, lambda x, noise: step_loss(model, x, noise))
    for first, second in zip(compiled, eager, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-10)
    for name, tensor in model.state_dict().items():  # running statistics advanced alike
        torch.testing.assert_close(state[name], tensor, rtol=1e-10, atol=1e-10)


@pytest.mark.inductor
def test_compiled_step_equals_the_eager_one():
    assert_compiled_equals_eager(RELAX(hidden=7), 1)


@pytest.mark.slow
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize(("name", "latent"), COMBINATIONS)
def test_compiled_step_equals_the_eager_one_for_every_estimator(name, latent, num_layers):
    assert_compiled_equals_eager(made(name), num_layers, latent)


def history(tmp_path, data, model, name, **kwargs):
    """All that a run leaves: logged figures by step, and its last checkpoint; validations, logs and epochs fall on odd steps."""
    logger = CSVLogger(tmp_path, name=name)
    options = {"max_steps": 26, "log_every_n_steps": 3, "val_check_interval": 5, "check_val_every_n_epoch": None, "logger": logger}
    run = trainer(tmp_path, **{**options, **kwargs})
    run.fit(model, datamodule=data)
    run.save_checkpoint(tmp_path / f"{name}.ckpt")
    content = torch.load(tmp_path / f"{name}.ckpt", weights_only=True)
    with open(f"{logger.log_dir}/metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    kept = ("state_dict", "optimizer_states", "lr_schedulers", "loops", "dvae", "global_step", "epoch")
    return rows, {key: content[key] for key in kept if key in content}


# This one changes Adam's beta too.
CYCLE = {"class_path": "torch.optim.lr_scheduler.OneCycleLR", "init_args": {"max_lr": 0.1, "total_steps": 40}}
SCHEDULE = {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 5, "gamma": 0.5}}


@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 2}], ids=str)
def test_any_number_of_steps_in_one_execution_leaves_the_same_run(options, tmp_path, tiny_data):
    def run(number):
        pl.seed_everything(0, verbose=False)
        model = DiscreteVAE(NVIL(), phi_warmup_steps=4, lr_scheduler=SCHEDULE, steps_per_execution=number, **options, **TINY)
        calls = []
        model.training_step = lambda *args: (calls.append(1), DiscreteVAE.training_step(model, *args))[1]
        return *history(tmp_path, tiny_data, model, f"n{number}"), len(calls)

    rows, checkpoint, calls = run(1)
    for number in (2, 3, 50):
        again = run(number)
        assert again[0] == rows
        assert_equal_trees(again[1], checkpoint, exact=True)
        assert again[2] < calls


def assert_equal_trees(first, second, exact=False):
    if isinstance(first, torch.Tensor):
        tolerance = {"rtol": 0, "atol": 0} if exact else {"rtol": 1e-10, "atol": 1e-10}
        torch.testing.assert_close(first, second, **tolerance)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_equal_trees(first[key], second[key], exact)
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second)
        for pair in zip(first, second, strict=True):
            assert_equal_trees(*pair, exact)
    elif isinstance(first, float):
        assert first == pytest.approx(second, rel=1e-10)
    else:
        assert first == second


OPTIONS = {"gradient_clip_norm": 0.5, "weight_decay": 0.1, "phi_warmup_steps": 4, "lr_scheduler": SCHEDULE}
WHOLE = [
    pytest.param("NVIL", "Bernoulli", OPTIONS, marks=pytest.mark.inductor),
    ("RODEO(hidden=10, depth=2)", "Bernoulli", {}),
    ("REBAR", "Bernoulli", {"kl": "analytic", "lr_scheduler": CYCLE}),
]
# Each class of estimators once, with one family of its latents.
CLASSES = {type(named(name).make()): (name, latent) for name, latent in reversed(COMBINATIONS)}
CODE = [pytest.param(*combination, {}, marks=[pytest.mark.slow, pytest.mark.inductor]) for combination in COMBINATIONS]


@pytest.mark.parametrize(("name", "latent", "options"), WHOLE + [(*combination, {}) for combination in CLASSES.values()] + CODE)
def test_whole_step_compiled_leaves_the_run_of_the_eager_one(name, latent, options, tmp_path, tiny_data):
    """Parameters, moments, schedules, running statistics, logs and counters; batches of two sizes, blocks of several steps."""

    def run(compile, number):
        torch._dynamo.reset()
        pl.seed_everything(0, verbose=False)
        families = {"latent": latent, **FAMILIES[latent]}
        # Some gradients are 0 but for rounding, of which Adam makes steps unless its epsilon is far larger.
        options_of_both = {"steps_per_execution": number, "lr": 0.01, "eps": 1e-5, **families, **options, **TINY}
        model = DiscreteVAE(made(name), compile=compile, **options_of_both)
        data = dvae.data.ArrayData(tiny_data.split("train"), tiny_data.split("valid"), batch_size=12)
        result = history(tmp_path, data, model.double(), f"{compile}{number}", precision="64-true")
        assert model._compiling is compile
        return result

    (rows, checkpoint), (compiled_rows, compiled) = run(False, 1), run(True, 4)
    for key in checkpoint["dvae"]:
        assert_equal_trees(compiled["dvae"][key], checkpoint["dvae"][key])
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "loops", "global_step"):
        assert_equal_trees(compiled[key], checkpoint[key])
    for first, second in zip(rows, compiled_rows, strict=True):
        assert first.keys() == second.keys()
        for column, value in first.items():
            assert value == second[column] == "" or float(value) == pytest.approx(float(second[column]), rel=1e-5), column


class Uncompiled:
    """A function in a compiled one's place."""

    def __init__(self, function):
        self.function = function

    def __call__(self, *arguments):
        return self.function(*arguments)

    def unguarded(self):
        return self


def test_a_step_that_can_be_compiled_no_more_goes_on_as_it_is(tmp_path, tiny_data, monkeypatch):
    """As where torch.compile has compiled a function too often; nothing is lost of what the block has done before."""

    def run(fails):
        pl.seed_everything(0, verbose=False)
        calls = []

        def limited(function):
            def call(*arguments):
                calls.append(1)
                if fails and len(calls) == 7:
                    raise FAILURES[1]("recompile_limit reached")
                return function(*arguments)

            return Uncompiled(call)

        monkeypatch.setattr("dvae.training.whole_step.compiled", limited)
        model = DiscreteVAE(LOO(), compile=True, steps_per_execution=4, **TINY)
        return *history(tmp_path, tiny_data, model, f"limit{fails}"), len(calls)

    *whole, calls = run(False)
    with pytest.warns(UserWarning, match="cannot be compiled and runs as it is: recompile_limit reached"):
        *limited, calls_before = run(True)
    assert (calls, calls_before) == (26, 7)
    assert_equal_trees(limited, whole, exact=True)


def test_only_batches_of_the_usual_size_are_compiled_for(tmp_path, tiny_data, monkeypatch):
    """The last batch of an epoch is too rare; where the loader does not say what is usual, or wrongly, all sizes are compiled."""
    sizes = set()

    def watched(function):
        return Uncompiled(lambda *arguments: (sizes.add(len(arguments[-1])), function(*arguments))[1])

    def fit(loader):
        sizes.clear()
        model = DiscreteVAE(LOO(), compile=True, steps_per_execution=4, **TINY)
        model.set_mean(tiny_data.mean)
        run = trainer(tmp_path, max_steps=20)
        run.fit(model, loader)
        assert run.global_step == 20
        assert model._compiling
        return set(sizes)

    monkeypatch.setattr("dvae.training.whole_step.compiled", watched)
    images = tiny_data.split("train").float()
    sampler = torch.utils.data.BatchSampler(torch.utils.data.SequentialSampler(images), 12, drop_last=False)
    doubled = torch.utils.data.DataLoader(images, batch_size=6, collate_fn=lambda rows: torch.stack(rows + rows))
    last = len(images) % 12
    assert 0 < last < 6
    assert fit(torch.utils.data.DataLoader(images, batch_size=12)) == {12}
    assert fit(torch.utils.data.DataLoader(images, batch_sampler=sampler)) == {12, last}
    assert fit(doubled) == {12, 2 * last}
    assert fit(torch.utils.data.DataLoader(images, batch_size=100)) == {len(images)}  # the only batch of an epoch


def test_a_whole_step_that_turns_non_finite_stops_at_its_step_with_the_last_good_parameters(tmp_path, tiny_data):
    class Breaks(DiscreteVAE):
        def objective(self, terms):
            return terms.elbo + 0.01 * torch.log(self.prior.logits[0])  # falls from 1 below 0 after some steps

    def run(compile):
        torch._dynamo.reset()
        pl.seed_everything(0, verbose=False)
        model = Breaks(REINFORCE(), lr=0.3, compile=compile, steps_per_execution=8, **TINY)
        with torch.no_grad():
            model.prior.logits.fill_(1.0)
            model.encoders[0].layers[0].bias.fill_(-3.0)
        fitter = trainer(tmp_path)
        with pytest.raises(NonFiniteError) as error:
            fitter.fit(model, tiny_data)
        assert model._compiling is compile
        return model, fitter, str(error.value)

    (eager, first, told), (model, fitter, message) = run(False), run(True)
    assert message == told
    assert 2 < fitter.global_step == first.global_step
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, eager.state_dict()[name])
    for state in fitter.optimizers[0].state.values():
        assert state["step"] == fitter.global_step


def test_what_cannot_be_compiled_runs_as_it_is_with_one_warning(tmp_path, tiny_data):
    class Uncompilable(REBAR):
        def control_variate(self, f, q, z, context):
            torch._dynamo.graph_break()
            return super().control_variate(f, q, z, context)

    torch._dynamo.reset()
    model = DiscreteVAE(Uncompilable(), compile=True, **TINY)
    with pytest.warns(UserWarning, match="the step cannot be compiled and runs as it is"):
        trainer(tmp_path, max_steps=3).fit(model, tiny_data)
    assert model.iteration == 3


@pytest.mark.parametrize("stop", [3, 4, 5, 8])
def test_a_run_in_blocks_goes_on_exactly_from_any_step_also_from_the_end_of_an_epoch(stop, tmp_path, tiny_data):
    def run(max_steps, **options):
        torch.manual_seed(0)
        model = DiscreteVAE(NVIL(), steps_per_execution=3, **TINY)
        fitter = trainer(tmp_path, max_steps=max_steps, max_epochs=-1, log_every_n_steps=5)
        fitter.fit(model, tiny_data, **options)
        return model, fitter

    whole, _ = run(14)
    _, stopped = run(stop)
    stopped.save_checkpoint(tmp_path / "stopped.ckpt")
    resumed, fitter = run(14, ckpt_path=tmp_path / "stopped.ckpt", weights_only=True)
    assert fitter.global_step == resumed.iteration == 14
    assert_equal_trees(resumed.state_dict(), whole.state_dict(), exact=True)


@pytest.mark.parametrize("clock", ["self.iteration", "self.global_step", "self.current_epoch", "self.trainer.max_steps"])
def test_a_step_that_looks_at_the_clock_is_not_compiled(clock, tmp_path, tiny_data):
    class Annealed(DiscreteVAE):
        def objective(self, terms):
            return terms.reconstruction - eval(clock) * terms.kl

    model = Annealed(compile=True, **TINY)
    with pytest.warns(UserWarning, match="it looks at the iteration or the trainer"):
        trainer(tmp_path, max_steps=3).fit(model, tiny_data)
    assert model.iteration == 3


def test_callbacks_that_want_gradients_get_them_from_a_compiled_model(tmp_path, tiny_data):
    norms = []

    class Watch(pl.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            norms.append(pl_module.prior.logits.grad.norm())

    torch._dynamo.reset()
    model = DiscreteVAE(REINFORCE(), compile=True, steps_per_execution=3, **TINY)
    trainer(tmp_path, max_steps=5, callbacks=[Watch()]).fit(model, tiny_data)
    assert len(norms) == 5


def test_compile_is_automatic_where_it_pays(tmp_path, tiny_data):
    class Stops(DiscreteVAE):
        def on_train_batch_start(self, batch, batch_idx):
            self.trainer.should_stop = True
            return -1

    for max_steps, expected in ((100, False), (10_000, True), (-1, True)):
        model = Stops(**TINY)
        trainer(tmp_path, max_steps=max_steps, max_epochs=-1).fit(model, tiny_data)
        assert model._compiling is expected


# Training with Lightning ----------------------------------------------------------------------------------------------------


def test_global_step_counts_iterations_and_mean_is_set_from_the_data(tmp_path, tiny_data):
    model = DiscreteVAE(**TINY)
    run = trainer(tmp_path, max_steps=7)
    run.fit(model, tiny_data)
    assert run.global_step == 7
    assert model.iteration == 7
    torch.testing.assert_close(model.mean, tiny_data.mean)


def test_any_dataloader_will_do(tmp_path, tiny_data):
    x = tiny_data.split("train").float()
    model = DiscreteVAE(**TINY)
    trainer(tmp_path, max_steps=4).fit(model, DataLoader(TensorDataset(x, torch.zeros(len(x))), batch_size=8))
    torch.testing.assert_close(model.mean, x.mean(0))


def test_warm_up_changes_phi_alone(tmp_path, tiny_data):
    model = DiscreteVAE(RELAX(hidden=5), phi_warmup_steps=5, **TINY)
    theta = [p.detach().clone() for p in model.theta()]
    phi = [p.detach().clone() for p in model.phi()]
    trainer(tmp_path, max_steps=5).fit(model, tiny_data)
    assert all(torch.equal(a, b) for a, b in zip(theta, model.theta(), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(phi, model.phi(), strict=True))
    trainer(tmp_path, max_steps=6).fit(model, tiny_data)
    assert not any(torch.equal(a, b) for a, b in zip(theta, model.theta(), strict=True))


def test_warm_up_is_skipped_without_phi(tmp_path, tiny_data):
    model = DiscreteVAE(REINFORCE(), phi_warmup_steps=100, **TINY)
    before = model.prior.logits.detach().clone()
    trainer(tmp_path, max_steps=2).fit(model, tiny_data)
    assert not torch.equal(before, model.prior.logits)


def test_learning_rates_of_both_groups_follow_the_schedule(tmp_path, tiny_data):
    schedule = {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 5, "gamma": 0.1}}
    model = DiscreteVAE(lr=0.01, phi_lr=0.1, lr_scheduler=schedule, **TINY)
    run = trainer(tmp_path, max_steps=12)
    run.fit(model, tiny_data)
    assert [group["lr"] for group in run.optimizers[0].param_groups] == pytest.approx([1e-4, 1e-3])


def test_gradient_clipping_bounds_each_group_by_itself(tmp_path, tiny_data):
    norms = []

    class Watch(pl.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            for group in optimizer.param_groups:
                norms.append(torch.stack([p.grad.norm() for p in group["params"] if p.grad is not None]).norm().item())

    model = DiscreteVAE(gradient_clip_norm=0.5, **TINY)
    trainer(tmp_path, max_steps=3, callbacks=[Watch()]).fit(model, tiny_data)
    assert len(norms) == 6
    assert max(norms) < 0.5 + 1e-4
    assert min(norms) > 0.4  # both were larger, so both were cut to the bound


def test_accumulated_batches_make_the_gradient_of_their_mean(tmp_path, tiny_data):
    seen = []

    class Watch(pl.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            seen.append([p.grad.clone() for p in pl_module.parameters()])

    model = DiscreteVAE(RELAX(hidden=5), accumulate_grad_batches=2, **TINY).double()
    model.set_mean(tiny_data.mean.double())
    reference = DiscreteVAE(RELAX(hidden=5), **TINY).double()
    reference.load_state_dict(model.state_dict())
    run = trainer(tmp_path, max_steps=1, callbacks=[Watch()], precision="64-true")
    run.fit(model, tiny_data)
    assert (run.global_step, model.iteration) == (1, 2)
    batches = iter(tiny_data.train_dataloader())
    losses = []
    for index in range(2):
        noise = reference.training_noise(10, reference.noise_stream(0), index)
        losses.append(step_loss(reference, next(batches).double(), noise).loss)
    (sum(losses) / 2).backward()
    for gradient, parameter in zip(seen[0], reference.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad)


@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-mixed"])
def test_precision_is_lightnings(precision, tmp_path, tiny_data):
    model = DiscreteVAE(**TINY)
    run = trainer(tmp_path, max_steps=5, precision=precision)
    run.fit(model, tiny_data)
    assert run.global_step == 5
    assert all(p.isfinite().all() for p in model.parameters())


def test_noise_of_an_iteration_depends_on_seed_and_iteration_alone(tmp_path, tiny_data):
    states = []
    for disturbance in (0, 17):
        pl.seed_everything(0, verbose=False)
        model = DiscreteVAE(**TINY)
        torch.rand(disturbance)
        trainer(tmp_path, max_steps=6).fit(model, tiny_data)
        states.append(model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_resumed_run_ends_where_the_uninterrupted_one_does(tmp_path):
    """Bit for bit, from a checkpoint in the middle of an epoch: parameters, optimizer, baselines, data order and noise."""
    images = (torch.rand(50, 16, generator=torch.Generator().manual_seed(0)) < 0.3).float()

    def run(max_steps, resume=None):
        pl.seed_everything(0, verbose=False)
        model = DiscreteVAE(NVIL(), lr=0.01, **TINY)
        fitter = trainer(tmp_path, max_steps=max_steps)
        fitter.fit(model, datamodule=dvae.data.ArrayData(images, batch_size=8), ckpt_path=resume)
        return fitter, model

    whole, expected = run(17)
    half, _ = run(10)
    half.save_checkpoint(tmp_path / "half.ckpt")
    resumed, actual = run(17, tmp_path / "half.ckpt")
    assert resumed.global_step == 17
    for name, tensor in expected.state_dict().items():
        assert torch.equal(tensor, actual.state_dict()[name]), name
    for first, second in zip(
        whole.optimizers[0].state_dict()["state"].values(), resumed.optimizers[0].state_dict()["state"].values(), strict=True
    ):
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_non_finite_loss_stops_the_run_at_its_step_with_the_last_good_parameters(tmp_path, tiny_data):
    class Breaks(DiscreteVAE):
        def objective(self, terms):
            return terms.elbo * (float("nan") if self.training and self.iteration == 3 else 1.0)

    model = Breaks(**TINY)
    run = trainer(tmp_path)
    with pytest.raises(NonFiniteError, match=r"the loss became nan at iteration 3 \(global step 3\); not finite: .*second_moment"):
        run.fit(model, tiny_data)
    assert run.global_step == 3
    assert all(p.isfinite().all() for p in model.parameters())


# Bad input ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 15), r"x must be a tensor of 16 values per example, got \(2, 15\)"),
        (torch.full((2, 16), 1.5), r"x must hold values in \[0, 1\], got values from 1.5 to 1.5"),
        (torch.full((2, 16), -1.0), r"x must hold values in \[0, 1\], got values from -1 to -1"),
        (torch.full((2, 16), float("nan")), r"x must hold values in \[0, 1\], got values from nan to nan"),
        ([0.0] * 16, "x must be a tensor of 16 values per example, got list"),
    ],
)
def test_bad_examples_are_refused(x, message, tmp_path):
    with pytest.raises(InputError, match=message):
        DiscreteVAE(**TINY).elbo(x)


def test_bad_batches_of_a_foreign_loader_stop_training(tmp_path):
    with pytest.raises(InputError, match=r"x must hold values in \[0, 1\]"):
        trainer(tmp_path).fit(DiscreteVAE(**TINY), DataLoader(torch.full((8, 16), 255.0), batch_size=4))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"kl": "exact"}, "kl must be 'sampled' or 'analytic', got 'exact'"),
        ({"betas": (0.9, 1.5)}, r"betas must be two numbers in \[0, 1\), got \(0.9, 1.5\)"),
        ({"lr": -1.0}, "lr must be at least 0, got -1.0"),
        ({"num_latents": 0}, "num_latents must be at least 1, got 0"),
        ({"compile": "always"}, "compile must be true, false or 'auto', got 'always'"),
        ({"steps_per_execution": 0}, "steps_per_execution must be at least 1, got 0"),
        ({"gradient_clip_norm": 0.0}, "gradient_clip_norm must be positive or None, got 0.0"),
        ({"encoder": nn.Linear(16, 5)}, r"encoder must take \[\*, 16\] to \[\*, 4\], but took \(1, 2, 16\) to \(1, 2, 5\)"),
        ({"decoder": MLP(3, 16)}, r"decoder must take \[\*, 4\] to \[\*, 16\]; it raised"),
        ({"encoder": [MLP(16, 4), MLP(4, 4)]}, "encoder must be 1 modules, one per stochastic layer, got 2"),
        ({"estimator": "RELAX"}, "estimator must be a GradientEstimator or a mapping with a class_path, got 'RELAX'"),
        ({"estimator": {"class_path": "dvae.estimators.RELAXX"}}, "estimator: cannot import 'dvae.estimators.RELAXX'"),
        ({"estimator": {"class_path": "dvae.networks.MLP"}}, "is not a subclass of GradientEstimator"),
        (
            {"estimator": {"class_path": "dvae.estimators.RELAX", "init_args": {"width": 3}}},
            "estimator: dvae.estimators.RELAX does not take these arguments: got an unexpected keyword argument 'width'",
        ),
    ],
)
def test_bad_arguments_are_named(kwargs, message):
    with pytest.raises(InputError, match=message):
        DiscreteVAE(**{**TINY, **kwargs})
