"""Data of any kind: loaders and modules of others, files larger than memory, ready-made modules."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset
from torchdata.stateful_dataloader import StatefulDataLoader

import dvae
from dvae import InputError
from dvae.data import ArrayData, FileStore, ImageFolder, PhotoPatches, SparseCounts, Table, TensorLoader, examples_of
from dvae.lab.codes import encode_labelled
from dvae.lab.variance import compare_variance
from dvae.training.callbacks import LastCheckpoint


def bits(count: int, size: int = 16, seed: int = 0) -> torch.Tensor:
    return (torch.rand(count, size, generator=torch.Generator().manual_seed(seed)) < 0.4).float()


class Foreign(pl.LightningDataModule):
    """As people write them: batches of (image, label), or of dicts, of images [B, C, H, W]."""

    def __init__(self, x: torch.Tensor, named: bool = False):
        super().__init__()
        y = torch.arange(len(x)) % 3
        images = x.reshape(len(x), 1, 4, 4)
        self.rows = [{"image": image, "label": label} for image, label in zip(images, y, strict=True)] if named else None
        self.dataset = self.rows or TensorDataset(images, y)

    def train_dataloader(self):
        return DataLoader(self.dataset, batch_size=7, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.dataset, batch_size=9)

    def test_dataloader(self):
        return DataLoader(self.dataset, batch_size=13)


def small(**options) -> dvae.DiscreteVAE:
    torch.manual_seed(0)
    return dvae.DiscreteVAE(dvae.estimators.LOO(), num_pixels=16, num_latents=4, **options)


def quiet(**options) -> pl.Trainer:
    return pl.Trainer(
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        log_every_n_steps=1,
        **options,
    )


# Loaders of others


def test_figures_do_not_depend_on_who_holds_the_data():
    x, model = bits(237), small()
    ours = dvae.evaluate(model, ArrayData(x, test=x), num_samples=4, num_draws=4)
    for data in (Foreign(x), DataLoader(TensorDataset(x), batch_size=50), DataLoader(x, batch_size=1), [x[:200], x[200:]]):
        theirs = dvae.evaluate(model, data, num_samples=4, num_draws=4)
        assert theirs.num_examples == 237
        for name in ("elbo", "importance_weighted_bound", "reconstruction", "kl"):
            assert getattr(theirs, name).mean == pytest.approx(getattr(ours, name).mean, abs=1e-6)
        assert theirs.active_units == ours.active_units
        assert theirs.log_variance_encoder == pytest.approx(ours.log_variance_encoder, abs=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("named", [False, True])
def test_a_module_of_anothers_is_trained_on_encoded_and_compared(named):
    data, model = Foreign(bits(60), named), small(input_key="image" if named else None)
    quiet(max_steps=12).fit(model, data)
    assert model.mean_is_set
    torch.testing.assert_close(model.mean, bits(60).mean(0))
    codes, labels = encode_labelled(model, data)
    assert codes.shape == (60, 4)
    assert labels.tolist() == [index % 3 for index in range(60)]
    reports = compare_variance(model, data, ["LOO"], num_draws=20, phi_steps=2)
    assert reports[0].estimator == "LOO"


@pytest.mark.filterwarnings("ignore")
def test_batches_whose_x_is_not_named_are_refused_with_their_parts():
    with pytest.raises(InputError, match="input_key must say which part of a batch is x, one of image, label, got None"):
        quiet(max_steps=1).fit(small(), Foreign(bits(20), named=True))
    with pytest.raises(InputError, match="input_key must be an index of a batch of 2 parts, got 2"):
        quiet(max_steps=1).fit(small(input_key=2), Foreign(bits(20)))
    with pytest.raises(InputError, match="x must be a tensor in every batch, got str"):
        dvae.data.x_of({"x": "text"}, "x")


@pytest.mark.filterwarnings("ignore")
def test_another_size_than_the_datas_is_told_with_the_arguments_that_mend_it():
    with pytest.raises(InputError, match=r"build the model with num_pixels=48 or image_shape=\(3, 4, 4\)"):
        quiet(max_steps=1).fit(small(), ArrayData(torch.zeros(10, 3, 4, 4)))


@pytest.mark.filterwarnings("ignore")
def test_values_that_do_not_fit_are_told_before_the_first_step():
    with pytest.raises(InputError, match=r"DiscretizedLogistic for 8-bit images or NegativeBinomial for counts .*divide_by=255"):
        quiet(max_steps=1).fit(small(), ArrayData(torch.randint(256, (20, 16))))
    with pytest.raises(InputError, match="under Bernoulli: take likelihood=Normal for real numbers"):
        quiet(max_steps=1).fit(small(), ArrayData(torch.randn(20, 16)))


# Going on where it stopped


def weights_after(loader, folder: Path, steps: int, checkpoint: Path | None = None) -> tuple[torch.Tensor, Path]:
    model = small(lr=0.05)
    trainer = pl.Trainer(
        max_steps=steps,
        logger=False,
        default_root_dir=folder,
        callbacks=[LastCheckpoint(every_n_train_steps=1)],
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    trainer.fit(model, loader, ckpt_path=checkpoint, weights_only=True)
    path = folder / "checkpoints" / "last.ckpt"
    trainer.save_checkpoint(path)
    return model.encoders[0].layers[0].weight.detach().clone(), path


@pytest.mark.filterwarnings("ignore")
def test_a_stateful_loader_with_workers_resumes_to_the_same_bits(tmp_path):
    def loader():
        return StatefulDataLoader(TensorDataset(bits(40)), batch_size=5, num_workers=2)

    whole, _ = weights_after(loader(), tmp_path / "whole", 11)
    _, checkpoint = weights_after(loader(), tmp_path / "half", 5)
    resumed, _ = weights_after(loader(), tmp_path / "resumed", 11, checkpoint)
    assert torch.equal(resumed, whole)


def test_a_loader_that_keeps_no_place_is_told_beforehand(tmp_path):
    with pytest.warns(UserWarning, match="does not hold the place of DataLoader in its epoch"):
        weights_after(DataLoader(TensorDataset(bits(40)), batch_size=5, shuffle=True), tmp_path, 2)


# Files larger than memory


@pytest.fixture
def file(tmp_path) -> Path:
    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(0, 256, (50, 3, 4, 4), dtype=np.uint8))
    return tmp_path / "images.npy"


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_gives_the_batches_of_the_array_in_it(file, packed):
    array = np.load(file)
    if packed:
        np.savez(file.with_suffix(".npz"), train=array, train_labels=np.arange(50))
        file = file.with_suffix(".npz")
    held, read = ArrayData(array, batch_size=8), ArrayData(file, in_memory=False, batch_size=8, workers=2)
    assert read.image_shape == held.image_shape == (3, 4, 4)
    assert not read.in_memory
    for one, other in zip(held.train_dataloader(), read.train_dataloader(), strict=True):
        assert torch.equal(one, other)
    torch.testing.assert_close(read.mean, held.mean)
    torch.testing.assert_close(read.std, held.std)
    assert torch.equal(read.examples("train").first(9).float(), held.split("train")[:9].float())
    if packed:
        assert read.labels("train").tolist() == list(range(50))
    with pytest.raises(InputError, match="split 'train' is not in memory"):
        read.split("train")


def test_a_share_of_a_file_is_held_out(file):
    data = ArrayData(file, in_memory=False, valid_fraction=0.2)
    assert [len(data.examples(name).store) for name in ("train", "valid")] == [40, 10]


def test_files_that_cannot_be_read_row_by_row_are_refused(tmp_path):
    np.savez_compressed(tmp_path / "small.npz", train=np.zeros((4, 4)))
    with pytest.raises(InputError, match=r"compressed: save it with numpy\.savez or as \.npy"):
        ArrayData(tmp_path / "small.npz", in_memory=False)
    np.save(tmp_path / "turned.npy", np.asfortranarray(np.zeros((4, 4))))
    with pytest.raises(InputError, match="in C order"):
        FileStore(tmp_path / "turned.npy")
    np.save(tmp_path / "cut.npy", np.zeros((4, 4)))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:-1])
    with pytest.raises(InputError, match="is truncated"):
        FileStore(tmp_path / "cut.npy")


TRAIN_ON_A_LARGE_FILE = """
import resource, sys
import numpy as np, pytorch_lightning as pl, torch
import dvae

