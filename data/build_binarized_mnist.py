"""Make ``binarized_mnist.npz`` from MNIST's IDX files: every pixel is drawn once, from Bernoulli(grey level / 255).

    python data/build_binarized_mnist.py ROOT

``ROOT`` holds ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte`` and both of ``t10k`` in ``MNIST/raw``, each plain or with
``.gz``, as torchvision lays them out. The draws are fixed by ``SEED``: two runs write the same bits.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np

SEED = 20240611
FILES = ("train", "t10k")
OUTPUT = Path(__file__).resolve().parent / "binarized_mnist.npz"


def read_images(path: Path) -> np.ndarray:
    """Read an IDX file of images, plain or gzipped, as uint8 [N, height * width].

    Raises:
        ValueError: the file is missing, truncated, or no IDX file of images.
    """
    content = _content(path)
    if len(content) < 16:
        raise ValueError(f"{path} must open with a header of 16 bytes, got {len(content)} bytes")
    magic, count, height, width = struct.unpack(">4I", content[:16])
    if magic != 0x803 or len(content) != 16 + count * height * width:
        raise ValueError(f"{path} must be a whole IDX file of images, got magic {magic:#x} and {len(content)} bytes")
    return np.frombuffer(content, np.uint8, offset=16).reshape(count, height * width)


def read_labels(path: Path, count: int) -> np.ndarray:
    """Read an IDX file of so many labels, plain or gzipped, as uint8 [N].

    Raises:
        ValueError: the file is missing, truncated, no IDX file of labels, or of another number.
    """
    content = _content(path)
    magic, given = struct.unpack(">2I", content[:8]) if len(content) >= 8 else (0, 0)
    if magic != 0x801 or given != count or len(content) != 8 + count:
        raise ValueError(f"{path} must be a whole IDX file of {count} labels, got magic {magic:#x} and {len(content)} bytes")
    return np.frombuffer(content, np.uint8, offset=8)


def _content(path: Path) -> bytes:
    zipped = path.with_name(path.name + ".gz")
    try:
        return path.read_bytes() if path.exists() else gzip.decompress(zipped.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"cannot read {path} or {zipped.name}: {error}") from None


def binarize(grey: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Draw each pixel from Bernoulli(grey / 255); bool, in the shape of ``grey`` (uint8)."""
    # A uniform integer of 0..254 lies below g with probability g / 255 exactly.
    return generator.integers(0, 255, size=grey.shape, dtype=np.uint8) < grey


def build(root: Path, seed: int = SEED) -> dict[str, np.ndarray]:
    """Binarize, split and bit-pack.

    Arguments:
        root: folder in torchvision's layout.
        seed: of the draws.

    Returns:
        ``train``, ``valid`` and ``test``, uint8 [N, 98] each; ``valid`` is the last sixth of the training file, 10,000 images. And
        the digits, ``train_labels`` and so on, uint8 [N].

    Raises:
        ValueError: a file is missing, truncated, or no IDX file of images.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    raw = root / "MNIST" / "raw"
    train, test = (binarize(read_images(raw / f"{name}-images-idx3-ubyte"), generator) for name in FILES)
    of_train, of_test = (
        read_labels(raw / f"{name}-labels-idx1-ubyte", len(part)) for name, part in zip(FILES, (train, test), strict=True)
    )
    split = len(train) - len(train) // 6
    parts = {"train": train[:split], "valid": train[split:], "test": test}
    labels = {"train_labels": of_train[:split], "valid_labels": of_train[split:], "test_labels": of_test}
    return {name: np.packbits(part, axis=1) for name, part in parts.items()} | labels


def main(arguments: list[str] | None = None) -> None:
    """Command line: write the file whole or not at all, and print size and checksums of the arrays."""
    parser = argparse.ArgumentParser(description="Binarize MNIST once and write it bit-packed.")
    parser.add_argument("root", type=Path, help="folder that holds MNIST/raw, as torchvision lays it out")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="file to write (default: beside this script)")
    options = parser.parse_args(arguments)
    try:
        arrays = build(options.root)
    except ValueError as error:
        sys.exit(f"error: {error}")
    temporary = options.output.with_name(f".{options.output.stem}.npz")
    try:
        np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]
        os.replace(temporary, options.output)
    finally:
        temporary.unlink(missing_ok=True)
    print(f"{options.output}: {options.output.stat().st_size:,} bytes")
    for name, array in arrays.items():
        print(f"{name:12} {list(array.shape)!s:12} sha256 {hashlib.sha256(array.tobytes()).hexdigest()}")


if __name__ == "__main__":
    main()
