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
"""

from dvae.models.autoencoder import Autoencoder
from dvae.models.quantized import Quantized
from dvae.models.quantizers import BSQ, FSQ, LFQ, VQ, Quantizer, QuantizerOutput
from dvae.models.vae import VAE, Layer

__all__ = ["BSQ", "FSQ", "LFQ", "VAE", "VQ", "Autoencoder", "Layer", "Quantized", "Quantizer", "QuantizerOutput"]
