"""How long a training step takes: eager, compiled and of several models at once; by itself and through Lightning's Trainer."""

from dvae.lab.benchmark.algorithms import ALGORITHMS
from dvae.lab.benchmark.growth import GROWTH, Pace, growth, long_run
from dvae.lab.benchmark.peers import PeerTime, against_peers
from dvae.lab.benchmark.processes import ProcessSpeed, process_speed, projected
from dvae.lab.benchmark.products import count_products
from dvae.lab.benchmark.spatial import SPATIAL, SpatialSpeed, spatial_speed
from dvae.lab.benchmark.steps import MODES, StepTime, benchmark
from dvae.lab.benchmark.subject import ESTIMATORS

__all__ = [
    "ALGORITHMS",
    "ESTIMATORS",
    "GROWTH",
    "MODES",
    "SPATIAL",
    "Pace",
    "PeerTime",
    "ProcessSpeed",
    "SpatialSpeed",
    "StepTime",
    "against_peers",
    "benchmark",
    "count_products",
    "growth",
    "long_run",
    "process_speed",
    "projected",
    "spatial_speed",
]
