"""Certificates: an estimator's bias and variance, measured against exact enumeration on random small problems."""

from dvae.lab.certify.certificate import Certificate, ProblemReport, certify, num_reports
from dvae.lab.certify.exact import ExactGradient, exact_gradient
from dvae.lab.certify.problems import Problem, random_problems

__all__ = [
    "Certificate",
    "ExactGradient",
    "Problem",
    "ProblemReport",
    "certify",
    "exact_gradient",
    "num_reports",
    "random_problems",
]
