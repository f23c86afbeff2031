"""Data sets, and the loader that cuts batches from them."""

import contextlib
import gzip
import hashlib
import importlib.util
import itertools
import math
import pickle
import re
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from dvae.config import instantiate
from dvae.data import (
    MNIST,
    ArrayData,
    BinarizedMNIST,
    DataModule,
    FashionMNIST,
    Omniglot,
    Splits,
    TensorLoader,
    binarize,
    data_module,
    load_split,
)
from dvae.errors import InputError
from dvae.resources import bundled_folder

ROOT = Path(__file__).parents[2]


def numbered(count: int, pixels: int = 3) -> torch.Tensor:
    """Distinct examples, [count, pixels], in [0, 1]; ``indices`` reads their numbers back."""
    return (torch.arange(count).float() / count)[:, None].repeat(1, pixels)


def indices(batches: list[torch.Tensor], count: int) -> list[list[int]]:
    return [(batch[:, 0] * count).round().int().tolist() for batch in batches]


def flat(batches: list[torch.Tensor], count: int) -> list[int]:
    return list(itertools.chain.from_iterable(indices(batches, count)))


def write_idx(path: Path, array: np.ndarray, zipped: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
    if zipped:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(content))
    else:
        path.write_bytes(content)


def write_mnist(
    root: Path, name: str = "MNIST", train: int = 60, test: int = 10, zipped: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (count, 28, 28), dtype=np.uint8) for count in (train, test)]
    for prefix, part in zip(("train", "t10k"), images, strict=True):
        write_idx(root / name / "raw" / f"{prefix}-images-idx3-ubyte", part, zipped)
        write_idx(root / name / "raw" / f"{prefix}-labels-idx1-ubyte", np.zeros(len(part), np.uint8), zipped)
    return images[0], images[1]


def write_amat(folder: Path, counts: tuple[int, int, int] = (5, 3, 2)) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    parts = {name: generator.integers(0, 2, (count, 784)) for name, count in zip(("train", "valid", "test"), counts, strict=True)}
    for name, part in parts.items():
        lines = [" ".join(map(str, row)) + " \n" for row in part]
        (folder / f"binarized_mnist_{name}.amat").write_text("".join(lines))
    return parts


@pytest.fixture(scope="module")
def bundled() -> BinarizedMNIST:
    return BinarizedMNIST()


# The bundled set --------------------------------------------------------------------------------------------------------------


def test_the_bundled_set_has_the_benchmarks_sizes_and_mnists_statistics(bundled):
    for name, count in (("train", 50_000), ("valid", 10_000), ("test", 10_000)):
        part = bundled.split(name)
        assert part.shape == (count, 784)
        assert part.dtype == torch.uint8
        assert part.max() == 1
        # The mean grey level is .1307 for MNIST's training file and .1325 for its test file.
        assert part.float().mean().item() == pytest.approx(0.1307, abs=0.003)
        on = part.float().mean(0).reshape(28, 28)
        assert on[:2].max() < 0.01
        assert on[12:16, 12:16].mean() > 0.3
    assert bundled.image_shape == (1, 28, 28)
    assert bundled.num_pixels == 784
    assert [bundled.labels(name).bincount().min().item() > 800 for name in ("train", "valid", "test")] == [True] * 3
    assert bundled.config == {"class_path": "dvae.data.BinarizedMNIST", "init_args": {}}


def test_no_image_of_the_bundled_set_is_in_two_splits(bundled):
    packed = {
        name: {row.tobytes() for row in np.packbits(bundled.split(name).numpy(), axis=1)} for name in ("train", "valid", "test")
    }
    assert not packed["train"] & packed["valid"]
    assert not packed["train"] & packed["test"]


def test_the_mean_is_the_training_sets(bundled):
    assert bundled.mean.dtype == torch.float32
    torch.testing.assert_close(bundled.mean, bundled.split("train").double().mean(0).float())


def test_the_readme_gives_the_bundled_arrays_checksums():
    with np.load(bundled_folder("data") / "binarized_mnist.npz", allow_pickle=False) as arrays:
        sums = {name: hashlib.sha256(arrays[name].tobytes()).hexdigest() for name in arrays}
    assert len(sums) == 6
    readme = (bundled_folder("data") / "README.md").read_text()
    assert sums == dict(re.findall(r"^\s*((?:train|valid|test)(?:_labels)?)\s+([0-9a-f]{64})\s*$", readme, flags=re.MULTILINE))


