"""Reading checkpoints: plain tensors and plain values, never pickled code."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from dvae.config import class_paths, import_class
from dvae.errors import InputError
from dvae.models import DiscreteVAE

__all__ = ["find_checkpoint", "load_model", "read_checkpoint"]

_TRUSTED = ("dvae.", "torch.nn.", "torch.optim.lr_scheduler.")


def find_checkpoint(path: str | Path) -> Path:
    """A checkpoint file; in a folder, the newest ``best.ckpt`` below it, or else the newest ``last.ckpt``.

    Raises:
        InputError: there is none.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise InputError(f"checkpoint {path} does not exist")
    for name in ("best.ckpt", "last.ckpt", "*.ckpt"):
        found = sorted(path.rglob(name), key=lambda file: file.stat().st_mtime)
        if found:
            return found[-1]
    raise InputError(f"folder {path} holds no checkpoint (*.ckpt)")


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The contents of a checkpoint that this package wrote, read with ``weights_only=True``.

    Raises:
        InputError: the file is missing, truncated, from elsewhere, or holds pickled code.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"checkpoint {path} does not exist")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported" in str(error) or "GLOBAL" in str(error):
            raise InputError(f"checkpoint {path} holds pickled code, which is never executed; expected plain values") from None
        raise InputError(f"checkpoint {path} is damaged or not a checkpoint: it cannot be read as one") from None
    except Exception as error:  # torch.load raises whatever the damaged bytes lead to
        raise InputError(f"checkpoint {path} is damaged or not a checkpoint: {type(error).__name__} while reading it") from None
    required = {"dvae", "state_dict", "hyper_parameters"}
    if not isinstance(checkpoint, dict) or not required <= set(checkpoint):
        raise InputError(f"checkpoint {path} was not written by dvae: expected a mapping with the keys {sorted(required)}")
    return checkpoint


def load_model(path: str | Path, *, trust: bool = False, **overrides: Any) -> tuple[DiscreteVAE, dict[str, Any]]:
    """Rebuild the model of a checkpoint, in evaluation mode, and return it with the checkpoint's contents.

    Arguments:
        path: a checkpoint, or a folder that holds some (see :func:`find_checkpoint`).
        trust: import classes from outside ``dvae`` that the checkpoint names; importing runs their code.
        overrides: constructor arguments that replace the checkpoint's, such as an encoder that has no config.

    Raises:
        InputError: the file cannot be read, names a class that is not trusted, or does not fit the model it names.
    """
    path = find_checkpoint(path)
    checkpoint = read_checkpoint(path)
    arguments = dict(checkpoint["hyper_parameters"]) | overrides
    model_path = checkpoint["dvae"].get("class_path")
    if not isinstance(model_path, str):
        raise InputError(f"checkpoint {path} does not name its model's class")
    foreign = [name for name in (model_path, *class_paths(arguments)) if not name.startswith(_TRUSTED)]
    if foreign and not trust:
        raise InputError(
            f"checkpoint {path} names classes outside dvae ({', '.join(foreign)}); importing them runs their code: "
            "pass --trust (trust=True) if you know the file"
        )
    model = import_class(model_path, DiscreteVAE, "the checkpoint's model")(**arguments)
    try:
        model.on_load_checkpoint(checkpoint)
        model.load_state_dict(checkpoint["state_dict"])
    except (RuntimeError, TypeError, AttributeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"checkpoint {path} does not fit the model it names: {reason}") from None
    return model.eval(), checkpoint
