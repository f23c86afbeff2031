"""For test suites: pytest fixtures that certify a gradient estimator.

Put ``from dvae.testing import certified`` into ``conftest.py`` (or the test's own file), and write::

    def test_my_estimator_is_unbiased(certified):
        certified(MyEstimator())
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dvae.estimators import GradientEstimator
from dvae.lab.certify.certificate import Certificate, certify

__all__ = ["certified"]


@pytest.fixture
def certified() -> Callable[..., Certificate]:
    """A function that certifies an estimator, or its class, and fails the test with the verdict where it is not sound.

    Its arguments are those of :func:`dvae.certify`; by default 20,000 draws of each of 4 problems, some seconds.
    """

    def check(estimator: GradientEstimator | type[GradientEstimator], **options: Any) -> Certificate:
        certificate = certify(estimator, **{"num_problems": 4, "num_samples": 20_000, **options})
        if not certificate.passed:
            worst = max(certificate.reports, key=lambda report: report.max_z)
            pytest.fail(f"{certificate.estimator}: {certificate.verdict} (in the problem '{worst.problem}')", pytrace=False)
        return certificate

    return check