@pytest.fixture(scope="module")
def build():
    script = ROOT / "data" / "build_binarized_mnist.py"
    spec = importlib.util.spec_from_file_location("build_binarized_mnist", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("zipped", [False, True])
def test_the_build_script_writes_the_same_file_twice_and_the_package_reads_it(build, tmp_path, zipped):
    write_mnist(tmp_path, zipped=zipped)
    files = [tmp_path / "one.npz", tmp_path / "two.npz"]
    for file in files:
        build.main([str(tmp_path), "--output", str(file)])
    assert files[0].read_bytes() == files[1].read_bytes()
    data = BinarizedMNIST(path=files[0])
    assert [len(data.split(name)) for name in ("train", "valid", "test")] == [50, 10, 10]


def test_the_build_script_draws_every_pixel_with_its_grey_level(build):
    grey = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 4000, axis=1)
    mean = build.binarize(grey, np.random.Generator(np.random.PCG64(0))).mean(1)
    p = np.arange(256) / 255
    assert mean[0] == 0
    assert mean[255] == 1
    z = (mean - p)[1:255] / np.sqrt(p * (1 - p) / 4000)[1:255]
    assert np.abs(z).max() < 4.5
    assert abs((z**2).mean() - 1) < 5 * math.sqrt(2 / 254)


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_the_build_script_refuses_damaged_files_and_leaves_none(build, tmp_path, damage):
    write_mnist(tmp_path)
    file = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(SystemExit, match="t10k-images"):
        build.main([str(tmp_path), "--output", str(tmp_path / "out.npz")])
    assert list(tmp_path.glob("*.npz")) == []


# The loader -------------------------------------------------------------------------------------------------------------------


def test_an_epoch_holds_every_example_once_and_ends_with_what_is_left():
    loader = TensorLoader(numbered(23), batch_size=4, shuffle=True)
    batches = list(loader)
    assert [len(batch) for batch in batches] == [4, 4, 4, 4, 4, 3]
    assert len(loader) == 6
    assert sorted(flat(batches, 23)) == list(range(23))
    assert all(batch.dtype == torch.float32 for batch in batches)


def test_drop_last_leaves_out_the_batch_that_is_not_full():
    loader = TensorLoader(numbered(23), batch_size=4, shuffle=True, drop_last=True)
    assert [len(batch) for batch in loader] == [4] * 5
    assert len(loader) == 5


def test_without_shuffle_the_order_is_the_tensors():
    loader = TensorLoader(numbered(23), batch_size=4)
    for _ in range(2):
        assert flat(list(loader), 23) == list(range(23))


def test_the_order_depends_on_seed_and_epoch_alone():
    def orders(seed: int) -> list[list[int]]:
        loader = TensorLoader(numbered(50), batch_size=7, shuffle=True, seed=seed)
        return [flat(list(loader), 50) for _ in range(3)]

    assert orders(0) == orders(0)
    different = {tuple(order) for seed in range(3) for order in orders(seed)}
    assert len(different) == 9
    loader = TensorLoader(numbered(50), batch_size=7, shuffle=True)
    loader.set_epoch(2)
    assert flat(list(loader), 50) == orders(0)[2]


def test_every_position_of_an_example_is_equally_likely():
    loader = TensorLoader(numbered(5), batch_size=5, shuffle=True)
    counts = np.zeros((5, 5))
    for _ in range(2000):
        counts[np.arange(5), flat(list(loader), 5)] += 1
    chi2 = ((counts - 400) ** 2 / 400).sum()
    # 16 degrees of freedom.
    assert chi2 < 16 + 5 * math.sqrt(32)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.float64])
def test_storage_types_all_yield_float32_zeros_and_ones(dtype):
    data = (torch.rand(10, 6, generator=torch.Generator().manual_seed(0)) < 0.5).to(dtype)
    batch = next(iter(TensorLoader(data, batch_size=10)))
    assert batch.dtype == torch.float32
    assert torch.equal(batch, data.float())


