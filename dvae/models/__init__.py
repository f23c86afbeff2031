"""The mathematics of the autoencoder: a plain ``nn.Module`` that needs no trainer.

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
"""

from dvae.models.vae import VAE, Layer

__all__ = ["VAE", "Layer"]
