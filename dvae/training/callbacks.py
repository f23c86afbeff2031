"""Lightning callbacks: checkpoints to go on from, numbers that change on a schedule, pictures and variances along a run."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_utilities.core.rank_zero import rank_zero_only, rank_zero_warn
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint, TQDMProgressBar
from torch import Tensor

from dvae.data import x_of
from dvae.errors import InputError, Interrupted
from dvae.files import written_whole
from dvae.models import VAE
from dvae.report.pictures import reconstruction_grid, sample_grid, save_picture
from dvae.training import lightning
from dvae.training.gradient_variance import log_gradient_variance
from dvae.training.measures import Measures
from dvae.training.run import Training
from dvae.training.schedule import RATES, Course, Interpolation, groups_of, require_points_in_range, tensors_of
from dvae.training.single import Trainable
from dvae.training.sweep import models_of

__all__ = ["BestCheckpoint", "LastCheckpoint", "Measures", "Pictures", "ProgressBar", "Schedule", "VarianceMonitor"]


class ProgressBar(TQDMProgressBar):
    """Lightning's progress bar, which counts every batch where one step takes several. Arguments: see ``TQDMProgressBar``."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, lightning.done_batches(trainer))

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        # As text: of numbers the bar shows three digits, -1.44e+3.
        metrics = super().get_metrics(trainer, pl_module)
        return {name: f"{value:.2f}" if isinstance(value, float) else value for name, value in metrics.items()}


class BestCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, which a resumed run does not make forget its best score.

    A run that goes on in a folder of its own takes the best checkpoints so far along. Arguments: see ``ModelCheckpoint``.
    """

    _is_training = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._is_training = stage == "fit"

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        paths = state_dict["best_k_models"]
        if self._is_training and self.dirpath is not None and all(os.path.isfile(path) for path in paths):
            moved = {path: os.path.join(self.dirpath, os.path.basename(path)) for path in paths}
            for path, new in moved.items():
                _copy(path, new)
            renamed = {name: moved.get(state_dict[name], "") for name in ("best_model_path", "kth_best_model_path")}
            scores = {moved[path]: score for path, score in paths.items()}
            state_dict = {**state_dict, **renamed, "best_k_models": scores, "dirpath": self.dirpath, "last_model_path": ""}
        super().load_state_dict(state_dict)


@rank_zero_only
def _copy(path: str, new: str) -> None:
    if path != new:
        with written_whole(new) as temporary:
            shutil.copyfile(path, temporary)


class LastCheckpoint(Checkpoint):
    """Saves ``last.ckpt``, at intervals and where Ctrl-C or SIGTERM stops the run; from it a run goes on as if never stopped.

    All that was logged before is on the disk when it is saved. Where a validation is due, it is saved after that, and where an
    epoch ends, after the first step of the next. A second signal ends the process at once. A warning says where the training loader
    does not keep its place in an epoch.

    Arguments:
        every_n_train_steps: updates from one to the next.

    Raises:
        Interrupted: a signal came; the checkpoint is saved.
    """

    takes_blocks = True  # a block ends where a checkpoint is due

    def __init__(self, every_n_train_steps: int = 1000) -> None:
        if every_n_train_steps < 1:
            raise InputError(f"every_n_train_steps must be at least 1, got {every_n_train_steps}")
        self.every_n_train_steps = every_n_train_steps
        self._path: Path | None = None
        self._step = 0
        self._due = False
        self._received = 0
        self._stop = 0
        self._asked = 0
        self._row: dict[str, float] = {}
        self._places: list[Any] | None = None
        self._handlers: dict[int, Any] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        folder = trainer.log_dir
        self._path = None if folder is None or trainer.fast_dev_run else Path(folder) / "checkpoints" / "last.ckpt"  # type: ignore[attr-defined]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._places = None
        if self._path is not None and not lightning.keeps_its_place(trainer):
            rank_zero_warn(
                f"last.ckpt does not hold the place of {type(trainer.train_dataloader).__name__} in its epoch: a run that goes on "
                "from it sees other batches. The modules of dvae.data and torchdata's StatefulDataLoader keep theirs"
            )
        if self._row:
            step = int(self._row.pop("step"))
            for logger in trainer.loggers:
                logger.log_metrics(self._row, step=step)
            self._row = {}
        if threading.current_thread() is threading.main_thread():
            self._handlers = {signum: signal.signal(signum, self._receive) for signum in (signal.SIGINT, signal.SIGTERM)}

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step:
            return  # accumulated gradients are in no checkpoint
        self._stop = self._agreed(trainer)
        if not (self._stop or self._due or trainer.global_step % self.every_n_train_steps == 0):
            return
        waited, self._due = self._due, True
        if trainer.is_last_batch and not waited:
            return  # resumed from ends of epochs, Lightning (2.6) miscounts them: after the next batch
        if lightning.validates_now(trainer) and not trainer.is_last_batch:
            return  # resumed from here, the run would leave the validation out
        # This step's metrics are logged after this hook: they go into the checkpoint.
        self._row = lightning.logged_row(trainer) or self._row
        self._save(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._due and not trainer.is_last_batch:
            self._save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # A checkpoint that is saved after the run finds its loaders at their start again.
        self._places = lightning.loader_places(trainer)
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)
        self._handlers = {}

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.on_train_end(trainer, pl_module)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._places is not None:
            lightning.put_loader_places(checkpoint, self._places)

    def state_dict(self) -> dict[str, Any]:
        return {"row": self._row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._row = dict(state_dict["row"])

    def _save(self, trainer: pl.Trainer) -> None:
        if self._path is not None:
            for logger in trainer.loggers:
                logger.save()
            trainer.save_checkpoint(self._path, weights_only=False)
        self._row, self._due = {}, False
        if self._stop:
            raise Interrupted(self._stop, trainer.global_step)

    def _receive(self, signum: int, frame: Any) -> None:
        if self._received:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
        self._received = signum
        # What is being done, such as a compilation, may take a while. A handler must not print through buffers.
        os.write(2, f"\n{signal.Signals(signum).name}: stopping after this step, a second one stops at once\n".encode())

    def _agreed(self, trainer: pl.Trainer) -> int:
        """The signal that came to any process, 0 if none did."""
        if trainer.world_size == 1:
            return self._received
        if trainer.global_step - self._asked < 10:
            return 0  # asking the others takes time
        self._asked = trainer.global_step
        received = torch.tensor(self._received, device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(received, reduce_op="max"))


class Schedule(pl.Callback):
    """Drives one number of the model's or of the optimizer's while it is trained, and logs it as ``schedule/NAME``.

    The value is a function of the step alone, so that a resumed run has the same; it takes the place of the model's own argument,
    of all layers and of all replicas. A compiled step sees it.

    Arguments:
        name: ``beta``, ``free_bits`` or ``kl_balance`` (:class:`dvae.VAE`); ``lr`` or ``phi_lr``, the rate of theta or of phi;
            ``estimator.temperature`` or another buffer of one number, by its dotted path, ``estimator`` for that of every layer.
        points: from updates to values, such as ``{0: 0.0, 5000: 1.0}``; after the last one the value stays.
        interpolation: between two points, "linear", "cosine", "exponential" or "step".
        every_n_train_steps: updates from one change of the number to the next; blocks of steps end there.

    Raises:
        InputError: a point is outside of what the number can be, or they are not in order from step 0 on; in training, if there is
            no such number, it is learned, another schedule drives it too, or replicas are to differ in it.
    """

    takes_blocks = True  # a block ends where the number changes

    def __init__(
        self, name: str, points: Mapping[int, float], interpolation: Interpolation = "linear", every_n_train_steps: int = 50
    ) -> None:
        if every_n_train_steps < 1:
            raise InputError(f"every_n_train_steps must be at least 1, got {every_n_train_steps}")
        try:
            self.course = Course(points, interpolation)
            require_points_in_range(name, self.course.values)
        except InputError as error:
            raise InputError(f"schedule of {name}: {error}") from None
        self.name, self.every_n_train_steps = name, every_n_train_steps

    def value(self, global_step: int) -> float:
        """The number in the update after so many."""
        return self.course(global_step - global_step % self.every_n_train_steps)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        if not isinstance(pl_module, Training):
            raise InputError(f"a schedule needs a model of dvae, got {type(pl_module).__name__}")
        callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        if sum(isinstance(other, Schedule) and other.name == self.name for other in callbacks) > 1:
            raise InputError(f"{self.name} must have one schedule, got several")
        first, name = pl_module.models[0], self.name
        if name == "phi_lr" and not first.phi():
            raise InputError(f"phi_lr has nothing to schedule: {type(first.estimators[0]).__name__} learns no parameters")
        if name in RATES and first.lr_scheduler is not None:
            raise InputError(f"{name} must be driven by lr_scheduler or by a schedule, got both: leave one out")
        own = [getattr(model, name) if name in RATES else [float(t) for t in tensors_of(model, name)] for model in pl_module.models]
        if any(value != own[0] for value in own):
            raise InputError(f"{name} must be one for all replicas that a schedule drives, got {own}: leave out one of the two")

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        assert isinstance(pl_module, Training)
        value = self.value(trainer.global_step)
        if self.name in RATES:
            for group in groups_of(trainer.optimizers[0], pl_module.models, self.name):
                group["lr"] = value
        else:
            for model in pl_module.models:
                for tensor in tensors_of(model, self.name):
                    tensor.fill_(value)
        pl_module.log(f"schedule/{self.name}", value)


class Pictures(pl.Callback):
    """After every validation, shows samples and reconstructions to every logger that takes images, and in the run's folder as PNG.

    Of replicas, the first that has not failed.

    Arguments:
        num_images: images in each picture.
    """

    def __init__(self, num_images: int = 64) -> None:
        if num_images < 1:
            raise InputError(f"num_images must be at least 1, got {num_images}")
        self.num_images = num_images

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Lightning broadcasts the folder to all processes: one that does not ask leaves the others waiting.
        folder = trainer.log_dir
        if trainer.sanity_checking or not isinstance(pl_module, Training):
            return
        models = models_of(pl_module)
        pictures = self._of(models[0], trainer) if models and (trainer.is_global_zero or pl_module.apart) else {}
        if pl_module.apart:
            pictures = next(filter(None, lightning.gathered(trainer, pictures)), {})
        if not trainer.is_global_zero:
            return
        for name, picture in pictures.items():
            for logger in trainer.loggers:
                _show(logger, name, picture, trainer.global_step)
            if trainer.logger is not None and folder is not None:
                save_picture(picture, Path(folder) / f"{name}.png")

    def _of(self, model: Trainable, trainer: pl.Trainer) -> dict[str, Tensor]:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if not getattr(data, "are_images", True):
            return {}
        shape = getattr(data, "image_shape", None) or model.image_shape
        generator = torch.Generator().manual_seed(0)
        pictures = {}
        if isinstance(model, VAE):  # what has no prior draws no samples
            pictures["samples"] = sample_grid(model, self.num_images, shape, generator)
        x = _validation_examples(trainer, model, self.num_images // 2)
        if x is not None:
            pictures["reconstructions"] = reconstruction_grid(model, x, shape, generator)
        return pictures


def _show(logger: Any, name: str, picture: Tensor, step: int) -> None:
    """Hand a picture [C, H, W] to a logger, in its own way; nothing where it takes none."""
    experiment: Any = getattr(logger, "experiment", None)
    if hasattr(experiment, "add_image"):  # TensorBoard
        experiment.add_image(name, picture, step)
        return
    pixels = (picture.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    if hasattr(logger, "log_image"):  # Weights & Biases
        logger.log_image(name, [pixels], step=step)
    elif hasattr(experiment, "log_image") and hasattr(logger, "run_id"):  # MLflow
        experiment.log_image(logger.run_id, pixels, artifact_file=f"{name}_{step}.png")
    elif hasattr(experiment, "log_image"):  # Comet
        experiment.log_image(pixels, name=name, step=step)


class VarianceMonitor(pl.Callback):
    """After every validation, logs the log-variance of the gradient on a fixed batch of validation examples; of replicas, the mean.

    Arguments:
        num_draws: draws of the noise.
        batch_size: examples in the batch.
    """

    def __init__(self, num_draws: int = 50, batch_size: int = 24) -> None:
        if num_draws < 2 or batch_size < 1:
            raise InputError(f"num_draws must be at least 2 and batch_size at least 1, got {num_draws} and {batch_size}")
        self.num_draws = num_draws
        self.batch_size = batch_size

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or not isinstance(pl_module, Training):
            return
        models = models_of(pl_module)
        if not isinstance(pl_module.models[0], VAE):
            return  # it estimates no gradient
        x = _validation_examples(trainer, pl_module.models[0], self.batch_size)
        if x is None:
            return
        variances = [log_gradient_variance(model, x, self.num_draws) for model in models]
        if pl_module.apart:
            variances = [own for part in lightning.gathered(trainer, variances) for own in part]
        if variances:
            for name in ("logits", "encoder"):
                mean = fmean(getattr(own, name) for own in variances)
                pl_module.log(f"val/log_variance_{name}", mean, sync_dist=not pl_module.apart)


def _validation_examples(trainer: pl.Trainer, model: Trainable, count: int) -> Tensor | None:
    """The first validation examples, or None where there are none."""
    loaders = trainer.val_dataloaders
    for loader in loaders if isinstance(loaders, (list, tuple)) else [loaders]:
        for batch in loader or ():
            return model.check_input(x_of(batch, model.input_key)[:count].to(model.device))
    return None
