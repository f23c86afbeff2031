"""Damaged and hostile files: each ends in one sentence, in bounded time and memory, and nothing in them is ever executed."""

import copy
import io
import os
import pickle
import resource
import time
import zipfile

import numpy as np
import pytest
import torch
import yaml
from scipy.io import savemat

import dvae
from dvae import DiscreteVAE, InputError
from dvae.cli import main
from dvae.config import check_yaml
from dvae.data import ArrayData, Omniglot
from dvae.lab.evaluate import open_model
from dvae.training.checkpoints import load_model

FEW, MANY = 60, 520
_SECONDS, _MEGABYTES = 20, 1500


class Bomb:
    """Unpickling it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """The bytes cut, flipped, overwritten, shifted or doubled somewhere."""
    kind = rng.integers(7)
    data = bytearray(content)
    at = int(rng.integers(len(data)))
    length = int(rng.integers(1, 200))
    if kind == 0:
        return bytes(data[:at])
    if kind == 1:
        for place in rng.integers(len(data), size=int(rng.integers(1, 20))):
            data[place] ^= 1 << int(rng.integers(8))
        return bytes(data)
    if kind == 2:
        data[at : at + length] = rng.bytes(len(data[at : at + length]))
        return bytes(data)
    if kind == 3:
        data[at : at + length] = bytes(len(data[at : at + length]))
        return bytes(data)
    if kind == 4:
        return bytes(data[:at] + rng.bytes(length) + data[at:])
    if kind == 5:
        del data[at : at + length]
        return bytes(data)
    return bytes(data + data[at:])


VALUES = [
    None, True, -1, 0, 1e300, float("nan"), float("inf"), 10**30, "", "x" * 10_000, "os.system", "../../etc", [], [[]], {},
    {"class_path": 3}, {"class_path": "os.system", "init_args": {"command": "touch owned"}}, {"class_path": "dvae.estimators.NO"},
    {"class_path": "dvae.cli.os"}, {"class_path": "dvae.estimators.RELAX", "init_args": [1]}, {"given_as": "x"}, [1, "a", None],
]  # fmt: skip


def altered(content, rng: np.random.Generator):
    """A copy of a nested mapping with one value replaced, removed or renamed, anywhere in it."""
    content = copy.deepcopy(content)
    node = content
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = keys[int(rng.integers(len(keys)))]
        below = node[key]
        if isinstance(below, (dict, list)) and len(below) and rng.random() < 0.8:
            node = below
            continue
        kind = rng.integers(4)
        if kind == 0 and isinstance(node, dict):
            del node[key]
        elif kind == 1 and isinstance(node, dict):
            node[rng.bytes(4).hex()] = node.pop(key)
        else:
            node[key] = VALUES[int(rng.integers(len(VALUES)))]
        return content


def check(call, path, *, harmless=True):
    """Run it: an InputError of one sentence, or no error at all; within time and memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    try:
        call()
    except InputError as error:
        message = str(error)
        assert "\n" not in message.strip()
        assert 10 < len(message) < 1500
        outcome = "refused"
    else:
        assert harmless
        outcome = "harmless"
    assert time.process_time() - start < _SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < _MEGABYTES * 1024
    return outcome


def tally(kind: str, outcomes: list[str]) -> None:
    print(f"{kind}: {len(outcomes)} tried, " + ", ".join(f"{outcomes.count(each)} {each}" for each in sorted(set(outcomes))))
    assert outcomes.count("refused") > len(outcomes) / 4


many = pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])


# Arrays ---------------------------------------------------------------------------------------------------------------------


