"""Fitting models with Lightning."""
