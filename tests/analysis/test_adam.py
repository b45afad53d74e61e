"""Adam's exchange rates beside the plain ones, against hand-worked pulls."""

import numpy as np
import pytest
from influence_table import rows

from holdfast.analysis import adam
from holdfast.analysis.statistics import Interval

DATA = rows(
    *((0, "p", 10, (1, -9)), (0, "q", 10, (1, -9))),
    *((5, "p", 10, (4, -1)), (5, "q", 10, (2, -2))),
    *((9, "p", 10, (1, 1)), (9, "q", 10, (1, 1))),
)
"""Pulls on the target and on color at the beginning, at a checkpoint, and at the end."""
OWN = np.array([[np.nan, np.nan]] * 2 + [[2.0, 1.0], [4.0, 1.0]] + [[1.0, 1.0]] * 2)
STEPS = [0, 5, 9]
KINDS = ("dot", "adam_dot")


def scaled(pulls=OWN):
    return DATA._replace(adam=np.array(pulls))


def test_adams_rate_is_worked_from_the_preconditioned_dots_and_unknown_at_the_beginning():
    found = adam.intervals(scaled(), STEPS, 0)
    assert found[0]["adam_exchange"]["color"] is None
    assert found[5]["adam_dot"]["color"] == pytest.approx(Interval(0.1, 0.1, 0.1))
    # −2 / 6, with resamples −1 / 2 and −1 / 4.
    assert found[5]["adam_exchange"]["color"] == pytest.approx(Interval(-1 / 3, -1 / 2, -1 / 4))


def test_along_training_both_rates_are_without_the_stretch_that_adam_lacks():
    found = adam.beside(scaled(), STEPS, 0)
    assert found["along"]["exchange"]["color"].value == pytest.approx(3 / 6)
    assert found["along"]["adam_exchange"]["color"].value == pytest.approx(-2 / 6)
    assert found["along"]["exchange"] == found["last"]["exchange"]


def test_the_last_checkpoint_is_one_that_something_was_learned_from():
    assert adam.beside(scaled(), STEPS, 0)["step"] == 5
    idle = scaled()._replace(weights=np.array([1.0, 1, 0, 0, 1, 1]))
    assert adam.last_learned(idle, STEPS) == 0


def test_without_moments_there_is_nothing_to_lay_beside():
    assert adam.beside(scaled(np.full((6, 2), np.nan)), STEPS, 0) is None
    assert adam.signs([{"adam": None}])["along"] == (0, 0, 0)


def pair(plain, own):
    """Of a source whose rates are not known."""
    dots = {
        kind: dict.fromkeys(("jigsaw", "mean", "color"), one) for kind, one in zip(KINDS, (plain, own), strict=True)
    }
    return dots | {"exchange": {"mean": None, "color": None}}


def test_opposite_signs_are_counted_by_source_and_prior_benchmark_even_without_a_rate():
    below, above, unsure = Interval(-1, -2, -0.5), Interval(1, 0.5, 2), Interval(1, -0.5, 2)
    given = [pair(below, above), pair(below, unsure), pair(above, unsure), pair(below, None), pair(None, above)]
    found = adam.signs([{"adam": {"along": one, "last": pair(above, above)}} for one in given])
    assert found["along"] == adam.Signs(compared=3, differ=2, sure=1)
    assert found["last"] == adam.Signs(compared=5, differ=0, sure=0)