def hostile_npz(rng: np.random.Generator, folder) -> bytes:
    """An .npz whose parts are wrong rather than its bytes."""
    kind = int(rng.integers(9))
    good = (rng.random((12, 16)) < 0.3).astype(np.uint8)
    buffer = io.BytesIO()
    if kind == 0:
        np.savez(buffer, train=np.array([Bomb(folder / "owned"), 1], dtype=object))
    elif kind == 1:
        np.savez(buffer, train=good * rng.choice([-1.0, 2.0, np.nan, np.inf]) + 0.0)
    elif kind == 2:
        np.savez(buffer, train=good.reshape(-1)[: int(rng.integers(3))])
    elif kind == 3:
        np.savez(buffer, train=good.astype(rng.choice(["complex64", "S3", "M8[s]", "U2"])))
    elif kind == 4:
        np.savez(buffer, **{rng.bytes(3).hex(): good, rng.bytes(3).hex(): good})
    elif kind == 5:
        np.savez(buffer, train=good, test=good[:, : int(rng.integers(1, 16))])
    else:
        header = io.BytesIO()
        shape = {6: (10**12, 16), 7: (-5, 16), 8: (2**31, 2**31)}[kind]
        np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": shape})
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("train.npy", header.getvalue() + good.tobytes())
    return buffer.getvalue()


@many
def test_arrays(count, tmp_path):
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, train=(rng.random((50, 16)) < 0.3), test=(rng.random((20, 16)) < 0.3))
    path, outcomes = tmp_path / "data.npz", []
    for index in range(count):
        path.write_bytes(damaged(buffer.getvalue(), rng) if index % 2 else hostile_npz(rng, tmp_path))
        outcomes.append(check(lambda: ArrayData(path).split("train"), path))
    assert not (tmp_path / "owned").exists()
    tally("npz", outcomes)


def test_an_array_that_unpacks_to_more_than_there_is_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("dvae.data.arrays._MAX_BYTES", 10_000)
    np.savez_compressed(tmp_path / "bomb.npz", train=np.zeros((1000, 16)))
    with pytest.raises(InputError, match="must hold at most 10000 bytes, it unpacks to"):
        ArrayData(tmp_path / "bomb.npz")


@many
def test_matlab_files(count, tmp_path):
    rng = np.random.default_rng(1)
    images = {name: (rng.random((784, 30)) < 0.3).astype(np.float64) for name in ("data", "testdata")}
    path, outcomes = tmp_path / "chardata.mat", []
    for index in range(count):
        content = dict(images)
        if index % 2 == 0:
            key = "data" if rng.random() < 0.5 else "testdata"
            content[key] = [
                images[key] * 3, images[key][:5], np.array(["a", "b"]), {"x": 1}, images[key] * np.nan, images[key] + 1j,
                np.array([str(tmp_path / "owned"), 1], dtype=object),
            ][int(rng.integers(7))]  # fmt: skip
        buffer = io.BytesIO()
        savemat(buffer, content, do_compression=bool(rng.integers(2)))
        path.write_bytes(damaged(buffer.getvalue(), rng) if index % 2 else buffer.getvalue())
        outcomes.append(check(lambda: Omniglot(path).split("train"), path))
    assert not (tmp_path / "owned").exists()
    tally("mat", outcomes)


