"""What only a machine with a GPU can show, skipped where there is none; and how steps are captured, with a graph of the CPU's."""

import warnings

import pytest
import pytorch_lightning as pl
import torch

import dvae
from dvae.estimators import LOO, NVIL, REBAR, REINFORCE, RELAX, RODEO
from dvae.noise import noise_stream, place, uniform
from dvae.training.compilation import Replayed
from dvae.training.module import DiscreteVAE
from dvae.training.run import joint_optimizer
from dvae.training.sweep import Replicas
from dvae.training.whole_step import WholeStep

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

SIZES = {"num_pixels": 16, "num_latents": 4}


def models(make, count, **options):
    made = []
    for seed in range(count):
        torch.manual_seed(seed)
        made.append(DiscreteVAE(make(), seed=seed, **SIZES, **options).cuda())
    return made


@needs_gpu
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("make", [REINFORCE, LOO, NVIL, RODEO, REBAR, RELAX])
def test_a_step_never_waits_for_the_device(make, count):
    own = models(make, count)
    x = torch.ones(count, 8, 16, device="cuda")
    x = x if count > 1 else x[0]
    update = WholeStep(own, joint_optimizer(own), x.reshape(-1, 16))

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the step cannot be")
        for iteration in range(5):
            update(x, iteration)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for iteration in range(5, 10):
            update(x, iteration)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert min(update.end_block()) == 10


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_gpu_draws_what_a_cpu_draws(dtype):
    def draw(streams, clock):
        return torch.vmap(lambda stream: uniform(place(stream, clock[0]), (3, 24, 200), dtype))(streams)

    streams, clock = torch.tensor([noise_stream(seed) for seed in range(4)]), torch.tensor([10**6])
    for function in (draw, torch.compile(draw, dynamic=False, fullgraph=True)):
        assert torch.equal(function(streams.cuda(), clock.cuda()).cpu(), draw(streams, clock))


@needs_gpu
def test_replicas_that_share_a_batch_are_replayed():
    own = models(RELAX, 3)
    x = torch.ones(8, 16, device="cuda").expand(3, 8, 16)
    update = WholeStep(own, joint_optimizer(own), x[0])
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the step cannot be")
        for iteration in range(10):
            update(x, iteration)
    assert min(update.end_block()) == 10


@needs_gpu
@pytest.mark.parametrize("several", [False, True])
def test_training_on_the_gpu_is_training_on_the_cpu(several, tmp_path, tiny_data):
    def run(accelerator):
        made = [model.cpu() for model in models(RELAX, 2 if several else 1, compile=True, steps_per_execution=5)]
        module = Replicas(made) if several else made[0]
        trainer = pl.Trainer(
            max_steps=40,
            max_epochs=-1,
            accelerator=accelerator,
            devices=1,
            precision="64-true",
            default_root_dir=tmp_path,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        data = dvae.data.ArrayData(tiny_data.split("train"), tiny_data.split("valid"), batch_size=12)
        trainer.fit(module, data)
        return {name: tensor.cpu() for name, tensor in module.state_dict().items()}

    on_cpu, on_gpu = run("cpu"), run("gpu")
    for name, tensor in on_cpu.items():
        torch.testing.assert_close(on_gpu[name], tensor, rtol=1e-7, atol=1e-7, msg=lambda text, name=name: f"{name}: {text}")


@needs_gpu
def test_figures_of_a_gpu_are_those_of_the_cpu(tiny_data):
    torch.manual_seed(0)
    model = DiscreteVAE(RELAX(), prior=dvae.priors.BoltzmannMachine(), **SIZES).double()
    data = dvae.data.ArrayData(tiny_data.split("train"), tiny_data.split("valid"), batch_size=12)
    on_cpu, on_gpu = (dvae.evaluate(model, data, split="valid", num_samples=5, device=device) for device in ("cpu", "cuda"))
    for name in ("elbo", "importance_weighted_bound", "kl"):
        assert getattr(on_gpu, name).mean == pytest.approx(getattr(on_cpu, name).mean, rel=1e-9), name
    assert on_gpu.log_variance_logits == pytest.approx(on_cpu.log_variance_logits, rel=1e-6)


@pytest.fixture
def captures(monkeypatch):
    """How often a graph was captured and replayed; it holds what was called, and calls it again."""
    counts = {"captured": 0, "replayed": 0}

    class Graph:
        def replay(self):
            counts["replayed"] += 1
            self.call()

    class Capture:
        current = None

        def __init__(self, graph, capture_error_mode):
            self.graph = graph

        def __enter__(self):
            counts["captured"] += 1
            Capture.current = self.graph

        def __exit__(self, *_):
            Capture.current = None

    def capturable(function):
        def call(*arguments):
            if Capture.current is None:
                function(*arguments)
            else:
                Capture.current.call = lambda: function(*arguments)

        return call

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", Capture)
    return counts, capturable


def accumulated(step):
    """The sum of x + rate over 20 steps with two batch sizes, in which the rate changes too."""
    total, rate = torch.zeros(4, dtype=torch.float64), torch.zeros(1)
    generator = torch.Generator().manual_seed(0)
    for iteration in range(20):
        rate.fill_(iteration)
        step({"p": {"total": total}}, rate, torch.rand(3 if iteration % 4 else 5, 4, generator=generator))
    return total


def one_step(state, rate, x):
    state["p"]["total"] += (x + rate).sum(0)


def test_a_replayed_step_takes_what_each_call_is_given(captures):
    counts, capturable = captures
    assert torch.equal(accumulated(Replayed(capturable(one_step))), accumulated(one_step))
    assert counts == {"captured": 2, "replayed": 12 + 2}  # of each shape, three of 15 and of 5 calls come before


def test_every_batch_of_one_shape_comes_in_one_place_and_layout(captures):
    _, capturable = captures
    seen = []
    replayed = Replayed(capturable(lambda x: seen.append((x.data_ptr(), x.stride()))))
    for number in range(10):
        x = torch.full((5, 4), float(number))
        replayed(x if number % 2 else x[0].expand(5, 4))
    assert len(seen) == 10
    assert len(set(seen)) == 1


def test_a_step_that_cannot_be_captured_is_launched_as_it_is(captures, monkeypatch):
    def refuse(graph, capture_error_mode):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "graph", refuse)
    with pytest.warns(UserWarning, match="cannot be captured as a CUDA graph .* not permitted") as told:
        total = accumulated(Replayed(one_step))
    assert len(told) == 1
    assert torch.equal(total, accumulated(one_step))
