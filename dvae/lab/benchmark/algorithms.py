"""The steps that others write for one model and one estimator: what :mod:`plain_torch` and :mod:`plain_jax` have in common."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from dvae.training.module import DiscreteVAE

__all__ = ["ALGORITHMS", "BLOCK", "DECODER", "ENCODER", "ETA", "NETWORK", "PRIOR", "TEMPERATURE", "Algorithm", "tensors_of"]

BLOCK = 50
"""Steps of one ``training_step`` of Lightning's where ours are compiled, and of one call of a compiled function of JAX's."""


class Algorithm(NamedTuple):
    """What a plain step does: samples, whether there is a control variate, with a network, and how its noise is coupled."""

    num_samples: int = 1
    controlled: bool = False
    network: bool = False
    coupled: bool = True

    @property
    def num_noise(self) -> int:
        """Uniforms for each latent and sample."""
        return 1 if self.coupled else 2


ALGORITHMS = {
    "REINFORCE": Algorithm(),
    "LOO": Algorithm(num_samples=2),
    "REBAR": Algorithm(controlled=True),
    "REBAR(coupled=False)": Algorithm(controlled=True, coupled=False),
    "RELAX": Algorithm(controlled=True, network=True),
    "RELAX(coupled=False)": Algorithm(controlled=True, network=True, coupled=False),
}
"""Those that are written plainly, by their names in the catalogue."""

# Names of the model's parameters, or what they begin with.
ENCODER, DECODER, PRIOR = "encoders.0.layers.0", "decoders.0.layers.0", "prior.logits"
TEMPERATURE, ETA, NETWORK = "estimators.0.log_temperature", "estimators.0.eta", "estimators.0.network"


def tensors_of(model: DiscreteVAE) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Copies of the linear model's parameters by name, of the data's mean and of the outputs' start, [num_pixels] each."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}, model.mean.clone(), model.output_bias.clone()