# Checkpoints ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Small checkpoints with every kind of content: of one model, and of two replicas."""
    import pytorch_lightning as pl

    folder = tmp_path_factory.mktemp("checkpoint")
    images = (torch.rand(30, 16, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    np.savez(folder / "images.npz", train=images.numpy(), valid=images.numpy(), test=images.numpy())
    schedule = {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 5}}
    model = DiscreteVAE(dvae.estimators.RELAX(hidden=4), num_pixels=16, num_latents=3, lr_scheduler=schedule, seed=0)
    for name, module in {"model": model, "replicas": dvae.replicate(model, 2)}.items():
        run = pl.Trainer(
            max_steps=3,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
        )
        run.fit(module, ArrayData(folder / "images.npz", batch_size=10))
        run.save_checkpoint(folder / f"{name}.ckpt")
    return folder


@pytest.fixture
def checkpoint(checkpoints):
    return checkpoints / "model.ckpt"


@many
@pytest.mark.parametrize(("kind", "replica"), [("model", None), ("replicas", 1)])
def test_checkpoints(count, kind, replica, checkpoints, tmp_path):
    rng, checkpoint = np.random.default_rng(2), checkpoints / f"{kind}.ckpt"
    good = torch.load(checkpoint, weights_only=True)
    tensors = {name: good.pop(name) for name in ("state_dict",)}
    path, outcomes = tmp_path / "model.ckpt", []
    for index in range(count):
        if index % 3 == 0:
            path.write_bytes(damaged(checkpoint.read_bytes(), rng))
        else:
            part = "hyper_parameters" if index % 3 == 1 and replica is None else "dvae"
            content = {**good, part: altered(good[part], rng), "state_dict": dict(tensors["state_dict"])}
            if rng.random() < 0.3:
                name = list(content["state_dict"])[int(rng.integers(len(content["state_dict"])))]
                content["state_dict"][name] = [None, torch.zeros(2, 3), "x", 3, torch.zeros(0)][int(rng.integers(5))]
            torch.save(content, path)
        outcomes.append(check(lambda: open_model(path, replica=replica)[1].split("test"), path))
    assert not os.path.exists("owned")
    tally(f"checkpoints ({kind})", outcomes)


def test_pickled_code_in_a_checkpoint_is_not_run(checkpoint, tmp_path):
    good = torch.load(checkpoint, weights_only=True)
    for content in (Bomb(tmp_path / "owned"), {**good, "dvae": Bomb(tmp_path / "owned")}):
        torch.save(content, tmp_path / "bomb.ckpt")
        with pytest.raises(InputError, match="holds pickled code, which is never executed"):
            load_model(tmp_path / "bomb.ckpt", trust=True)
        (tmp_path / "plain.ckpt").write_bytes(pickle.dumps(content))
        with pytest.raises(InputError, match=r"plain\.ckpt (holds pickled code|is damaged)"):
            load_model(tmp_path / "plain.ckpt", trust=True)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("place", ["model", "estimator", "latent", "data"])
def test_a_class_from_elsewhere_is_imported_only_with_trust(place, checkpoint, tmp_path, monkeypatch):
    """The module's import would make a file; so would a module that only looks like the package's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("elsewhere", "dvae_evil"):
        (tmp_path / f"{name}.py").write_text("import pathlib\npathlib.Path('owned').touch()\n")
        good = torch.load(checkpoint, weights_only=True)
        path = f"{name}.Thing"
        if place == "model":
            good["dvae"]["class_path"] = path
        elif place == "data":
            good["dvae"]["data"] = {"class_path": path, "init_args": {}}
        else:
            good["hyper_parameters"][place] = path if place == "latent" else {"class_path": path, "init_args": {}}
        torch.save(good, tmp_path / "foreign.ckpt")
        with pytest.raises(InputError, match=rf"classes outside dvae \({name}\.Thing\)"):
            open_model(tmp_path / "foreign.ckpt")
        assert not (tmp_path / "owned").exists()


def relax(**arguments) -> dict:
    return {"estimator": {"class_path": "dvae.estimators.RELAX", "init_args": arguments}}


def mlp(n_in: int, n_out: int, hidden: list[int]) -> dict:
    return {"class_path": "dvae.networks.MLP", "init_args": {"in_features": n_in, "out_features": n_out, "hidden": hidden}}


HUGE = {
    "a million layers": {"num_layers": 10**6},
    "a billion layers": {"num_layers": 10**9},
    "900 layers": {"num_layers": 900},
    "a deep control variate": relax(hidden=4, depth=10**6),
    "a wide control variate": relax(hidden=10**6, depth=2),
    "a wider one than there is memory": relax(hidden=10**9, depth=2),
    "many latents": {"num_latents": 10**7},
    "more latents than there is memory": {"num_latents": 10**12},
    "many classes": {"latent": "Categorical", "num_classes": 10**7},
    "many pixels": {"num_pixels": 10**8},
    "many pixels for an encoder of its own": {"num_pixels": 10**10, "encoder": mlp(16, 3, [4])},
    "a large image": {"num_pixels": None, "image_shape": [1, 10**5, 10**5], "encoder": mlp(16, 3, [4])},
    "a wide encoder": {"encoder": mlp(16, 3, [10**5, 10**5])},
    "a deep encoder": {"encoder": mlp(16, 3, [1] * 10**5)},
    "a wide baseline": {"estimator": {"class_path": "dvae.estimators.NVIL", "init_args": {"hidden": [10**8]}}},
    "a wide convolution": {"encoder": {"class_path": "dvae.networks.ConvEncoder", "init_args": {"channels": 10**5}}},
}


@pytest.mark.parametrize("replica", [None, 1])
@pytest.mark.parametrize("name", HUGE)
def test_a_model_larger_than_its_file_is_refused_at_once(name, replica, checkpoints, tmp_path):
    good = torch.load(checkpoints / ("model.ckpt" if replica is None else "replicas.ckpt"), weights_only=True)
    (good if replica is None else good["dvae"]["replicas"][replica])["hyper_parameters"] |= HUGE[name]
    torch.save(good, tmp_path / "huge.ckpt")
    start = time.process_time()
    assert check(lambda: load_model(tmp_path / "huge.ckpt", replica=replica), tmp_path) == "refused"
    assert time.process_time() - start < 4
    assert not torch.nn.modules.module._global_parameter_registration_hooks


def test_a_tensor_that_repeats_one_value_is_not_written_out(checkpoints, tmp_path):
    good = torch.load(checkpoints / "replicas.ckpt", weights_only=True)
    good["state_dict"]["models.1.mean"] = torch.zeros(1).expand(10**11)
    torch.save(good, tmp_path / "huge.ckpt")
    with pytest.raises(InputError, match=r"models\.1\.mean has 100000000000 values, of which the file holds few"):
        load_model(tmp_path / "huge.ckpt", replica=1)


# Configs --------------------------------------------------------------------------------------------------------------------


def failure_or_success(arguments, capsys) -> str:
    try:
        status = main(arguments)
    except SystemExit as stop:
        status = stop.code
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return "refused" if status else "harmless"


@many
def test_configs(count, checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(3)
    good = {
        "name": "hostile",
        "trainer": {"max_steps": 1, "accelerator": "cpu", "callbacks": [], "log_every_n_steps": 1, "num_sanity_val_steps": 0},
        "model": {
            "num_pixels": 16,
            "num_latents": 3,
            "lr": 0.01,
            "betas": [0.9, 0.999],
            "estimator": {"class_path": "dvae.estimators.RELAX", "init_args": {"hidden": 4, "depth": 1}},
        },
        "data": {
            "class_path": "dvae.data.ArrayData",
            "init_args": {"train": str(checkpoint.parent / "images.npz"), "batch_size": 10},
        },
    }
    fixed = ["--trainer.max_steps=1", "--trainer.limit_val_batches=0", "--trainer.enable_progress_bar=false"]
    outcomes = []
    for index in range(count):
        path = tmp_path / f"config{index}.yaml"
        text = yaml.safe_dump(altered(good, rng) if index % 2 else good).encode()
        path.write_bytes(text if index % 2 else damaged(text, rng))
        start = time.process_time()
        outcomes.append(failure_or_success(["fit", f"--config={path}", *fixed, f"--runs={tmp_path / 'runs'}"], capsys))
        assert time.process_time() - start < _SECONDS, path.read_text()
    assert not (tmp_path / "owned").exists()
    tally("configs", outcomes)


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(12)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LAUGHS, "at most 100000 values with its aliases written out"),
        ("a: &a [*a]", "at most 100000 values with its aliases written out, got inf"),
        ("[" * 5000, "is not YAML"),
        ("a: " * 5000, "is not YAML"),
        ("x" * 2**21, "at most 1048576 bytes"),
        ("- 1\n- 2", "must be a mapping of settings, got list"),
        ("a: !!python/object/apply:os.system ['touch owned']", "is not YAML: could not determine a constructor"),
        (b"\xff\xfe\x00", "cannot be read as text"),
    ],
)
def test_yaml_that_would_take_all_memory_or_run_code_is_refused(content, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "config.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    start = time.process_time()
    with pytest.raises(InputError, match=message):
        check_yaml(path)
    assert failure_or_success(["fit", f"--config={path}"], capsys) == "refused"
    assert time.process_time() - start < 10
    assert not (tmp_path / "owned").exists()
