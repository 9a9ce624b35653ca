import math
import re

import pytest
import torch

from snn_kernels.schedules import Constant, Exponential, Inverse, Polynomial, RMSprop, Table, Uniform

CASES = [
    (Exponential(), lambda t: 0.15 * 0.95**t),
    (Exponential(0.5, 0.7), lambda t: 0.5 * 0.7**t),
    (Inverse(), lambda t: 1 / (t + 1)),
    (Inverse(1.0, start=2), lambda t: 1 / (t + 2)),
    (Constant(0.25), lambda t: 0.25),
    (Polynomial(2.0, 0.5), lambda t: 2 / math.sqrt(t + 1)),
    (Polynomial(1.0, 1.0, start=3), lambda t: 1 / (t + 3)),
    (RMSprop(0.1, 0.9), lambda t: 0.1 / math.sqrt(1 - 0.9 ** (t + 1))),
]


@pytest.mark.parametrize(("schedule", "formula"), CASES, ids=[repr(schedule) for schedule, _ in CASES])
@pytest.mark.parametrize("timesteps", [0, 1, 7, 33, 500])
def test_table_is_the_formula_rounded_once(schedule, formula, timesteps):
    table = schedule.table(timesteps)
    assert table.dtype == torch.float32
    assert table.shape == (timesteps,)
    # Python's and torch's float64 powers may differ in the last bit, which moves the float32 by one unit at most.
    expected = torch.tensor([formula(t) for t in range(timesteps)], dtype=torch.float64)
    # (2**-149 is the unit of the denormals, where the tables end.)
    assert ((table.double() - expected).abs() <= (expected * 2**-23).clamp(min=2**-149)).all()


@pytest.mark.parametrize(("schedule", "formula"), CASES, ids=[repr(schedule) for schedule, _ in CASES])
def test_a_longer_table_begins_with_the_shorter(schedule, formula):
    assert torch.equal(schedule.table(64)[:9], schedule.table(9))


@pytest.mark.parametrize("timesteps", [-1, 2.0, "8", None])
def test_wrong_timesteps_are_named(timesteps):
    with pytest.raises(ValueError, match="timesteps"):
        Exponential().table(timesteps)


@pytest.mark.parametrize(
    ("schedule", "arguments", "message"),
    [
        (Inverse, (1.0, 0.0), "start: expected a number above 0 and below inf, got 0.0"),
        (Polynomial, (1.0, 1.0, -1.0), "start: expected a number above 0 and below inf, got -1.0"),
        (RMSprop, (0.1, 1.0), "alpha: expected a number >= 0 and below 1, got 1.0"),
        (Constant, (math.nan,), "lr: expected a number >= 0 and below inf, got nan"),
        (Constant, (-0.1,), "lr: expected a number >= 0 and below inf, got -0.1"),
        (Constant, (None,), "lr: expected a number >= 0 and below inf, got None"),
        (Exponential, (0.1, math.inf), "gamma: expected a number >= 0 and below inf, got inf"),
        (Exponential, ("a",), "lr: expected a number >= 0 and below inf, got 'a'"),
        (Table, ((0.1, math.inf),), "values: expected numbers in [0, inf), got inf"),
        (Table, ((0.1, "a"),), "values: expected numbers in [0, inf), got 'a'"),
    ],
)
def test_step_sizes_are_finite_and_not_negative(schedule, arguments, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        schedule(*arguments)


def test_tables_are_on_the_cpu():
    with torch.device("meta"):
        for schedule in (Exponential(), Table((0.1, 0.2)), Uniform()):
            assert schedule.table(2).device.type == "cpu"


def test_schedules_are_values():
    assert Exponential() == Exponential(0.15, 0.95)
    assert hash(Inverse()) == hash(Inverse(1.0, 1.0))


def test_rmsprop_is_that_of_torch_optim():
    weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimiser = torch.optim.RMSprop([weight], lr=0.1, alpha=0.9, eps=0.0)
    for eta in RMSprop(0.1, 0.9).table(20):
        before = weight.item()
        weight.grad = torch.ones_like(weight)
        optimiser.step()
        # The table is rounded to float32.
        assert before - weight.item() == pytest.approx(eta.item(), rel=2**-23)


def test_step_sizes_given_one_by_one():
    values = (0.5, 0.1, 0.3)
    assert Table(values).table(2).tolist() == torch.tensor(values[:2]).tolist()
    with pytest.raises(ValueError, match="timesteps: expected at most 3, the step sizes given, got 4"):
        Table(values).table(4)
