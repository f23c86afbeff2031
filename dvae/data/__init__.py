"""Data sets as LightningDataModules: flat binary or grey-level images in [0, 1], cut into batches on the training device.

The bundled benchmark needs no download::

    data = BinarizedMNIST(batch_size=24)
    trainer.fit(model, data)

A data set of one's own is an array (:class:`ArrayData`), or a subclass of :class:`DataModule` with one method, ``read``.
"""

from dvae.data.arrays import Splits, binarize
from dvae.data.loader import TensorLoader
from dvae.data.mnist import MNIST, BinarizedMNIST, FashionMNIST
from dvae.data.module import ArrayData, DataModule
from dvae.data.omniglot import Omniglot
from dvae.data.source import data_module, load_split

__all__ = [
    "MNIST",
    "ArrayData",
    "BinarizedMNIST",
    "DataModule",
    "FashionMNIST",
    "Omniglot",
    "Splits",
    "TensorLoader",
    "binarize",
    "data_module",
    "load_split",
]
