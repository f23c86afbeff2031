"""A few small sweeps, each trained on one process or, run as a script under Lightning's launcher, on several.

``python apart.py JOBS``, a file with a list of functions of this file and their arguments, runs them one after another.

Parameters and batches fill whole registers of the processor: otherwise PyTorch computes the last few elements with scalar code,
which rounds differently, and which elements these are depends on how many models are side by side.
"""

import json
import sys
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

import dvae
from dvae.data import ArrayData
from dvae.errors import NonFiniteError
from dvae.estimators import LOO, NVIL, REBAR, RELAX
from dvae.training.callbacks import BestCheckpoint, Pictures, VarianceMonitor

TINY = {"num_pixels": 16, "num_latents": 16, "lr": 0.01, "val_num_samples": 10}
COSINE = {"class_path": "torch.optim.lr_scheduler.CosineAnnealingLR", "init_args": {"T_max": 40}}
CYCLE = {"class_path": "torch.optim.lr_scheduler.OneCycleLR", "init_args": {"max_lr": 0.01, "total_steps": 80}}


class Breaks(dvae.DiscreteVAE):
    """Its loss is not a number from the step on that a buffer says."""

    def __init__(self, estimator=None, last=1000.0, **options):
        super().__init__(estimator, **options)
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("last", torch.tensor(last))

    def objective(self, terms):
        if self.training:
            self.count = self.count + 1
        return terms.elbo + torch.where(self.count > self.last, torch.log(self.last * 0 - 1), 0 * self.last)


def breaking(*last):
    models = []
    for index, own in enumerate(last):
        torch.manual_seed(index)
        models.append(Breaks(LOO(), own, **TINY, seed=index))
    return dvae.Replicas(models)


def sweep():
    """Learning rates, a phi that starts first, a schedule, blocks of steps."""
    options = {"phi_warmup_steps": 3, "lr_scheduler": COSINE, "weight_decay": 0.01, "steps_per_execution": 5}
    return dvae.replicate(dvae.DiscreteVAE(RELAX(hidden=16), num_layers=2, **TINY, **options), 2, {"lr": [0.01, 0.03]})


def three():
    return dvae.replicate(dvae.DiscreteVAE(REBAR(), gradient_clip_norm=1.0, **TINY), 3)


def two():
    return dvae.replicate(dvae.DiscreteVAE(NVIL(hidden=[16]), lr_scheduler=CYCLE, **TINY), 2)


SWEEPS = {
    "sweep": sweep,
    "three": three,
    "two": two,
    "own loader": three,
    "a process fails": lambda: breaking(8.0, 4.0, 1000.0, 1000.0),
    "all fail": lambda: breaking(8.0, 4.0, 7.0, 3.0),
}


def images():
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(60, 16, generator=generator) < 0.3).float()


def data(name):
    x = images()
    if name == "own loader":
        order = torch.Generator().manual_seed(1)
        train = DataLoader(x[:40], batch_size=16, shuffle=True, generator=order)
        return {"train_dataloaders": train, "val_dataloaders": DataLoader(x[40:], batch_size=5)}
    return {"datamodule": ArrayData(x[:40], x[40:], batch_size=16, eval_batch_size=5, seed=3, dynamic=name == "three")}


def trainer_of(folder, devices, steps):
    folder = Path(folder)
    monitor = {"monitor": "val/elbo", "mode": "max", "enable_version_counter": False}
    return pl.Trainer(
        strategy="ddp" if devices > 1 else "auto",
        devices=devices,
        accelerator="cpu",
        precision="64-true",
        max_steps=steps,
        max_epochs=-1,
        val_check_interval=6,
        check_val_every_n_epoch=None,
        log_every_n_steps=5,
        logger=pl.loggers.CSVLogger(folder.parent, name=folder.name, version=""),
        callbacks=[BestCheckpoint(folder, "best", **monitor), Pictures(4), VarianceMonitor(4, 2)],
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def fit(name, folder, devices=1, steps=20, resume=None):
    """Train a sweep, in float64; leaves ``end.ckpt``, ``best.ckpt``, ``metrics.csv`` and pictures in a folder."""
    pl.seed_everything(0)
    torch.set_num_threads(1)
    trainer, module = trainer_of(folder, devices, steps), SWEEPS[name]()
    try:
        trainer.fit(module, **data(name), ckpt_path=resume, weights_only=True)
    except NonFiniteError as error:
        print(f"process {trainer.global_rank}: {error}", flush=True)
        return
    trainer.save_checkpoint(Path(folder) / "end.ckpt", weights_only=False)


def validate(name, folder, checkpoint, devices=1):
    """Validate the sweep of a checkpoint; the figures are in ``metrics.csv``."""
    pl.seed_everything(0)
    trainer = trainer_of(folder, devices, 1)
    trainer.validate(SWEEPS[name](), **data(name), ckpt_path=checkpoint, weights_only=True, verbose=False)


if __name__ == "__main__":
    for kind, arguments in json.loads(Path(sys.argv[1]).read_text()):
        {"fit": fit, "validate": validate}[kind](**arguments)
