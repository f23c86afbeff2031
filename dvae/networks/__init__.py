"""Maps from features to logits, and the control variates' networks.

The one idea: an encoder or decoder is any module from [*, in] to [*, out], and every latent enters it as 2b - 1. Derived from
`dvae.Module`, it remembers how it was made, and a checkpoint holds that as plain values.

    >>> encoder = dvae.networks.MLP(784, 200, hidden=[100])
    >>> model = dvae.DiscreteVAE(encoder=encoder)
    >>> model.config["init_args"]["encoder"]["init_args"]["hidden"]
    [100]

One of your own (on the command line `--model.encoder my_networks.Residual --model.encoder.in_features 784
--model.encoder.out_features 200`):

```python
# my_networks.py
from torch import nn

import dvae


class Residual(dvae.Module):
    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.inner, self.last = nn.Linear(in_features, in_features), nn.Linear(in_features, out_features)

    def forward(self, x):
        return self.last(x + self.inner(x).tanh())


model = dvae.DiscreteVAE(encoder=Residual(784, 200), decoder=Residual(200, 784))
```

`Linear` makes the linear models, `MLP` the nonlinear ones, `SurrogateNetwork` is r of `dvae.estimators.RELAX`.

# Codes on a grid

With `ResidualEncoder` and `ResidualDecoder` the code lies on a grid of one place for each `stride` x `stride` pixels.
`num_latents` is that of an image of the size that is trained on, a multiple of its places: 256 bits of a 32 x 32 image at stride 4
are four bits at each of 8 x 8 places. The prior (`dvae.priors.SpatialFactorial`) and the data's mean are the same at every place,
and RELAX's r is a small convolutional network, so that one model is for images of every size that is a multiple of the stride:

```python
# one model, images of two sizes, and their tokens
import torch

import dvae

networks = [{"class_path": f"dvae.networks.Residual{name}", "init_args": {"stride": 4}} for name in ("Encoder", "Decoder")]
levels = dvae.likelihoods.DiscretizedLogistic()
model = dvae.DiscreteVAE(None, *networks, likelihood=levels, image_shape=(3, 32, 32), num_latents=256)
for size in (32, 64):
    x = torch.randint(0, 256, (2, 3, size, size)).float()
    ids = model.encode_ids(x)  # [2, size / 4, size / 4], from 0 to 15
    print(size, model.elbo(x).shape, ids.shape, model.decode_ids(ids).shape)
print(model.at((3, 32, 96)).sample(4).shape)
```

What is given images `[B, C, H, W]` takes the size from them; for flat tensors `model.at(image_shape)` is the model of a size, with
the same parameters. With `latent="Categorical"` a place has `num_latents` / places groups of `num_classes` classes each. A token
is a place's code as one integer, of all groups together and at most 63 bits; `dvae tokenize` writes those of a folder of images,
or of other data, and goes on where it was killed, and `dvae decode` makes images of them:

```bash
dvae fit --config spatial --config rebar --data.patches 200 --trainer.max_steps 5 --trainer.limit_val_batches 1
dvae evaluate runs/spatial_rebar --data '{class_path: dvae.data.PhotoPatches, init_args: {size: 64, patches: 80}}' \
  --num_samples 2 --num_draws 4
dvae tokenize runs/spatial_rebar '{class_path: dvae.data.PhotoPatches, init_args: {size: 64, patches: 80}}' --out tokens.npz
dvae decode runs/spatial_rebar tokens.npz --out decoded
```

![Photographs and their reconstructions from 4 bits a place](../../.github/spatial.png)

After 600 steps on patches of 32 x 32 pixels (`--trainer.max_steps 600 --trainer.val_check_interval 600 --trainer.log_every_n_steps
50 --trainer.limit_val_batches 1 --without VarianceMonitor`) the training ELBO of the last 50 is -13,348 nats, 6.27 bits for each
of the 3,072 values, where `--config photos`, whose decoder is dense, is at -14,145, 6.64 bits, with as many bits of code. `dvae
evaluate --num_samples 4 --num_draws 4 --data '{class_path: dvae.data.PhotoPatches, init_args: {patches: 4000}}'` of both, on the
test's two photographs:

| | bits per dimension | PSNR, dB | SSIM | active units | entropy of a bit |
|---|---|---|---|---|---|
| `photos` | 7.265 ± .030 | 17.90 ± .12 | .337 ± .007 | 250 of 256 | .78 |
| `spatial` | 7.394 ± .037 | 18.75 ± .13 | .475 ± .007 | 197 of 256 | .75 |
| `spatial`, 64 x 64 (`size: 64, patches: 1600`) | 7.711 ± .050 | 17.93 ± .14 | .474 ± .012 | 775 of 1,024 | .74 |

Reconstructions of `spatial` are nearer to the photographs, and the likelihood is surer of them than it should be of photographs
unlike those of the training set: that is what the test's bits per dimension say. Quantised codes are in `dvae.models`.

What the grid is worth, with one encoder (`channels: 16`, `blocks: 1`), REBAR, 256 bits and 1,000 steps of 16 patches at lr .002,
three seeds of `dvae compare --variants '[grid.yaml, dense_small.yaml, dense_large.yaml]' --seeds 3 --apart --max_steps 1000`:

| decoder | parameters | bits per dimension | PSNR, dB | SSIM |
|---|---|---|---|---|
| `ResidualDecoder` on the grid | 21,462 | 7.174 ± .017 | 19.52 ± .11 | .477 ± .021 |
| `MLP`, `hidden: [4]` | 31,748 | 7.538 ± .048 | 15.79 ± .10 | .468 ± .002 |
| `MLP`, `hidden: [200]` | 1,286,344 | 7.300 ± .103 | 18.28 ± .30 | .384 ± .003 |

Convolutions without a grid on Fashion-MNIST (Debian's `dataset-fashion-mnist`, binarized once), RELAX, 200 bits, 20,000 updates of
`dvae fit --config conv --config relax --data FashionMNIST --data.root FOLDER --data.dynamic false`, and of `--config l1`:

| | test ELBO | test bound, 100 samples | training ELBO |
|---|---|---|---|
| `conv` | -254.73 ± .76 | -243.77 ± .75 | -251.77 |
| `l1` | -267.97 ± .77 | -257.70 ± .73 | -264.20 |

The step, compiled, is faster than a plain PyTorch loop of the same networks with Gumbel straight-through; `dvae benchmark
--spatial`, batch 24, images a second, in turns on two cores beside other work:

| | one thread | two threads |
|---|---|---|
| plain loop | 299 | 337 |
| ours, eager | 230 (.81) | 250 (.74) |
| ours, compiled | 324 (1.09) | 397 (1.18) |
| ours, compiled, `channels_last` | 369 (1.27) | 403 (1.21) |

So `--config spatial` has `channels_last`, and `dvae fit` takes all cores for networks with convolutions where `--threads` says
nothing, and compiles runs of 4,000 updates and more, where it does of 10,000 for others.
"""

from dvae.networks.convolutional import ConvDecoder, ConvEncoder
from dvae.networks.dense import MLP, Linear, dense
from dvae.networks.masked import MaskedMLP
from dvae.networks.spatial import ResidualDecoder, ResidualEncoder, SpatialSurrogate
from dvae.networks.surrogate import SurrogateNetwork

__all__ = [
    "MLP",
    "ConvDecoder",
    "ConvEncoder",
    "Linear",
    "MaskedMLP",
    "ResidualDecoder",
    "ResidualEncoder",
    "SpatialSurrogate",
    "SurrogateNetwork",
    "dense",
]
