"""Policy gradients measured: bias against enumeration, variance at a fixed policy, episodes to solve a task."""

from dvae.lab.policies.certificate import PolicyReport, TabularProcess, certify_arm, certify_policy
from dvae.lab.policies.comparison import ArmRun, Solved, run_arm
from dvae.lab.policies.variance import ArmVariance, policy_variance

__all__ = [
    "ArmRun",
    "ArmVariance",
    "PolicyReport",
    "Solved",
    "TabularProcess",
    "certify_arm",
    "certify_policy",
    "policy_variance",
    "run_arm",
]
