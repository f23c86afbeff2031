"""The errors that a user is meant to read: one clear sentence each."""

__all__ = ["InputError", "NonFiniteError"]


class InputError(ValueError):
    """An argument, file or batch is not what was expected; the message names it, what was given and what was expected."""


class NonFiniteError(ArithmeticError):
    """A training step produced a NaN or an infinity; the message names the step and the quantity."""
