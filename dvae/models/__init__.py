r"""The mathematics of the autoencoder: a plain ``nn.Module`` that needs no trainer.

The one idea: `VAE` puts the parts together (encoders, decoders, `dvae.priors`, `dvae.likelihoods`, an estimator for each stochastic
layer) and says what can be asked of them. Evaluation, certificates and sampling take it as it is; `dvae.DiscreteVAE` adds training.

    >>> model = dvae.VAE(num_pixels=6, num_latents=4, num_layers=2)
    >>> x = torch.zeros(3, 6)
    >>> model(x).shape, model.elbo(x).shape, model.importance_weighted_bound(x).shape
    (torch.Size([3, 4]), torch.Size([3]), torch.Size([3]))
    >>> model.sample(5).shape  # pictures, from the prior
    torch.Size([5, 6])

Another objective made of the same terms is a subclass that overrides `VAE.objective`; here a KL that is held at a capacity (Burgess
et al. 2018):

```python
# my_models.py
import dvae


class Capacity(dvae.DiscreteVAE):
    def __init__(self, capacity: float = 25.0, **kwargs):
        super().__init__(**kwargs)
        self.capacity = capacity

    def objective(self, terms):
        return terms.reconstruction - 10 * (terms.kl - self.capacity).abs()
```

```bash
dvae fit --model my_models.Capacity --model.capacity 20 --model.kl analytic --trainer.max_steps 100 --name capacity
```

# Sharing

`save_pretrained` writes a folder with the constructor's arguments as JSON, the parameters in safetensors and a card with a table of
figures; `from_pretrained` gives the model back to the bit, from a folder or from the Hugging Face hub, where `push_to_hub` puts it
(`pip install 'discrete-vae[hub]'`). Nothing in such a folder is code, and classes from outside `dvae` that it names are imported
with `trust=True` alone:

```python
# a model to share
import dvae

data = dvae.data.BinarizedMNIST()
model = dvae.DiscreteVAE(dvae.estimators.LOO(), num_latents=32)
figures = dvae.evaluate(model, data, split="valid", num_samples=1, num_draws=2).rows()
model.save_pretrained("shared", figures)
print(dvae.VAE.from_pretrained("shared").codes(data.split("test")[:5]))
```

`dvae export` makes such a folder of a run:

```bash
dvae export runs/l1_rebar --out shared --figures figures.json
```

`--format onnx` (`pip install 'discrete-vae[onnx]'`) and `--format torch-export` write its encoder (x to codes) and decoder (codes
to the mean of x) for other programs instead, one file each, for batches of any size.

ONNX Runtime finds the same 32 bits of each of the 10,000 test images as `codes`, with the model of `dvae.lab`'s pictures.

# Quantised codes

What tokenizers of images mostly are has no distribution: an encoder's numbers are rounded, and the gradient goes straight through.
`Quantized`, and with its training `dvae.QuantizedAutoencoder`, is that with the same networks, likelihoods, data and commands (`pip
install discrete-vae[quantizers]`): `FSQ` rounds each number to a few levels, `LFQ` and `BSQ` take signs, `VQ` the nearest vector of
a learned codebook. Trained is

.. math:: -\log p(x \mid c(x)) + n \, \ell

c(x) the code, n the number of values of x, and the quantiser's own loss weighs as much as one of them.

```python
# a quantised code of four bits at each place of a grid
import torch

import dvae

networks = [{"class_path": f"dvae.networks.Residual{name}"} for name in ("Encoder", "Decoder")]
levels = dvae.likelihoods.DiscretizedLogistic()
model = dvae.QuantizedAutoencoder(dvae.models.FSQ([4, 4]), *networks, levels, image_shape=(3, 32, 32), num_latents=64)
x = torch.randint(0, 256, (2, 3, 64, 32)).float()
print(model.num_ids, model.encode_ids(x).shape, model.reconstruct(x).shape)
```

```bash
dvae fit --config spatial_fsq --data.patches 200 --trainer.max_steps 5 --trainer.limit_val_batches 1
dvae evaluate runs/spatial_fsq
```

![Patches of 32 and of 64 pixels and their reconstructions from 4 bits a place, by one model](../../.github/spatial_fsq.png)

After 600 steps on patches of 32 x 32 pixels (`--trainer.max_steps 600 --trainer.val_check_interval 600 --trainer.limit_val_batches
1`), one model on the test's two photographs, which `dvae sample runs/spatial_fsq --data '{class_path: dvae.data.PhotoPatches,
init_args: {size: 64, patches: 1600}}'` draws and `dvae evaluate` measures:

| patches | rate, bits of an image | of at most | values in use at a place | MSE | PSNR, dB | SSIM |
|---|---|---|---|---|---|---|
| 32 x 32 (`patches: 4000`) | 121.4 | 256 | 3.73 of 16 | 990 ± 22 | 18.76 ± .11 | .472 ± .007 |
| 64 x 64 (`size: 64, patches: 1600`) | 488.1 | 1,024 | 3.75 of 16 | 1,141 ± 33 | 17.95 ± .14 | .483 ± .011 |

That is as near to the photographs as `spatial` with REBAR after as many steps (`dvae.networks`).

`spatial_lfq`, `spatial_bsq` and `spatial_vq` are its siblings, all of 16 values a place. There is no bound, prior or gradient
estimator, and one sentence says so to whoever asks for one; a step is not compiled, and `VQ` replaces idle vectors by PyTorch's own
random numbers. What such a code and one of latents have in common is rate and distortion, which `dvae evaluate` has of both.
Distortion is the mean squared error, PSNR and SSIM of the reconstruction from one code (one sample of it, for latents). The rate

.. math:: R = -\sum_s \sum_v \bar p_{sv} \log_2 \bar p_{sv}

is the bits of a code if each symbol s is coded by itself with the frequencies of its values over the data; a symbol is what is at a
place of the grid, or a latent where there is none (`dvae.metrics.CodeRate`). `dvae compare` trains both kinds alike, several seeds
each, and writes a table, `rate_distortion.png` and `reconstructions.png`:

`dvae compare --estimators '[RELAX, REBAR, LOO(num_samples=4), DisARM, GumbelStraightThrough, ReinMax]' --variants '[spatial_fsq,
spatial_lfq]' --config spatial --apart --max_steps 1500`

`--variants` are configs, each in the place of `--config`, with the other flags; with `--apart` each seed has a run of its own, so
that the milliseconds of a step are those of one model. RELAX's config changes its control variate alone for 1,000 steps: a config
with `model: {phi_warmup_steps: 0}` after `spatial` has all of them train from the start.

# Which gradient, or a quantiser?

Eight ways to 256 bits of an image on a grid of 8 x 8, with the same networks (`channels: 16`, `blocks: 1`), 1,000 steps of 16
patches of 32 x 32 pixels, lr .002, three seeds each; on the test's photographs:

| | bits per dimension | rate, bits | values in use, of 16 | PSNR, dB | SSIM | log-variance, encoder | ms a step |
|---|---|---|---|---|---|---|---|
| `LOO` of 4 | **7.134 ± .016** | 188 ± 4 | 7.7 ± .4 | 19.53 ± .10 | .480 ± .004 | 7.29 ± .51 | 52 |
| `RELAX` | 7.163 ± .038 | 199 ± 2 | 8.7 ± .2 | 19.85 ± .14 | .488 ± .011 | 6.69 ± .16 | 80 |
| `REBAR` | 7.174 ± .017 | 193 ± 8 | 8.2 ± .7 | 19.52 ± .11 | .477 ± .021 | 6.08 ± .55 | 57 |
| `DisARM` | 7.329 ± .128 | 194 ± 11 | 8.3 ± .9 | 18.60 ± .26 | .454 ± .014 | 8.08 ± .27 | 33 |
| `GumbelStraightThrough` | 7.258 ± .052 | 215 ± 5 | 10.4 ± .5 | **19.88 ± .05** | .487 ± .004 | 5.89 ± .56 | 41 |
| `ReinMax` | 7.277 ± .035 | 190 ± 6 | 7.9 ± .5 | 19.54 ± .08 | .496 ± .008 | 5.38 ± .58 | 37 |
| `FSQ` | | 216 ± 3 | 10.4 ± .4 | 19.55 ± .18 | **.523 ± .004** | | 27 |
| `LFQ` | | 213 ± 4 | 10.2 ± .4 | 19.68 ± .18 | .503 ± .002 | | 31 |

![PSNR against rate of the eight ways](../../.github/spatial_rate_distortion.png)

![Test patches and their reconstructions from 256 bits, a row for each way](../../.github/spatial_reconstructions.png)

Who wins depends on what is asked. **The bound**: the unbiased estimators do (three of four of them; DisARM's variance is too large
at this learning rate). Straight-through has the better ELBO in training, -13,085 nats against RELAX's -13,144, and the worse one
on test by 200 nats. **Distortion**: Gumbel straight-through and RELAX are level, and RELAX needs 16 bits of an image fewer.
**Structure**: the quantisers, which pay for no rate, keep the most of it by SSIM. With three seeds, differences within two standard
errors say nothing. Nor is a longer run a better bound on these two photographs: after 150 steps the bits per dimension are 7.08 to
7.15 at 16 to 17 dB, for what a run gains in likeness it loses in being too sure. Milliseconds are of the step as it is, not
compiled, of one thread alone on the machine (the command below with `--seeds 1 --max_steps 150 --threads 1`).

`dvae compare --estimators '[RELAX, REBAR, LOO(num_samples=4), DisARM, GumbelStraightThrough, ReinMax]' --variants '[spatial_fsq,
spatial_lfq]' --seeds 3 --apart --max_steps 1000 --num_samples 10 --num_draws 50 --config spatial --config start.yaml
--model.encoder.channels 16 --model.encoder.blocks 1 --model.decoder.channels 16 --model.decoder.blocks 1 --model.lr .002
--data.batch_size 16 --data.patches 8000`, where `start.yaml` holds `model: {phi_warmup_steps: 0}`.
"""

from dvae.models.autoencoder import Autoencoder
from dvae.models.quantized import Quantized
from dvae.models.quantizers import BSQ, FSQ, LFQ, VQ, Quantizer, QuantizerOutput
from dvae.models.vae import VAE, Layer

__all__ = ["BSQ", "FSQ", "LFQ", "VAE", "VQ", "Autoencoder", "Layer", "Quantized", "Quantizer", "QuantizerOutput"]
