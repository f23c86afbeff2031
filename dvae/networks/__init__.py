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

`Linear` makes the linear models, `MLP` the nonlinear ones, `SurrogateNetwork` is r of `dvae.estimators.RELAX`. `ResidualEncoder`,
`ResidualDecoder` and `SpatialSurrogate` are fully convolutional: the code is a grid.
"""

from dvae.networks.convolutional import ConvDecoder, ConvEncoder
from dvae.networks.dense import MLP, Linear, dense
from dvae.networks.spatial import ResidualDecoder, ResidualEncoder, SpatialSurrogate
from dvae.networks.surrogate import SurrogateNetwork

__all__ = [
    "MLP",
    "ConvDecoder",
    "ConvEncoder",
    "Linear",
    "ResidualDecoder",
    "ResidualEncoder",
    "SpatialSurrogate",
    "SurrogateNetwork",
    "dense",
]
