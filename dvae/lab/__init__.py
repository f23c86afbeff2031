"""Instruments: what to do with an estimator or a trained model besides training it."""