data = dvae.data.ArrayData(sys.argv[1], in_memory=False, batch_size=64, workers=2)
model = dvae.DiscreteVAE(dvae.estimators.LOO(), num_pixels=data.num_pixels, num_latents=4, likelihood=dvae.likelihoods.Poisson())
trainer = pl.Trainer(max_steps=3, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
trainer.fit(model, data)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
trainer.fit_loop.epoch_loop.max_steps = 150
trainer.fit(model, data)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_memory_does_not_grow_with_the_file(tmp_path):
    """A sparse file of 10 GiB, of which 150 batches are read."""
    path, rows, size = tmp_path / "large.npy", 5 * 2**21, 1024
    with path.open("wb") as out:
        np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": (rows, size)})
        out.truncate(out.tell() + rows * size)
    command = [sys.executable, "-c", TRAIN_ON_A_LARGE_FILE, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout.splitlines()[-1]) < 200


# Ready-made modules


@pytest.fixture
def pictures(tmp_path) -> Path:
    generator = np.random.default_rng(0)
    for name, count in (("cat", 6), ("dog", 4)):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for index in range(count):
            pixels = generator.integers(0, 256, (12 + index, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{index}.png")
    return tmp_path / "pictures"


def test_a_folder_of_images_becomes_squares_with_its_classes_as_labels(pictures):
    data = ImageFolder(pictures, 8, valid_fraction=0.2, test_fraction=0.25)
    assert data.image_shape == (3, 8, 8)
    sizes = {name: len(data.examples(name).store) for name in ("train", "valid", "test")}
    assert sizes == {"train": 6, "valid": 2, "test": 2}
    assert torch.cat([data.labels(name) for name in sizes]).bincount().tolist() == [6, 4]
    x = data.examples("train").first(6)
    assert x.dtype == torch.uint8
    assert x.max() > 200
    held = ImageFolder(pictures, 8, valid_fraction=0.2, test_fraction=0.25, in_memory=True)
    assert torch.equal(held.split("train"), x)


def test_crops_and_flips_are_new_in_every_epoch_and_the_same_for_the_same_seed(pictures):
    def epochs(**options):
        loader = ImageFolder(pictures, 8, random_crop=True, flip=True, batch_size=10, **options).train_dataloader()
        loader.shuffle = False
        return [next(iter(loader)) for _ in range(2)]

    first, second = epochs()
    assert not torch.equal(first, second)
    again, ahead = epochs(workers=0), epochs(in_memory=True)
    assert torch.equal(first, again[0])
    assert torch.equal(second, ahead[1])
    data = ImageFolder(pictures, 8, random_crop=True, flip=True)
    assert torch.equal(data.examples("train").first(10), data.examples("train").first(10))


def test_folders_of_splits_and_flat_folders_are_read(pictures, tmp_path):
    (tmp_path / "split").mkdir()
    (pictures / "cat").rename(tmp_path / "split" / "train")
    (pictures / "dog").rename(tmp_path / "split" / "val")
    data = ImageFolder(tmp_path / "split", 8)
    assert data.split_names == ["train", "valid"]
    assert data.labels("train") is None


def test_what_is_no_image_is_named(pictures, tmp_path):
    (pictures / "cat" / "0.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"0\.png cannot be read as an image"):
        ImageFolder(pictures, 8, in_memory=True).setup()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"path must hold images .* but .*empty has none"):
        ImageFolder(tmp_path / "empty").setup()


def test_photographs_are_split_by_photograph():
    data = PhotoPatches(16, patches=400)
    assert data.image_shape == (3, 16, 16)
    which = [set(data.labels(name).tolist()) for name in ("train", "valid", "test")]
    assert [len(own) for own in which] == [7, 1, 2]
    assert not which[0] & which[1]
    assert not which[0] & which[2]
    x = data.split("train").float()
    assert 60 < x.mean() < 200
    neighbours = torch.corrcoef(
        torch.stack([x.reshape(-1, 3, 16, 16)[..., :-1].flatten(), x.reshape(-1, 3, 16, 16)[..., 1:].flatten()])
    )
    assert neighbours[0, 1] > 0.9


def test_sparse_counts_are_read_and_their_labels_go_with_them(tmp_path):
    from scipy import sparse

    counts = np.random.default_rng(0).poisson(0.3, (40, 30))
    sparse.save_npz(tmp_path / "counts.npz", sparse.csr_matrix(counts))
    np.save(tmp_path / "labels.npy", np.arange(40))
    data = SparseCounts(tmp_path / "counts.npz", labels=tmp_path / "labels.npy", test_fraction=0.25)
    test = data.examples("test").first(10)
    assert torch.equal(test, torch.from_numpy(counts[data.labels("test").numpy()]))
    torch.testing.assert_close(data.mean, torch.from_numpy(counts[data.labels("train").numpy()]).double().mean(0).float())
    with pytest.raises(InputError, match=r"scipy\.sparse\.save_npz"):
        SparseCounts(tmp_path / "labels.npy").setup()


def test_a_table_has_its_columns_and_the_model_their_units(tmp_path):
    rows = ["height,weight,kind", *(f"{150 + index},{50 + 3 * (index % 7)},{'ab'[index % 2]}" for index in range(40))]
    (tmp_path / "people.csv").write_text("\n".join(rows))
    data = Table(tmp_path / "people.csv", label="kind", valid_fraction=0.25)
    assert data.split("train").shape == (30, 2)
    assert data.names == ["height", "weight"]
    assert torch.cat([data.labels("train"), data.labels("valid")]).bincount().tolist() == [20, 20]
    model = dvae.DiscreteVAE(dvae.estimators.LOO(), num_pixels=2, num_latents=3, likelihood=dvae.likelihoods.Normal())
    quiet(max_steps=2).fit(model, data)
    torch.testing.assert_close(model.likelihood.center, data.split("train").mean(0))
    torch.testing.assert_close(model.likelihood.unit, data.split("train").std(0, correction=0))
    assert "likelihood.unit" in model.state_dict()


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a,b\n1,x\n2,y", {"columns": ["a", "b"]}, "column b must hold numbers, got string"),
        ("a,b\n1,\n2,3", {}, "column b must have a value in every row, but 1 of 2 are missing"),
        ("a,b\n1,2\n2,3", {"columns": ["c"]}, "train must have a column c, got a, b"),
    ],
)
def test_columns_that_are_no_numbers_are_named(tmp_path, text, options, message):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        Table(tmp_path / "x.csv", **options).setup()


def test_parquet_is_read(tmp_path):
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"a": [1.5, 2.5, 3.5], "b": [1, 2, 3]}), tmp_path / "x.parquet")
    assert Table(tmp_path / "x.parquet").split("train").tolist() == [[1.5, 1.0], [2.5, 2.0], [3.5, 3.0]]


