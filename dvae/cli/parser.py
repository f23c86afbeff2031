"""The parser of the commands behind Lightning's Trainer: its help page, and its refusals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from jsonargparse import ArgumentParser
from pytorch_lightning.cli import LightningArgumentParser

from dvae.cli import hints
from dvae.cli.arguments import flags_of, innermost, usage_sentence
from dvae.cli.errors import UsageError, told
from dvae.cli.help import Wide, readable
from dvae.data import BinarizedMNIST  # with the package, the data modules' short names are known to the parser
from dvae.errors import InputError
from dvae.training.module import DiscreteVAE
from dvae.training.quantized import QuantizedAutoencoder

__all__ = ["DEFAULTS", "Parser"]

DEFAULTS: dict[str, tuple[str, dict[str, Any]]] = {
    "model": ("dvae.DiscreteVAE", {"steps_per_execution": 50}),
    "data": ("dvae.data.BinarizedMNIST", {}),
}
"""Model and data where none are asked for: the class, and arguments that are not its own defaults."""

_TEXTS = {
    "--ckpt_path": "fit: a checkpoint to go on from, or a folder of runs, or last, the newest of the run; its arguments of the "
    "model hold where none are given. Else: what is measured, of a folder the newest best.ckpt",
    "--weights_only": "read plain values alone from a checkpoint, never code",
    "Customize every aspect of training via flags": "Lightning's trainer",
    "A DataModule standardizes the training, val, test splits, data preparation and transforms. The main advantage is": "data",
    "A variational autoencoder with discrete latents, trained with a pluggable gradient estimator": "model",
    "Runs the full optimization routine": "checkpoint",
    "Perform one evaluation epoch over the validation set": "checkpoint",
    "Perform one evaluation epoch over the test set. It's separated from fit to make sure you never run on your": "checkpoint",
    "Run inference on your data. This will call the model forward function to compute predictions. Useful to": "checkpoint",
}


class Parser(LightningArgumentParser):
    """Lightning's parser: no abbreviations, help to read, and one sentence about what is wrong."""

    settings: Sequence[tuple[str, Any]] = ()
    """What the command line gives, see :func:`dvae.cli.configs.given`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, formatter_class=Wide, allow_abbrev=False, **kwargs)

    def add_lightning_class_args(self, lightning_class: Any, nested_key: str, *args: Any, **kwargs: Any) -> list[str]:
        """As Lightning's; a model may be of either kind, and is a :class:`dvae.DiscreteVAE` where a config names no class."""
        if nested_key != "model":
            return super().add_lightning_class_args(lightning_class, nested_key, *args, **kwargs)
        kinds = (DiscreteVAE, QuantizedAutoencoder)
        return self.add_subclass_arguments(kinds, nested_key, fail_untyped=False, required=kwargs.get("required", True))

    def format_help(self, *args: Any) -> str:
        """The help page, with the arguments of the default model and data set."""
        return readable(_with_the_defaults_classes(super().format_help(*args)), brief="--trainer", replaced=_TEXTS)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """End in one sentence: the library's own, what a hint knows, or the parser's innermost."""
        told_by_the_library = told(ex)
        if told_by_the_library is not None:
            raise InputError(told_by_the_library) from ex
        sentence = hints.explain(type(self).settings)
        program = self.prog.replace(" [options]", "")
        raise UsageError(sentence or usage_sentence(innermost(message), flags_of(self), program)) from ex


def _with_the_defaults_classes(text: str) -> str:
    """The help page with the arguments of the default model and data set; jsonargparse shows a class's where it is asked for."""
    for key, cls in (("model", DiscreteVAE), ("data", BinarizedMNIST)):
        if f"\n  --{key} CONFIG" not in text:
            continue
        parser = ArgumentParser(formatter_class=Wide, add_help=False)
        added = parser.add_class_arguments(cls, key, fail_untyped=False)  # a group of flags
        parser.set_defaults({f"{key}.{name}": value for name, value in DEFAULTS[key][1].items() if f"{key}.{name}" in added})
        page = parser.format_help()
        entries = [line for line in page.splitlines() if line.startswith(f"  --{key}.") and "coder.help" not in line]
        lines = text.splitlines()
        place = next(i for i, line in enumerate(lines) if line.startswith(f"  --{key} CONFIG"))
        title = f"  --{key} CLASS  another class than {cls.__name__}, whose arguments follow; --{key}.help CLASS shows its own"
        text = "\n".join([*lines[:place], title, *entries, *lines[place + 1 :]])
    return text
