"""Metrics, on torchmetrics: means with their standard error, how a code is used, and how alike images are.

Each is a ``torchmetrics.Metric``, which adds up over batches and over processes. `dvae evaluate` prints them; to log them after
every validation of a run, give `dvae.training.callbacks.Measures` to the trainer:

```python
# metrics along a run
import pytorch_lightning as pl
import torchmetrics

import dvae
from dvae.training.callbacks import Measures

model = dvae.DiscreteVAE(estimator=dvae.estimators.LOO())
measures = Measures(
    reconstructions={"psnr": torchmetrics.image.PeakSignalNoiseRatio(data_range=1.0)},
    codes={"usage": dvae.metrics.CodeUsage([200])},
)
trainer = pl.Trainer(max_steps=20, val_check_interval=20, limit_val_batches=1, callbacks=[measures], logger=False)
trainer.fit(model, datamodule=dvae.data.BinarizedMNIST())
print(trainer.callback_metrics["val/psnr"], trainer.callback_metrics["val/usage"])
```

```bash
dvae fit --config l1 --config rebar --trainer.max_steps 60 --name measured --trainer.callbacks+ Measures \
  --trainer.callbacks.codes '{usage: {class_path: dvae.metrics.CodeUsage, init_args: {shape: [200]}}}'
```
"""

from dvae.metrics.codes import ActiveUnits, BitInformation, CodeEntropy, CodeRate, CodeUsage
from dvae.metrics.images import frechet_distance, psnr, ssim
from dvae.metrics.means import MeanWithError

__all__ = [
    "ActiveUnits",
    "BitInformation",
    "CodeEntropy",
    "CodeRate",
    "CodeUsage",
    "MeanWithError",
    "frechet_distance",
    "psnr",
    "ssim",
]
