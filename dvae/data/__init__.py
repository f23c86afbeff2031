"""Data sets as LightningDataModules, and any other loader: batches of numbers [B, ...] of any kind and size.

The one idea: a data set is up to three splits, each in memory or in files that are read as they are needed, and the order of its
examples is a function of seed and epoch. A run that stops anywhere goes on with the very batches that were to come.

| data | what reads it |
|---|---|
| arrays, tensors, `.npy`, `.npz` | `ArrayData`; with `in_memory=False` files larger than memory are read batch by batch |
| a folder of images | `ImageFolder`: resized, cut, flipped; a folder for each class gives labels |
| sparse counts, `.npz` of `scipy.sparse` | `SparseCounts` |
| tables, `.csv` and `.parquet` | `Table`; the likelihood `Normal` keeps the columns' units in the checkpoint |
| Hugging Face `datasets` | `HuggingFaceData` |
| MNIST, binary | `BinarizedMNIST`, part of the package; its `path` reads the field's own, which published numbers are about |
| MNIST, grey | `MNIST`, `FashionMNIST`: binarized afresh in each epoch; `Omniglot` likewise |
| ten photographs, Python's docstrings | `PhotoPatches`, `Docstrings`: real data without a download |
| anything else | a class with one method, `read`, as below; or any LightningDataModule or DataLoader |

Which values they may have, the likelihood says (`dvae.likelihoods`); values that do not fit are refused with the name of one that
takes them. A model takes its size from the data on the command line; in Python it is `num_pixels=data.num_pixels` or
`image_shape=data.image_shape`. Labels are not trained on: they go with the codes that `dvae encode` writes.

    >>> data = dvae.data.ArrayData(torch.eye(16), valid_fraction=0.25, batch_size=4)
    >>> data.split("train").shape
    torch.Size([12, 16])

A class of one's own:

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
dvae fit --data my_coins.Coins --trainer.max_steps 20 --name coins
```

A file or a folder is given as it is, `--data images.npz`, `--data photographs/`, `--data table.csv`, with the arguments of the
class that reads it: `--data.valid_fraction 0.1`.

# Loaders of others

`Trainer.fit`, `dvae.evaluate` and `dvae.lab.codes.encode_labelled` take any loader of tensors, tuples or mappings, with workers or
without; on the command line it is a LightningDataModule with `train_dataloader`, `val_dataloader` and `test_dataloader`. The first
part of a tuple is x; of a mapping, or where it is another part, the model's `input_key` says which one:

```python
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

import dvae

rows = [{"image": (torch.rand(1, 8, 8) < 0.3).float(), "label": index % 3} for index in range(60)]
model = dvae.DiscreteVAE(image_shape=(1, 8, 8), num_latents=16, input_key="image")
trainer = pl.Trainer(max_steps=20, logger=False, enable_checkpointing=False, enable_progress_bar=False)
trainer.fit(model, DataLoader(rows, batch_size=10, shuffle=True))
print(dvae.evaluate(model, DataLoader(rows, batch_size=7), num_samples=5).elbo)
```

Figures do not depend on the loader's batch size. What a loader can promise of a run that stops and goes on: the modules above and
torchdata's `StatefulDataLoader`, with any number of workers, give the very batches that were to come; PyTorch's own `DataLoader`
does not keep its place, and `dvae fit` says so when the run starts.

# Photographs

`--config photos` is a convolutional model of 32 x 32 colour patches (`PhotoPatches`, `pip install discrete-vae[photos]`) in 8-bit
levels, with 256 bits for each and the likelihood `DiscretizedLogistic`:

```bash
dvae fit --config photos --config rebar --data.patches 200 --trainer.max_steps 5 --trainer.limit_val_batches 1
dvae evaluate runs/photos_rebar --num_samples 2 --num_draws 4
```

![Patches of two photographs that the model never saw, and below each its reconstruction from 256 bits](../../.github/photos.png)

After 2,500 steps (with 20,000 patches and `--trainer.max_steps 2500 --trainer.val_check_interval 1250 --without VarianceMonitor`,
17 minutes on one CPU core) `dvae evaluate runs/photos_rebar --num_samples 4 --num_draws 20` prints a training ELBO of -13,217 nats,
6.2 bits for each of the 3,072 values, and on the test's photographs -16,180 ± 80, 7.6 bits, with 253 of 256 bits in use. Large
shapes come back, and the colours that the seven photographs of the training set have; the test's green is not among them.

# Words

`--config words` makes 64-bit codes of bags of words: the docstrings of Python's own library (`Docstrings`), under `Multinomial`.

```bash
dvae fit --config words --config relax --trainer.max_steps 5 --trainer.limit_val_batches 1
dvae encode runs/words_relax --out words.npz
```

After 10,000 compiled steps (`--trainer.max_steps 10000 --model.compile true`, 4 minutes on one CPU core) `dvae evaluate
runs/words_relax --num_samples 10` prints a test ELBO of -86.85 ± 4.07 nats, .1253 bits for each of 1,000 words, with all 64 bits in
use. Of a test document's ten nearest training documents by Hamming distance 36% are of its own module, where 3% would be by chance;
this prints both shares, and the nearest documents of each:

    import dvae
    from dvae.training.checkpoints import load_model

    model, data = load_model("runs/words_relax")[0], dvae.data.Docstrings()
    known, asked = (dvae.lab.codes.encode_labelled(model, data, split) for split in ("train", "test"))
    distance = (asked.codes[:, None].int() - known.codes.int()).abs().sum(-1)
    same = known.labels == asked.labels[:, None]
    print(same.gather(1, distance.argsort(1)[:, :10]).float().mean(), same.float().mean())
    for document, row in zip(data.documents("test"), distance, strict=True):
        print(document.name, [(data.documents("train")[i].name, int(row[i])) for i in row.argsort()[:3]])

Some of them, with the number of bits that differ:

| document | nearest |
|---|---|
| `linecache.getlines` | `linecache.getline` (3), `linecache.lazycache` (14) |
| `email.message.Message.values` | `email.message.Message.keys` (1), `email.message.Message.items` (1) |
| `threading.Event.set` | `threading.Event.clear` (10), `threading.Event.wait` (11), `asyncio.locks.Event.set` (11) |
| `plistlib._BinaryPlistParser` | `gzip.open` (15), `lzma.open` (15) |
| `http.client.HTTPConnection.send` | `nntplib.NNTP._putline` (11), `base64.standard_b64encode` (14) |
| `smtplib.SMTP.starttls` | `smtplib.SMTP.mail` (13), `smtplib.SMTP.login` (16) |
"""

from dvae.data.array_data import ArrayData
from dvae.data.arrays import Splits, binarize
from dvae.data.batches import Examples, StoredExamples, StreamedExamples, labels_of, x_of
from dvae.data.hub import HuggingFaceData
from dvae.data.images import ImageFolder
from dvae.data.loader import TensorLoader
from dvae.data.mnist import MNIST, BinarizedMNIST, FashionMNIST
from dvae.data.module import DataModule
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
