"""Data sets as LightningDataModules: flat binary or grey-level images in [0, 1], cut into batches on the training device.

The one idea: a data set is three arrays. `BinarizedMNIST` comes with the package and needs no download (MNIST binarized once; its
`path` reads the field's fixed binarization, which published numbers are about). `MNIST` and `FashionMNIST` are binarized afresh in
each epoch, through torchvision; `Omniglot` reads `chardata.mat`.

A data set of one's own is an array, a tensor or a file:

    >>> data = dvae.data.ArrayData(torch.eye(16), valid_fraction=0.25, batch_size=4)
    >>> data.split("train").shape
    torch.Size([12, 16])

or a subclass of `DataModule` with one method, `read`:

```python
# my_coins.py
import numpy as np

import dvae


class Coins(dvae.data.DataModule):
    def read(self):
        coins = np.random.default_rng(0).random((300, 64)) < 0.3
        return dvae.data.Splits(train=coins[:200], valid=coins[200:250], test=coins[250:])
```

```bash
dvae fit --data my_coins.Coins --model.num_pixels 64 --trainer.max_steps 20 --name coins
```

The encoder's centre and the decoder's start are set from the training set's mean, and the order of the examples is a function of
seed and epoch.
"""

from dvae.data.arrays import Splits, binarize
from dvae.data.batches import Examples, StoredExamples, StreamedExamples, labels_of, x_of
from dvae.data.hub import HuggingFaceData
from dvae.data.images import ImageFolder
from dvae.data.loader import TensorLoader
from dvae.data.mnist import MNIST, BinarizedMNIST, FashionMNIST
from dvae.data.module import ArrayData, DataModule
from dvae.data.omniglot import Omniglot
from dvae.data.photos import PhotoPatches
from dvae.data.source import data_module, examples_of, load_split
from dvae.data.sparse import SparseCounts
from dvae.data.stores import FileStore, Store, Subset, TensorStore
from dvae.data.tables import Table
from dvae.data.words import Docstrings

__all__ = [
    "MNIST",
    "ArrayData",
    "BinarizedMNIST",
    "DataModule",
    "Docstrings",
    "Examples",
    "FashionMNIST",
    "FileStore",
    "HuggingFaceData",
    "ImageFolder",
    "Omniglot",
    "PhotoPatches",
    "SparseCounts",
    "Splits",
    "Store",
    "StoredExamples",
    "StreamedExamples",
    "Subset",
    "Table",
    "TensorLoader",
    "TensorStore",
    "binarize",
    "data_module",
    "examples_of",
    "labels_of",
    "load_split",
    "x_of",
]