def test_an_object_of_hugging_faces_is_read():
    datasets = pytest.importorskip("datasets")
    images = [Image.fromarray(np.full((6, 6, 3), 20 * index, np.uint8)) for index in range(10)]
    dataset = datasets.Dataset.from_dict({"image": images, "label": list(range(10))}, features=None)
    data = dvae.data.HuggingFaceData(dataset, label="label", test_fraction=0.2)
    assert data.image_shape == (3, 6, 6)
    assert data.examples("test").first(2)[:, 0].tolist() == [20 * int(label) for label in data.labels("test")]
    with pytest.raises(InputError, match="column must be one of image, label, got 'pixels'"):
        dvae.data.HuggingFaceData(dataset, "pixels").setup()


def test_paths_become_the_modules_that_read_them(tmp_path, pictures, file):
    (tmp_path / "t.csv").write_text("a\n1\n2")
    kinds = {str(pictures): ImageFolder, str(file): ArrayData, str(tmp_path / "t.csv"): Table}
    assert [type(dvae.data.data_module(path)) for path in kinds] == list(kinds.values())
    assert isinstance(dvae.data.data_module("dvae.data.BinarizedMNIST"), dvae.data.BinarizedMNIST)
    with pytest.raises(InputError, match=r"names classes outside dvae \(elsewhere\.Module\)"):
        dvae.data.data_module("elsewhere.Module")


