"""Maps from features to logits, and the control variates' networks. Every latent enters a network as 2b - 1."""

from dvae.networks.convolutional import ConvDecoder, ConvEncoder
from dvae.networks.dense import MLP, Linear, dense
from dvae.networks.surrogate import SurrogateNetwork

__all__ = ["MLP", "ConvDecoder", "ConvEncoder", "Linear", "SurrogateNetwork", "dense"]
