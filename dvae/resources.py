"""The data and configs that come with the package."""

from __future__ import annotations

from pathlib import Path

from dvae.errors import InputError

__all__ = ["bundled_folder"]


def bundled_folder(name: str) -> Path:
    """Folder "data" or "configs" that came with the package.

    Raises:
        InputError: it is not there: the installation is incomplete.
    """
    package = Path(__file__).resolve().parent
    installed = package / "bundled"
    # A wheel carries both inside the package, the data set without a folder of its own; in a checkout they lie beside it.
    folder = (installed / name if name != "data" else installed) if installed.is_dir() else package.parent / name
    if not folder.is_dir():
        raise InputError(f"{name}: the package's own folder {folder} is missing; install dvae again")
    return folder
