"""Certificates: an estimator's bias and variance, measured against exact enumeration on random small problems.

The one idea: an estimator is a claim, and `certify` tests it: z-scores of its mean gradient against enumeration over random
problems, problems with extreme logits and a two-layer model, 200,000 draws each, for every family of latents that it supports; its
variance beside REINFORCE's, its number of evaluations, and whether it differentiates f.

    >>> certificate = dvae.certify(dvae.estimators.StraightThrough(), num_problems=1, num_samples=4000)
    >>> certificate.passed  # it is biased, as it says
    False

```bash
dvae certify REBAR --num_problems 4 --num_samples 20000 --phi_steps 50
```

The exit status says whether it passed; `dvae certify --all` does so for the whole library, also for the biased ones, whose bias it
states. The tests hold every estimator against its equation by hand, and against some sixty mutants of their sources (a sign
flipped, a term dropped, a path detached), each of which the certificate must reject. In a test suite of your own it is a fixture:

```python
# conftest.py
from dvae.testing import certified  # noqa: F401


# test_my_estimators.py
def test_mean_baseline_is_unbiased(certified):
    import dvae

    certified(dvae.estimators.DisARM())
```

`certify_model` does the same for the whole training step of a small model of your own: its likelihood, prior, objective, networks.
"""

from dvae.lab.certify.certificate import Certificate, ProblemReport, certify, certify_model, num_reports
from dvae.lab.certify.exact import ExactGradient, exact_gradient
from dvae.lab.certify.problems import Problem, random_problems

__all__ = [
    "Certificate",
    "ExactGradient",
    "Problem",
    "ProblemReport",
    "certify",
    "certify_model",
    "exact_gradient",
    "num_reports",
    "random_problems",
]