# Pieces


def test_pieces_do_not_depend_on_the_batches_they_come_in():
    x = torch.arange(50.0)[:, None]
    for size in (1, 7, 50):
        pieces = list(examples_of(list(x.split(size))).pieces(12))
        assert [len(piece.x) for piece in pieces] == [12, 12, 12, 12, 2]
        assert torch.equal(torch.cat([piece.x for piece in pieces]), x)


def test_a_generator_which_would_lose_its_first_batch_is_refused():
    with pytest.raises(InputError, match="data must be gone through more than once, got generator"):
        dvae.evaluate(small(), (x for x in bits(20).split(5)), num_samples=1)


def test_channels_behind_are_turned():
    image = np.random.default_rng(0).random((5, 6, 7, 3)).astype(np.float32)
    data = ArrayData(image)
    assert data.image_shape == (3, 6, 7)
    assert torch.equal(data.split("train").reshape(5, 3, 6, 7), torch.from_numpy(image).permute(0, 3, 1, 2))


def test_bytes_are_divided_as_they_are_cut():
    data = ArrayData(torch.full((4, 4), 51, dtype=torch.uint8), divide_by=255)
    assert torch.allclose(next(iter(data.train_dataloader())), torch.tensor(0.2))
    assert torch.allclose(data.mean, torch.tensor(0.2))


def test_threads_that_read_ahead_change_no_batch():
    x = bits(100)
    plain, ahead = (TensorLoader(x, batch_size=9, shuffle=True, workers=workers) for workers in (0, 3))
    for one, other in zip(plain, ahead, strict=True):
        assert torch.equal(one, other)
    iterator = iter(ahead)
    next(iterator)
    assert ahead.state_dict() == {"epoch": 1, "batch": 1}
