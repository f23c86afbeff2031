"""A study's trials are shared by its workers: each is done once, and none is lost with the worker that had it."""

import math
import time
from types import SimpleNamespace

import pytest
import torch

from dvae.errors import InputError
from dvae.training.study import Pruning, Study

SWEEP = {"lr": [0.1, 0.01], "estimator": ["LOO"]}


@pytest.fixture
def worker(tmp_path):
    """Opens the study, as each worker does."""
    pytest.importorskip("optuna")

    def opened(sweep=SWEEP, replicas=1, name="s", **options) -> Study:
        return Study(f"sqlite:///{tmp_path / 'study.db'}", name, sweep, replicas, **options)

    return opened


def test_workers_share_the_trials_and_each_is_done_once(worker):
    one, other = worker(replicas=2), worker(replicas=2)
    claims = [study.claim() for study in (one, other, other, one)]
    assert [claim.number for claim in claims] == [0, 1, 2, 3]
    assert [(claim.setting["lr"], claim.seed) for claim in claims] == [(0.1, 0), (0.1, 1), (0.01, 0), (0.01, 1)]
    for study, claim in zip((one, other, other, one), claims, strict=True):
        assert study.finish(claim, float(claim.number))
    assert one.claim() is None
    assert [(own.state, own.value) for own in other.outcomes()] == [("complete", float(index)) for index in range(4)]


def test_a_trial_of_a_worker_that_is_not_heard_of_is_anothers_and_one_that_lives_keeps_its_own(worker):
    dead, living, next_one = (worker(heartbeat=1) for _ in range(3))
    lost, kept = dead.claim(), living.claim()
    with living.alive(kept):
        time.sleep(4.5)
        again = next_one.claim()
        assert (again.number, again.setting) == (lost.number, lost.setting)
    assert not dead.finish(lost, 5.0)
    assert next_one.finish(again, 1.0)
    assert living.finish(kept, 2.0)
    assert [own.value for own in next_one.outcomes()] == [1.0, 2.0]


def test_what_two_workers_put_into_the_queue_at_once_is_done_once(worker):
    study, rival = worker(), worker()
    for index, setting in enumerate(study.settings):  # as if the rival had looked before the first worker's were there
        rival._study.enqueue_trial(setting, user_attrs={"index": index})
        study._study.enqueue_trial(setting, user_attrs={"index": index})
    done = []
    while True:
        if (claim := study.claim()) is None:
            break
        done.append(claim.number)
        study.finish(claim, 0.0)
    assert done == [0, 1]
    assert len(study.outcomes()) == 2


def test_a_trial_that_is_given_back_is_free_at_once_and_one_that_failed_is_not_tried_again(worker):
    study = worker()
    study.release(study.claim())
    first = study.claim()
    assert first.number in (0, 1)
    study.fail(first, "loss is not finite")
    last = study.claim()
    assert {first.number, last.number} == {0, 1}
    study.finish(last, 1.0, pruned=True)
    assert study.claim() is None
    states = {own.number: (own.state, own.failure) for own in study.outcomes()}
    assert states == {first.number: ("failed", "loss is not finite"), last.number: ("pruned", None)}


def test_a_value_drawn_from_a_range_stays_that_of_its_trial(worker):
    study = worker({"lr": {"log": [1e-4, 1e-2]}, "beta": {"uniform": [0, 1]}}, trials=2)
    claim = study.claim()
    assert 1e-4 <= claim.setting["lr"] <= 1e-2
    study.release(claim)
    claims = {own.number: own.setting for own in (study.claim(), study.claim())}
    assert claims[claim.number] == claim.setting
    assert len(claims) == 2


def test_a_run_that_is_worse_than_the_others_at_its_step_is_stopped(worker):
    study = worker({"lr": [0.1 * k for k in range(1, 9)]}, pruner="median")
    stopped = []
    for index in range(8):
        claim = study.claim()
        pruning = Pruning(claim, "val/elbo")
        trainer = SimpleNamespace(sanity_checking=False, global_step=10, should_stop=False)
        trainer.callback_metrics = {"val/elbo": torch.tensor(-100.0 if index == 7 else -90.0)}
        pruning.on_validation_end(trainer, None)
        assert pruning.pruned == trainer.should_stop
        stopped += [index] if pruning.pruned else []
        study.finish(claim, -90.0, pruning.pruned)
    assert stopped == [7]


def test_a_measure_that_validation_does_not_log_is_named(worker):
    trainer = SimpleNamespace(sanity_checking=False, global_step=10, callback_metrics={"val/elbo": torch.tensor(math.nan)})
    with pytest.raises(InputError, match="metric must be logged by validation, one of val/elbo, got val/loss"):
        Pruning(worker().claim(), "val/loss").on_validation_end(trainer, None)


def test_what_cannot_be_a_study_is_refused(worker):
    for sweep, options, sentence in (
        ({"lr": []}, {}, "sweep must give a list of values for each argument, or a range"),
        ({"lr": {"log": [0, 1]}}, {}, "or a range"),
        ({"lr": [[1]]}, {}, "values of lr must be numbers or names where an engine is used"),
        ({"lr": {"uniform": [0, 1]}}, {}, "trials must say how many settings"),
        (SWEEP, {"trials": 3}, "trials is for sweeps with ranges, got 3"),
        (SWEEP, {"pruner": "best"}, "pruner must be out of none, median, halving, got best"),
        (SWEEP, {"heartbeat": 0}, "heartbeat must be at least 1, got 0"),
        (SWEEP, {"replicas": 0}, "replicas must be at least 1, got 0"),
    ):
        with pytest.raises(InputError, match=sentence):
            worker(sweep, **options)
    with pytest.raises(InputError, match=r"storage nowhere cannot be opened as a database, such as sqlite:///sweep.db: "):
        Study("nowhere", "s", SWEEP)


def test_workers_of_other_arguments_do_not_join(worker):
    worker(arguments={"model.num_latents": 4})
    with pytest.raises(InputError, match=r"name s is that of a study in this storage with another model\.num_latents"):
        worker(arguments={"model.num_latents": 5})
    worker(name="other", arguments={"model.num_latents": 5})
