"""The mathematics of the autoencoder: a plain ``nn.Module`` that needs no trainer."""

from dvae.models.vae import VAE, Layer

__all__ = ["VAE", "Layer"]
