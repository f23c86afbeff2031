"""A trained model as a folder to share: plain values, tensors in safetensors, and a card that says what it is."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from dvae.config import Module, current_path
from dvae.errors import InputError, reason_of
from dvae.files import written_whole
from dvae.models.rebuilding import rebuilt

__all__ = ["load", "push", "save"]

M = TypeVar("M", bound=Module)
Rows = Sequence[tuple[str, str, str]]

_CONFIG, _TENSORS, _CARD = "config.json", "model.safetensors", "README.md"
_MOST_BYTES = 2**20  # of a config, which is a page of text

_FORMAT = 1
# Of another library's message.
_LONGEST = 200


def save(model: Module, folder: str | Path, facts: Mapping[str, str], figures: Rows, name: str | None = None) -> Path:
    """Write a model's folder: ``config.json``, ``model.safetensors`` and ``README.md``, each whole or not at all.

    Arguments:
        model: what to write.
        folder: made where it is not there.
        facts: about the model, for the card.
        figures: (quantity, value, standard error) of the card's table.
        name: of the model on the card; that of the folder where it is None.

    Raises:
        InputError: safetensors is not installed, or the folder cannot be written.
    """
    save_file = _safetensors("save_file")
    folder = Path(folder)
    config = {"format": _FORMAT, **model.config}
    # Copies: safetensors takes no two tensors that lie in the same memory.
    tensors = {key: tensor.detach().cpu().clone().contiguous() for key, tensor in model.state_dict().items()}
    with written_whole(folder / _TENSORS) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    for file, text in ((_CONFIG, json.dumps(config, indent=2)), (_CARD, _card(model, name or folder.name, facts, figures))):
        with written_whole(folder / file) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    return folder


def load(
    base: type[M],
    source: str | Path,
    *,
    trust: bool = False,
    revision: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> M:
    """The model of a folder, or of a repository on the Hugging Face hub, in evaluation mode on the CPU.

    Arguments:
        base: what it is to be.
        source: the folder, or the repository's name.
        trust: import classes from outside ``dvae`` that it names; importing runs their code.
        revision: of a repository: a branch, a tag or a commit.
        overrides: constructor arguments that replace the file's.

    Raises:
        InputError: there is no such model, its files are damaged, or it names a class that is not trusted.
    """
    config_path, tensors_path = (_file(source, name, revision) for name in (_CONFIG, _TENSORS))
    what = f"model {source}"
    config, tensors = _config(config_path, what), _tensors(tensors_path, what)
    path, mean = config["class_path"], tensors.get("mean")
    dtype = mean.dtype if isinstance(mean, Tensor) and mean.is_floating_point() else torch.float32
    try:
        return rebuilt(
            base,
            what,
            current_path(path) if isinstance(path, str) else path,
            {**config["init_args"], **(overrides or {})},
            tensors,
            trust=trust,
            prepare=lambda model: model.to(dtype),
        )
    except RecursionError:
        raise InputError(f"{what}: {_CONFIG} is nested too deeply to be a config") from None


def push(model: Module, repository: str, facts: Mapping[str, str], figures: Rows, *, private: bool = False) -> str:
    """Upload a model's folder to the Hugging Face hub, with the account that ``hf auth login`` set up; returns its address.

    Arguments:
        model: what to upload.
        repository: ``NAME`` or ``OWNER/NAME``; made where it is not there.
        facts, figures: see :func:`save`.
        private: whether a new repository is for its owner alone.

    Raises:
        InputError: huggingface_hub is not installed, or the hub refuses or cannot be reached.
    """
    hub = _hub()
    with tempfile.TemporaryDirectory() as folder:
        save(model, folder, facts, figures, name=repository)
        try:
            address = hub.create_repo(repository, private=private, exist_ok=True)
            hub.upload_folder(repo_id=address.repo_id, folder_path=folder, commit_message="Upload model")
        except Exception as error:  # the hub's, its client's and the network's are of many kinds
            raise InputError(f"{repository} cannot be uploaded to the Hugging Face hub: {reason_of(error, _LONGEST)}") from None
    return str(address)


# Files


def _file(source: str | Path, name: str, revision: str | None) -> Path:
    folder = Path(source)
    if folder.is_dir():
        if revision is not None:
            raise InputError(f"revision is of a repository on the hub, got revision={revision!r} for the folder {folder}")
        if not (folder / name).is_file():
            raise InputError(f"model {folder} must have {_CONFIG} and {_TENSORS}, as save_pretrained writes them; it has no {name}")
        return folder / name
    try:
        return Path(_hub().hf_hub_download(str(source), name, revision=revision))
    except InputError:
        raise
    except Exception as error:  # as above
        raise InputError(
            f"model {source} is no folder here, and no model that can be had from the Hugging Face hub: "
            f"{reason_of(error, _LONGEST)}"
        ) from None


def _config(path: Path, what: str) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{what}: {path.name} must be at most {_MOST_BYTES} bytes, got {path.stat().st_size}")
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{what}: {path.name} is damaged or no JSON: {reason_of(error, _LONGEST)}") from None
    if not isinstance(config, dict) or not isinstance(config.get("init_args"), dict) or "class_path" not in config:
        raise InputError(f"{what}: {path.name} must be a mapping with class_path and init_args, as save_pretrained writes it")
    if config.get("format") != _FORMAT:
        raise InputError(f"{what}: {path.name} must be of format {_FORMAT}, got {config.get('format')!r}: a newer dvae may read it")
    return config


def _tensors(path: Path, what: str) -> dict[str, Tensor]:
    try:
        return dict(_safetensors("load_file")(path))
    except InputError:
        raise
    except Exception as error:  # whatever the damaged bytes lead to
        raise InputError(f"{what}: {path.name} is damaged or not in safetensors: {reason_of(error, _LONGEST)}") from None


def _safetensors(name: str) -> Any:
    try:
        import safetensors.torch
    except ImportError:
        raise InputError("sharing models needs safetensors, which is not installed: pip install 'discrete-vae[hub]'") from None
    return getattr(safetensors.torch, name)


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise InputError("the hub needs huggingface_hub, which is not installed: pip install 'discrete-vae[hub]'") from None
    return huggingface_hub


# The card


def _card(model: Module, name: str, facts: Mapping[str, str], figures: Rows) -> str:
    listed = "\n".join(f"- {fact}: {value}" for fact, value in facts.items())
    table = "\n".join(["| | mean | standard error |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in figures)])
    evaluation = f"\n## Evaluation\n\n{table}" if figures else ""
    return f"""---
library_name: dvae
tags:
- dvae
- discrete-vae
- variational-autoencoder
---

# {name}

A variational autoencoder with discrete latent variables: `{model.config["class_path"]}`, from `pip install 'discrete-vae[hub]'`.

{listed}

## Use

```python
import dvae

model = dvae.VAE.from_pretrained("{name}")
codes = model.codes(x)  # of x [B, ...], one number a latent
x = model.decode_codes(codes)  # [B, num_pixels], the mean given each code
samples = model.sample(16)
```

`config.json` holds the constructor's arguments, `model.safetensors` the parameters; neither holds code.
{evaluation}"""