@pytest.mark.parametrize(("count", "world_size"), [(24, 2), (23, 2), (25, 4), (3, 4), (1, 3)])
@pytest.mark.parametrize("shuffle", [True, False])
def test_ranks_share_an_epoch_out_evenly(count, world_size, shuffle):
    loaders = [
        TensorLoader(numbered(count), batch_size=3, shuffle=shuffle, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    shares = [indices(list(loader), count) for loader in loaders]
    assert len({tuple(map(len, share)) for share in shares}) == 1
    together = sorted(itertools.chain.from_iterable(itertools.chain.from_iterable(shares)))
    assert set(together) == set(range(count))
    assert len(together) == math.ceil(count / world_size) * world_size
    if count % world_size == 0:
        assert together == list(range(count))


def test_ranks_with_drop_last_hold_no_example_twice():
    loaders = [TensorLoader(numbered(23), batch_size=3, shuffle=True, drop_last=True, rank=rank, world_size=2) for rank in range(2)]
    shares = [flat(list(loader), 23) for loader in loaders]
    assert len(shares[0]) == len(shares[1]) == 9
    assert len(set(shares[0]) | set(shares[1])) == 18


def test_a_batch_of_all_ranks_is_one_batch_of_a_single_process():
    one = indices(list(TensorLoader(numbered(24), batch_size=6, shuffle=True)), 24)
    two = [indices(list(TensorLoader(numbered(24), batch_size=3, shuffle=True, rank=rank, world_size=2)), 24) for rank in range(2)]
    assert [sorted(a + b) for a, b in zip(*two, strict=True)] == [sorted(batch) for batch in one]


def test_dynamic_batches_are_fresh_binary_draws_with_the_grey_levels_as_mean():
    probs = torch.linspace(0, 1, 11)[None].repeat(400, 1)
    loader = TensorLoader(probs, batch_size=50, dynamic=True)
    epochs = torch.stack([torch.cat(list(loader)) for _ in range(10)])
    assert set(epochs.unique().tolist()) == {0.0, 1.0}
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(epochs, 2))
    mean, p = epochs.double().mean((0, 1)), probs[0].double()
    assert mean[0] == 0
    assert mean[-1] == 1
    z = (mean - p)[1:-1] / (p * (1 - p) / 4000).sqrt()[1:-1]
    assert z.abs().max() < 4.5
    again = TensorLoader(probs, batch_size=50, dynamic=True)
    assert torch.equal(torch.cat(list(again)), epochs[0])


def test_ranks_draw_independent_noise():
    probs = torch.full((400, 20), 0.5)
    a, b = (next(iter(TensorLoader(probs, batch_size=200, dynamic=True, rank=rank, world_size=2))) for rank in range(2))
    assert abs((a == b).double().mean().item() - 0.5) < 4.5 * 0.5 / math.sqrt(4000)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("stop", range(7))
def test_a_loaded_position_yields_the_batches_that_were_to_come(stop, dynamic):
    def loader() -> TensorLoader:
        return TensorLoader(numbered(23), batch_size=4, shuffle=True, dynamic=dynamic, seed=3)

    whole = loader()
    expected = [batch for _ in range(3) for batch in whole]
    first = loader()
    list(first)
    list(itertools.islice(first, stop))
    second = loader()
    second.load_state_dict(first.state_dict())
    # A loaded position at the end of an epoch has no batch left in it.
    rest = [batch for _ in range(1 if stop == 6 else 2) for batch in second]
    assert len(rest) == 18 - 6 - stop
    assert all(torch.equal(a, b) for a, b in zip(rest, expected[6 + stop :], strict=True))


class Recorder(pl.LightningModule):
    """Remembers the batches it was trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.batches: list[torch.Tensor] = []
        self.evaluated: list[torch.Tensor] = []
        self.automatic_optimization = False

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.batches.append(batch.clone())
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward((self.weight - 1) ** 2)
        optimizer.step()

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.evaluated.append(batch.clone())
        self.log("score", batch.mean())

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(callbacks: tuple[pl.Callback, ...] = (), **options) -> pl.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return pl.Trainer(callbacks=list(callbacks), enable_checkpointing=bool(callbacks), **quiet, **options)


def fit(
    checkpoint: Path | None = None, callbacks: tuple[pl.Callback, ...] = (), dynamic: bool = True, **options
) -> list[torch.Tensor]:
    model = Recorder()
    data = ArrayData(numbered(23), numbered(5), batch_size=4, dynamic=dynamic)
    trainer(callbacks, **options).fit(model, data, ckpt_path=checkpoint)
    return model.batches


STEPS = {"max_steps": 14, "max_epochs": -1}
EPOCHS = {"max_epochs": 3}


@pytest.mark.parametrize("length", [STEPS, EPOCHS], ids=["max_steps", "max_epochs"])
@pytest.mark.parametrize(
    "options",
    [{}, {"limit_val_batches": 0}, {"limit_train_batches": 4, "limit_val_batches": 0}, {"val_check_interval": 2}],
    ids=["validation", "no validation", "limited", "often validated"],
)
@pytest.mark.parametrize("when", ["batch", "epoch", "validation"])
@pytest.mark.filterwarnings("ignore")
def test_a_resumed_run_sees_exactly_the_batches_that_were_to_come(tmp_path, length, options, when):
    if when == "validation" and options.get("limit_val_batches") == 0:
        pytest.skip("no validation to save after")
    save = {
        "batch": {"every_n_train_steps": 1, "save_on_train_epoch_end": False},
        "epoch": {"every_n_epochs": 1, "save_on_train_epoch_end": True},
        "validation": {"monitor": "score", "every_n_epochs": 1, "save_on_train_epoch_end": False},
    }[when]
    whole = fit(callbacks=(ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, **save),), **length, **options)
    steps = {int(re.search(r"step=(\d+)", file.stem)[1]): file for file in tmp_path.glob("*.ckpt")}
    # Within the first and the second epoch, at the ends of both, and after.
    tried = [step for step in sorted(steps) if step < len(whole)][:: 3 if when == "batch" else 1]
    tried += [step for step in (6,) if when == "batch" and step not in tried]
    assert tried
    for step in tried:
        rest = fit(steps[step], **length, **options)
        assert len(rest) == len(whole) - step
        assert all(torch.equal(a, b) for a, b in zip(rest, whole[step:], strict=True)), f"from step {step}"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("steps", [4, 6, 9])
def test_a_finished_run_can_be_prolonged(tmp_path, steps):
    whole = fit(**STEPS)
    model, data = Recorder(), ArrayData(numbered(23), numbered(5), batch_size=4, dynamic=True)
    short = trainer(max_steps=steps, max_epochs=-1)
    short.fit(model, data)
    short.save_checkpoint(tmp_path / "end.ckpt")
    rest = fit(tmp_path / "end.ckpt", **STEPS)
    assert all(torch.equal(a, b) for a, b in zip(model.batches + rest, whole, strict=True))


@pytest.mark.filterwarnings("ignore")
def test_a_checkpoint_holds_the_position_as_plain_values(tmp_path):
    fit(callbacks=(ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=2),), max_steps=2, max_epochs=-1)
    content = torch.load(tmp_path / "step=2.ckpt", weights_only=True)
    assert content["loops"]["fit_loop"]["state_dict"]["combined_loader"] == [{"epoch": 0, "batch": 2}]


@pytest.mark.filterwarnings("ignore")
def test_overfitting_sees_the_same_batches_in_every_epoch():
    batches = fit(max_epochs=3, overfit_batches=2, dynamic=False)
    assert indices(batches, 23) == [[0, 1, 2, 3], [4, 5, 6, 7]] * 3


@pytest.mark.filterwarnings("ignore")
def test_a_trainer_validates_and_tests_on_every_example_in_order():
    model = Recorder()
    data = ArrayData(numbered(23), numbered(7), numbered(9), batch_size=4, eval_batch_size=5)
    run = trainer(max_epochs=1, num_sanity_val_steps=0)
    run.fit(model, data)
    once = indices(model.evaluated, 7)
    assert [len(batch) for batch in once] == [5, 2]
    assert sorted(place for batch in once for place in batch) == list(range(7))
    model.evaluated.clear()
    run.test(model, data, verbose=False)
    assert indices(model.evaluated, 9) == [[0, 1, 2, 3, 4], [5, 6, 7, 8]]


@pytest.mark.filterwarnings("ignore")
def test_without_a_validation_set_fit_runs_and_validate_and_test_say_so():
    model, data = Recorder(), ArrayData(numbered(8), batch_size=4)
    run = trainer(max_epochs=1)
    run.fit(model, data)
    assert len(model.batches) == 2
    with pytest.raises(InputError, match="'valid' is missing"):
        run.validate(model, data, verbose=False)
    with pytest.raises(InputError, match="'test' is missing"):
        run.test(model, data, verbose=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        ({"batch_size": 2.5}, "batch_size must be"),
        ({"batch_size": 4, "seed": -1}, "seed must be"),
        ({"batch_size": 4, "rank": 2, "world_size": 2}, "rank must lie in"),
        ({"batch_size": 4, "world_size": 0}, "world_size must be"),
        ({"batch_size": 11, "drop_last": True}, "batch_size must be at most 10 with drop_last"),
    ],
)
def test_the_loader_refuses_arguments_out_of_range(arguments, message):
    with pytest.raises(InputError, match=message):
        TensorLoader(numbered(10), **arguments)


@pytest.mark.parametrize(
    "state", [{}, {"epoch": 0}, {"epoch": 0, "batch": 4}, {"epoch": -1, "batch": 0}, {"epoch": "0", "batch": 0}]
)
def test_the_loader_refuses_a_position_that_is_none(state):
    with pytest.raises(InputError, match="state_dict must hold"):
        TensorLoader(numbered(10), batch_size=4).load_state_dict(state)


# Arrays -----------------------------------------------------------------------------------------------------------------------


def test_arrays_tensors_and_files_give_the_same_data(tmp_path):
    train, valid, test = (np.random.default_rng(seed).random((6, 2, 3)) for seed in range(3))
    np.savez(tmp_path / "all.npz", train=train, valid=valid, test=test, other=np.zeros(2))
    np.savez(tmp_path / "one.npz", train)
    for name, part in (("train", train), ("valid", valid), ("test", test)):
        np.save(tmp_path / f"{name}.npy", part)
    modules = [
        ArrayData(train, valid, test),
        ArrayData(*(torch.from_numpy(part) for part in (train, valid, test))),
        ArrayData(tmp_path / "all.npz"),
        ArrayData(str(tmp_path / "one.npz"), valid, test),
        ArrayData(*(tmp_path / f"{name}.npy" for name in ("train", "valid", "test"))),
        ArrayData(tmp_path / "all.npz", tmp_path / "all.npz", tmp_path / "test.npy"),
        data_module(tmp_path / "all.npz"),
    ]
    for module in modules:
        assert module.image_shape == (1, 2, 3)
        assert module.num_pixels == 6
        for name, part in (("train", train), ("valid", valid), ("test", test)):
            torch.testing.assert_close(module.split(name), torch.from_numpy(part).reshape(6, 6).float())


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((9,), (1, 3, 3)), ((10,), None), ((2, 5), (1, 2, 5)), ((3, 2, 2), (3, 2, 2)), ((1,), (1, 1, 1)), ((2, 2, 2, 2), None)],
)
def test_the_image_shape_is_the_arrays_or_a_square(shape, expected):
    data = ArrayData(np.zeros((4, *shape)))
    assert data.image_shape == expected
    assert data.split("train").shape == (4, math.prod(shape))


def test_an_image_shape_can_be_given():
    assert ArrayData(np.zeros((2, 10)), image_shape=(1, 2, 5)).image_shape == (1, 2, 5)
    with pytest.raises(InputError, match="image_shape must have 10 pixels"):
        ArrayData(np.zeros((2, 10)), image_shape=(1, 3, 3))
    with pytest.raises(InputError, match="image_shape must be three positive integers"):
        ArrayData(np.zeros((2, 10)), image_shape=(2, 5))


def test_packed_bits_are_unpacked_when_said_so():
    bits = (np.random.default_rng(0).random((6, 21)) < 0.5).astype(np.uint8)
    data = ArrayData(np.packbits(bits, axis=1), packed_size=21)
    assert np.array_equal(data.split("train").numpy(), bits)
    for size in (20, 30):
        with pytest.raises(InputError, match=r"packed"):
            ArrayData(np.packbits(np.ones_like(bits), axis=1), packed_size=size)


def test_binary_data_are_stored_compactly_and_grey_levels_pass_through():
    assert ArrayData(np.eye(4)).split("train").dtype == torch.uint8
    grey = np.random.default_rng(0).random((6, 4)).astype(np.float32)
    data = ArrayData(grey, batch_size=6)
    assert torch.equal(data.split("train"), torch.from_numpy(grey))
    assert torch.equal(next(iter(data.train_dataloader())).sort(0).values, torch.from_numpy(grey).sort(0).values)


def test_the_data_do_not_change_with_the_callers_array():
    for array in (np.eye(4, dtype=np.uint8), torch.eye(4), np.eye(4, dtype=np.float32) / 2):
        data = ArrayData(array)
        before = data.split("train").clone()
        array[:] = 0
        assert torch.equal(data.split("train"), before)


def test_a_hold_out_is_drawn_once_and_shares_no_example():
    def parts(**options) -> tuple[list[int], list[int]]:
        data = ArrayData(numbered(40), valid_fraction=0.25, **options)
        return tuple(flat([data.split(name)], 40) for name in ("train", "valid"))

    train, valid = parts()
    assert len(valid) == 10
    assert sorted(train + valid) == list(range(40))
    assert parts() == parts(seed=5)
    assert parts() != parts(data_seed=5)


def test_dynamic_data_are_fixed_for_evaluation_and_fresh_for_training():
    grey = np.full((50, 40), 0.3)
    data = ArrayData(grey, grey, grey, batch_size=50, dynamic=True)
    for name in ("train", "valid", "test"):
        assert set(data.split(name).unique().tolist()) == {0, 1}
        assert abs(data.split(name).double().mean().item() - 0.3) < 4.5 * math.sqrt(0.3 * 0.7 / 2000)
        assert torch.equal(data.split(name), ArrayData(grey, grey, grey, seed=7, dynamic=True).split(name))
    assert not torch.equal(data.split("valid"), data.split("test"))
    assert not torch.equal(data.split("valid"), ArrayData(grey, grey, dynamic=True, data_seed=1).split("valid"))
    loader = data.val_dataloader()
    assert torch.equal(torch.cat(list(loader)), torch.cat(list(loader)))
    train = data.train_dataloader()
    assert not torch.equal(next(iter(train)), next(iter(train)))
    torch.testing.assert_close(data.mean, torch.full((40,), 0.3))


def test_batch_sizes_and_drop_last_do_what_they_say():
    data = ArrayData(numbered(23), numbered(7), numbered(7), batch_size=4, eval_batch_size=3, drop_last=True)
    assert [len(batch) for batch in data.train_dataloader()] == [4] * 5
    assert [len(batch) for batch in data.val_dataloader()] == [3, 3, 1]
    assert [len(batch) for batch in data.test_dataloader()] == [3, 3, 1]


def test_seeds_give_different_orders_of_the_same_data():
    one, two = (ArrayData(numbered(23), batch_size=23, seed=seed) for seed in (0, 1))
    assert torch.equal(one.split("train"), two.split("train"))
    assert not torch.equal(next(iter(one.train_dataloader())), next(iter(two.train_dataloader())))


class Objects:
    """Something that only a pickle can hold."""


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (np.full((3, 4), np.nan), "train must have finite values, got NaN"),
        (np.full((3, 4), np.inf), "train must have finite values, got infinity"),
        (np.full((3, 4), -np.inf), "train must have finite values, got infinity"),
        (np.array([[0.0, np.nan, 1.0]]), "train must have finite values"),
        (np.full((3, 4), 2**25), "train must have integers of at most 16777216, which float32 tells apart, got 33554432"),
        (torch.full((3, 4), float("nan")), "train must have finite values"),
        (np.zeros((0, 4)), "train must be .* at least one example"),
        (np.zeros((4, 0)), "train must be .* at least one example"),
        (np.zeros(4), "train must be"),
        (np.zeros(()), "train must be"),
        (np.zeros((2, 2), complex), "train must be an array of numbers"),
        (torch.zeros((2, 2), dtype=torch.complex64), "train must be an array of real numbers"),
        (np.array([["a", "b"]]), "train must be an array of numbers"),
        (np.array([[Objects()]]), "train must be an array of numbers"),
        ([[0, 1], [0]], "train must be an array of numbers"),
        (None, "train must be given, got None"),
    ],
)
def test_bad_arrays_are_refused(train, message):
    with pytest.raises(InputError, match=message):
        ArrayData(train)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        ({"batch_size": True}, "batch_size must be"),
        ({"eval_batch_size": 0}, "eval_batch_size must be"),
        ({"seed": -1}, "seed must be"),
        ({"data_seed": -1}, "data_seed must be"),
        ({"valid_fraction": 1.0}, r"valid_fraction must lie in \(0, 1\), got 1.0"),
        ({"valid_fraction": 0.01}, "valid_fraction must leave both sets an example"),
        ({"valid_fraction": 0.5, "valid": np.zeros((2, 4))}, "valid_fraction must be None"),
        ({"valid": np.zeros((2, 5))}, "all splits must have as many pixels as train, got {'train': 4, 'valid': 5}"),
        ({"test": np.full((2, 4), np.nan)}, "test must have finite values"),
        ({"divide_by": 0}, "divide_by must be positive, got 0"),
        ({"workers": -1}, "workers must be"),
        ({"labels": np.zeros(2, int)}, r"labels of train must be 3 whole numbers, got int64 \[2\]"),
        ({"labels": {"test": np.zeros(3, int)}}, "labels must be of splits that there are, train, got test"),
        ({"in_memory": False}, "train must be a file where in_memory is False, got ndarray"),
        ({"packed_size": 0}, "packed_size must be"),
        ({"packed_size": 32}, r"train must be bit-packed, uint8 \[N, 4\], got float64"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        ArrayData(np.zeros((3, 4)), **options)


def test_an_unknown_or_missing_split_is_named():
    data = ArrayData(np.zeros((3, 4)))
    with pytest.raises(InputError, match="split must be one of train, valid, test, got 'val'"):
        data.split("val")
    with pytest.raises(InputError, match="split 'test' is missing: this ArrayData has only train"):
        data.split("test")


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
@pytest.mark.parametrize("damage", ["missing", "folder", "empty", "text", "truncated", "flipped", "pickle", "objects"])
def test_damaged_files_are_refused(tmp_path, suffix, damage):
    path = tmp_path / f"data{suffix}"
    save = np.savez_compressed if suffix == ".npz" else np.save
    save(path, np.random.default_rng(0).random((50, 40)))
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "folder":
        path.unlink()
        path.mkdir()
    elif damage == "objects":
        save(path, np.array([[{"a": 1}]], dtype=object))
    elif damage == "pickle":
        path.write_bytes(pickle.dumps([1, 2, 3]))
    else:
        middle = len(content) // 2
        flipped = content[:8] + bytes(255 - byte for byte in content[8:64]) + content[64:]
        path.write_bytes({"empty": b"", "text": b"hello\n", "truncated": content[:middle], "flipped": flipped}[damage])
    with pytest.raises(InputError, match=r"train.*data\.np") as caught:
        ArrayData(path)
    assert "\n" not in str(caught.value)


def test_any_damage_to_a_file_is_an_input_error(tmp_path):
    path = tmp_path / "data.npz"
    np.savez_compressed(path, train=np.random.default_rng(0).random((3, 4)), test=np.zeros((2, 4)))
    content, generator = path.read_bytes(), np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(content)
        for place in generator.integers(0, len(content), 3):
            damaged[place] = generator.integers(256)
        path.write_bytes(bytes(damaged))
        with contextlib.suppress(InputError):
            ArrayData(path)


def test_an_archive_without_a_training_set_is_refused(tmp_path):
    np.savez(tmp_path / "data.npz", a=np.zeros((2, 2)), b=np.zeros((2, 2)))
    with pytest.raises(InputError, match=r"train: the \.npz file must hold one array, or one named 'train', got \['a', 'b'\]"):
        ArrayData(tmp_path / "data.npz")
    np.savez(tmp_path / "data.npz", test=np.zeros((2, 2)))
    with pytest.raises(InputError, match="train"):
        ArrayData(tmp_path / "data.npz")


def test_a_data_set_of_ones_own_is_one_method():
    class Coins(DataModule):
        def read(self) -> Splits:
            return Splits(np.eye(9), test=np.eye(9)[:2])

    data = Coins(batch_size=2)
    assert data.image_shape == (1, 3, 3)
    assert len(data.test_dataloader()) == 1
    assert data.config["init_args"] == {"batch_size": 2}
    with pytest.raises(InputError, match="'valid' is missing: this Coins has only train, test"):
        data.val_dataloader()


# Other binarizations of MNIST -------------------------------------------------------------------------------------------------


def test_the_fields_text_files_are_read(tmp_path):
    parts = write_amat(tmp_path)
    for data in (BinarizedMNIST(path=tmp_path), data_module(str(tmp_path))):
        for name, part in parts.items():
            assert np.array_equal(data.split(name).numpy(), part)


def test_another_binarization_is_read_packed_and_plain(tmp_path):
    parts = {name: (np.random.default_rng(0).random((4, 784)) < 0.3).astype(np.uint8) for name in ("train", "valid", "test")}
    np.savez(tmp_path / "plain.npz", **parts)
    np.savez(tmp_path / "packed.npz", **{name: np.packbits(part, axis=1) for name, part in parts.items()})
    for data in (BinarizedMNIST(path=tmp_path / "plain.npz"), BinarizedMNIST(path=tmp_path / "packed.npz")):
        assert np.array_equal(data.split("train").numpy(), parts["train"])
    assert isinstance(data_module(tmp_path / "packed.npz"), BinarizedMNIST)


@pytest.mark.parametrize(
    "line",
    ["0 " * 783, "0 " * 785, "0 " * 783 + "2", "0 " * 783 + "x", "0 " * 783 + "0.5", "0" * 784, "01 " * 392, "0 " * 783 + "-1"],
)
def test_bad_text_files_are_refused(tmp_path, line):
    write_amat(tmp_path)
    with (tmp_path / "binarized_mnist_valid.amat").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match=r"path: line 4 of .*binarized_mnist_valid\.amat must be 784 zeros and ones"):
        BinarizedMNIST(path=tmp_path)


def test_missing_empty_and_unfit_binarizations_are_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        BinarizedMNIST(path=tmp_path / "none.npz")
    with pytest.raises(InputError, match=r"binarized_mnist_train\.amat, which does not exist"):
        BinarizedMNIST(path=tmp_path)
    write_amat(tmp_path)
    (tmp_path / "binarized_mnist_test.amat").write_text("\n\n")
    with pytest.raises(InputError, match="no lines"):
        BinarizedMNIST(path=tmp_path)
    path = tmp_path / "data.npz"
    zeros = np.zeros((2, 784), np.uint8)
    for arrays, message in (
        ({"train": zeros}, "lacks valid, test"),
        ({"train": zeros, "valid": zeros, "test": zeros + 0.5}, "must hold only 0 and 1"),
        ({"train": zeros, "valid": zeros, "test": zeros[:, :5]}, r"must be \[N, 784\]"),
    ):
        np.savez(path, **arrays)
        with pytest.raises(InputError, match=message):
            BinarizedMNIST(path=path)


# Grey levels ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [MNIST, FashionMNIST])
def test_idx_files_are_read_split_and_drawn_afresh(tmp_path, cls):
    train, _ = write_mnist(tmp_path, cls.__name__)
    data = cls(tmp_path, batch_size=50)
    assert [len(data.split(name)) for name in ("train", "valid", "test")] == [50, 10, 10]
    assert data.image_shape == (1, 28, 28)
    torch.testing.assert_close(data.mean, torch.from_numpy(train[:50].reshape(50, -1) / 255).mean(0).float())
    loader = data.train_dataloader()
    one, two = torch.cat(list(loader)), torch.cat(list(loader))
    assert set(one.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(one.sum(0), two.sum(0))
    assert torch.equal(data.split("valid"), cls(tmp_path, seed=9).split("valid"))


def test_static_mnist_is_drawn_once(tmp_path):
    write_mnist(tmp_path)
    data = MNIST(tmp_path, dynamic=False, batch_size=50)
    loader = data.train_dataloader()
    one, two = torch.cat(list(loader)), torch.cat(list(loader))
    assert torch.equal(one.sum(0), two.sum(0))
    assert torch.equal(data.split("train"), MNIST(tmp_path, dynamic=False).split("train"))
    torch.testing.assert_close(data.mean, data.split("train").float().mean(0))


def test_missing_and_truncated_idx_files_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"root must hold the four unpacked IDX files of MNIST.*download=True fetches them"):
        MNIST(tmp_path).setup()
    write_mnist(tmp_path)
    file = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(InputError, match="root must hold"):
        MNIST(tmp_path).setup()


def write_omniglot(path: Path, train: int = 100, test: int = 20) -> tuple[np.ndarray, np.ndarray]:
    scipy_io = pytest.importorskip("scipy.io")
    generator = np.random.default_rng(0)
    images, tests = (generator.random((count, 28, 28)) for count in (train, test))
    # MATLAB's order: an image's pixels column by column, an image a column.
    columns = [np.stack([image.flatten(order="F") for image in part], axis=1) for part in (images, tests)]
    scipy_io.savemat(path, {"data": columns[0], "testdata": columns[1]})
    return images, tests


def test_omniglot_stands_upright_and_is_split_in_proportion(tmp_path):
    images, tests = write_omniglot(tmp_path / "chardata.mat")
    data = Omniglot(tmp_path / "chardata.mat", dynamic=True, batch_size=10)
    assert [len(data.split(name)) for name in ("train", "valid", "test")] == [94, 6, 20]
    torch.testing.assert_close(data.mean, torch.from_numpy(images[:94].mean(0)).reshape(784).float())
    assert data.image_shape == (1, 28, 28)
    z = (data.split("test").numpy() - tests.reshape(20, 784)).sum() / np.sqrt((tests * (1 - tests)).sum())
    assert abs(z) < 4.5


def test_static_omniglot_is_drawn_once_and_dynamic_afresh(tmp_path):
    write_omniglot(tmp_path / "chardata.mat")
    for dynamic in (False, True):
        loader = Omniglot(tmp_path / "chardata.mat", dynamic).train_dataloader()
        one, two = torch.cat(list(loader)), torch.cat(list(loader))
        assert set(one.unique().tolist()) == {0.0, 1.0}
        assert torch.equal(one.sum(0), two.sum(0)) is not dynamic
    static = data_module(tmp_path / "chardata.mat")
    assert torch.equal(static.split("train"), Omniglot(tmp_path / "chardata.mat", seed=4).split("train"))


def test_bad_omniglot_files_are_refused(tmp_path, monkeypatch):
    scipy_io = pytest.importorskip("scipy.io")
    path = tmp_path / "chardata.mat"
    with pytest.raises(InputError, match="does not exist"):
        Omniglot(path)
    write_omniglot(path)
    content = path.read_bytes()
    for damaged in (b"", b"hello", content[:1000], content[:-10]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"path.*chardata\.mat"):
            Omniglot(path)
    for arrays, message in (
        ({"data": np.zeros((784, 30))}, "testdata in .* got nothing"),
        ({"data": np.zeros((30, 784)), "testdata": np.zeros((784, 3))}, r"must be \[784, N\], got \[30, 784\]"),
        ({"data": np.full((784, 30), 255.0), "testdata": np.zeros((784, 3))}, "values in"),
    ):
        scipy_io.savemat(path, arrays)
        with pytest.raises(InputError, match=message):
            Omniglot(path)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(InputError, match=re.escape("pip install discrete-vae[omniglot]")):
        Omniglot(path)


# What a source means ----------------------------------------------------------------------------------------------------------


def test_a_source_becomes_a_data_module(tmp_path, bundled):
    assert isinstance(data_module(), BinarizedMNIST)
    assert isinstance(data_module("bundled"), BinarizedMNIST)
    assert data_module(bundled) is bundled
    assert torch.equal(data_module(bundled_folder("data") / "binarized_mnist.npz").split("test"), bundled.split("test"))
    np.save(tmp_path / "x.npy", np.eye(4))
    assert torch.equal(load_split(tmp_path / "x.npy", "train"), torch.eye(4, dtype=torch.uint8))
    assert torch.equal(load_split(np.eye(4), "train"), torch.eye(4, dtype=torch.uint8))


def test_a_data_module_is_rebuilt_from_its_config(tmp_path):
    np.save(tmp_path / "x.npy", numbered(8).numpy())
    data = ArrayData(tmp_path / "x.npy", batch_size=3, valid_fraction=0.25)
    for again in (data_module(data.config), instantiate(data.config, DataModule, "data")):
        assert again.batch_size == 3
        assert torch.equal(again.split("valid"), data.split("valid"))


def test_sources_that_mean_nothing_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"data must be a file, got .*, which does not exist"):
        data_module(tmp_path / "none.npz")
    with pytest.raises(InputError, match="data must be a data module"):
        data_module(3)
    (tmp_path / "x.txt").write_text("0,1\n")
    with pytest.raises(InputError, match=r"\.npz or \.npy"):
        data_module(tmp_path / "x.txt")
    with pytest.raises(InputError, match="outside dvae"):
        data_module({"class_path": "os.path.join", "init_args": {}})
    with pytest.raises(InputError, match=r"train was given as an object of type numpy\.ndarray"):
        data_module(ArrayData(np.eye(4)).config)
    with pytest.raises(InputError, match="split 'test' is missing"):
        load_split(np.eye(4), "test")


def test_a_fixed_draw_leaves_zeros_and_ones_alone():
    values = torch.tensor([[0.0, 1.0, 0.5]]).repeat(1000, 1)
    drawn = binarize(values, 0)
    assert drawn.dtype == torch.uint8
    assert drawn[:, 0].sum() == 0
    assert drawn[:, 1].sum() == 1000
    assert abs(drawn[:, 2].sum().item() - 500) < 4.5 * math.sqrt(250)


@pytest.mark.parametrize("seed", [3, [3, 4]])
@pytest.mark.parametrize("dynamic", [False, True])
def test_batches_that_threads_read_are_those_that_are_cut_one_by_one(seed, dynamic):
    numbers = torch.rand(131, 6, generator=torch.Generator().manual_seed(0))
    options = {"batch_size": 2, "shuffle": True, "seed": seed, "dynamic": dynamic}
    plain, ahead = TensorLoader(numbers, **options), TensorLoader(numbers, **options, workers=1)
    for loader in (plain, ahead):
        loader.load_state_dict({"epoch": 1, "batch": 3})
    ours, theirs = list(plain), list(ahead)
    assert len(ours) == 63  # and a smaller last one
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_batch_is_a_tensor_of_its_own():
    numbers = torch.ones(8, 6)
    first, second = TensorLoader(numbers, batch_size=4)
    first.zero_()
    assert numbers.all()
    assert second.all()
    assert first.untyped_storage().nbytes() == 4 * first.numel()
