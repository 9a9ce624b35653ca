"""The other dynamics of the family: subgradient, integrate-and-fire and parallel spiking networks."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from models import Residual, images, randomise_batch_norm, relu_cnn
from snn_convert import QCFS, UnsupportedOperation, convert
from snn_convert.rectifiers import ParallelPopulation
from snn_kernels.schedules import Exponential, Inverse
from test_convert_operations import Applied

STEPS = [1, 2, 3, 7, 8, 9, 16, 33, 64, 128]


def relu_mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 5))


def seeded_model(make) -> nn.Module:
    torch.manual_seed(0)
    return randomise_batch_norm(make())


class Units(TorchFunctionMode):
    """While active, the n-th ReLU of a call is ``units[n]``, which sees what enters it."""

    def __init__(self, units):
        super().__init__()
        self.units = units

    def __enter__(self):
        self.position = 0
        return super().__enter__()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (F.relu, torch.relu):
            unit = self.units[self.position]
            self.position += 1
            return unit(args[0])
        return func(*args, **(kwargs or {}))


class SubgradientUnit:
    """``v <- v - eta (v - c [x > v])``, x being the value: no spikes, no currents (design, section 1)."""

    def __init__(self, scale):
        self.scale, self.v, self.eta = scale, None, None

    def __call__(self, x):
        v = torch.zeros_like(x) if self.v is None else self.v
        self.v = v - self.eta * (v - self.scale * (x > v).float())
        return self.v


class IntegrateAndFireUnit:
    """A ReLU's place taken by a neuron that is fed currents and sends spikes."""

    def __init__(self, scale):
        self.scale, self.u = scale, 0.5 * scale

    def __call__(self, current):
        u = self.u + current
        spike = (u >= self.scale).float()
        self.u = u - self.scale * spike
        return self.scale * spike


@pytest.mark.parametrize("make", [relu_mlp, relu_cnn, Residual], ids=lambda make: make.__name__)
@torch.no_grad()
def test_the_subgradient_recipe_agrees_with_its_value_domain_oracle(make):
    model, x = seeded_model(make), images()
    snn = convert(model, [x], timesteps=128, recipe="subgradient")
    assert snn.schedule == Inverse(1.0, start=2)
    found = snn.outputs_at(x, steps=STEPS)
    units = [SubgradientUnit(population.scale) for _, population in snn.populations()]
    with Units([torch.zeros_like for _ in units]):
        silent = model(x)
    left = 1.0
    for t, eta in enumerate(snn.eta, start=1):
        for unit in units:
            unit.eta = eta
        with Units(units):
            decoded = model(x)
        # The paper's decoder y <- y + eta (current - y) starts at 0 instead of at L(0).
        left = left * (1 - eta)
        if t in STEPS:
            expected = decoded - left * silent
            error = (found[STEPS.index(t)] - expected).norm() / expected.norm()
            assert error < 1e-3, t


@pytest.mark.parametrize("make", [relu_mlp, relu_cnn, Residual], ids=lambda make: make.__name__)
@torch.no_grad()
def test_the_integrate_and_fire_recipe_agrees_with_a_loop_over_currents(make):
    model, x = seeded_model(make), images()
    snn = convert(model, [x], timesteps=64, recipe="integrate_and_fire")
    found = snn.outputs_at(x, steps=[8, 64])
    units = [IntegrateAndFireUnit(population.scale) for _, population in snn.populations()]
    total = torch.zeros(())
    for t in range(1, 65):
        with Units(units):
            total = total + model(x)
        if t in (8, 64):
            expected = total / t
            # A membrane that comes within rounding of its threshold may fire a step later: 1e-2 of a single output.
            assert (found[[8, 64].index(t)] - expected).norm() / expected.norm() < 1e-2


def rectifying() -> nn.Module:
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 8, 3)
            self.head = nn.Linear(8, 5)

        def forward(self, x):
            x = F.max_pool2d(F.leaky_relu(self.first(x), 0.1), 2)
            x = F.relu6(self.second(x))
            y = torch.maximum(x, x.flip(1)) + torch.minimum(x, 0.5 * x.flip(1)) + torch.abs(x - 0.3)
            return self.head(F.hardtanh(y, -0.5, 0.75).mean((2, 3)))

    return Network()


@pytest.mark.parametrize("recipe", ["subgradient", "integrate_and_fire", "parallel"])
@torch.no_grad()
def test_maxima_and_clips_are_made_of_relus(recipe):
    model, x = seeded_model(rectifying), images(12)
    target = model(x)
    error = [
        ((convert(model, [x], timesteps=steps, recipe=recipe)(x) - target).norm() / target.norm()).item()
        for steps in (16, 256)
    ]
    # The rounding of a count falls with 1 / T; a level of seven such populations deep adds a few.
    assert error[1] < 0.02
    assert error[1] < 0.35 * error[0]


@pytest.mark.parametrize(
    "clip", [partial(torch.clamp, max=0.3), partial(torch.clamp_max, max=0.3), partial(torch.clamp, min=0.1, max=0.5)]
)
@torch.no_grad()
def test_clips_on_either_side_are_made_of_relus(clip):
    torch.manual_seed(0)
    model, x = Applied(clip).eval(), torch.randn(16, 6)
    model(x)
    snn = convert(model, [x], recipe="subgradient", timesteps=2)
    torch.testing.assert_close(snn.network(x)[0], model(x))


def qcfs_network(levels: int) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), QCFS(levels, 1.5), nn.AvgPool2d(2),
        nn.Conv2d(8, 12, 3, padding=1), QCFS(levels, 0.7), nn.Flatten(), nn.Linear(192, 10),
    ).eval()  # fmt: skip


@pytest.mark.parametrize("levels", [2, 4, 8, 9])
@torch.no_grad()
def test_a_qcfs_network_converts_without_loss(levels):
    model, x = qcfs_network(levels), images(64)
    snn = convert(model, [x[:4]], timesteps=levels, recipe="parallel")
    found, expected = snn(x), model(x)
    same = ((found - expected).abs() <= 1e-5).all(1)
    # Where an input lies within rounding of a level, the two may round to neighbours: of 640 outputs, none is seen to.
    assert same.float().mean() > 0.98


@torch.no_grad()
def test_other_timesteps_than_levels_keep_the_expectation():
    """Over a range of inputs the mean of the transmitted value is that of the clipped input for every T."""
    x = (torch.arange(4800) + 0.5) / 4800 * 1.5
    for timesteps in (1, 3, 8, 16):
        population = ParallelPopulation("relu")
        population.scale = torch.tensor(1.5)
        assert population.quantised(x, timesteps).mean() == pytest.approx(x.mean().item(), abs=1e-3)


def test_the_gradient_of_qcfs_passes_through_its_floor():
    x = torch.linspace(-1, 3, 401, dtype=torch.float64, requires_grad=True)
    module = QCFS(4, 1.3).double()
    weight = torch.randn(401, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (weight * module(x)).sum().backward()
    found = x.grad.clone(), module.threshold.grad.clone()
    x.grad = module.threshold.grad = None
    z = x * 4 / module.threshold + 0.5
    straight = z + (z.floor() - z).detach()
    (weight * module.threshold * (straight / 4).clamp(0, 1)).sum().backward()
    torch.testing.assert_close(found[0], x.grad)
    torch.testing.assert_close(found[1], module.threshold.grad)


@pytest.fixture(scope="module")
def digits():
    """A small CNN, trained on scikit-learn's digits for a few seconds, and images of it."""
    from sklearn.datasets import load_digits

    data = load_digits()
    x, y = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16, torch.tensor(data.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = x[order], y[order]
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(250):
        batch = slice(step * 64 % 1280, step * 64 % 1280 + 64)
        loss = F.cross_entropy(model(x[batch]), y[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval(), x[:256].split(64), x[1280:], y[1280:]


@pytest.mark.parametrize("timesteps", [2, 4])
@torch.no_grad()
def test_calibration_lowers_the_error_of_every_layer_and_of_the_output(digits, timesteps):
    model, calibration, x, _ = digits
    errors = {}
    for correction in ("none", "published", "unbiased"):
        snn = convert(model, calibration, timesteps=timesteps, recipe="parallel", correction=correction)
        layers, clipped = [], {}

        def teacher(population, inputs, clipped=clipped):
            clipped[population] = torch.minimum(population(*inputs), population.scale)
            return clipped[population]

        def student(population, inputs, clipped=clipped, layers=layers, timesteps=timesteps):
            output = population.quantised(inputs[0], timesteps)
            channels = {d % output.ndim for d in population.channel_dims}
            others = [d for d in range(output.ndim) if d not in channels]
            layers.append((output - clipped[population]).mean(others).abs().mean().item())
            return output

        snn.engine.start([x], teacher)
        snn.engine.start([x], student)
        # What the corrections are for is the mean: of the rest, rounding noise, they take nothing away.
        target = model(x).mean(0)
        errors[correction] = [*layers, ((snn(x).mean(0) - target).norm() / target.norm()).item()]
    for correction in ("published", "unbiased"):
        assert sum(errors[correction][:-1]) < 0.7 * sum(errors["none"][:-1])
        assert errors[correction][-1] < 0.7 * errors["none"][-1]


@torch.no_grad()
def test_a_published_correction_settles_below_the_unbiased_one(digits):
    """For one layer: at error / (1 + level) beside error / level."""
    x = torch.rand(1000, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.4, 0.7, 1.0])
    model = nn.Sequential(nn.ReLU(), nn.Linear(3, 2)).eval()
    found = {}
    for correction in ("published", "unbiased"):
        snn = convert(model, [(x**3)], timesteps=3, recipe="parallel", correction=correction)
        ((_, population),) = snn.populations()
        level = population.quantised(x**3, 3) / (population.scale + population.post)
        error = (x**3 - population.scale * level).mean(0)
        divisor = 1 + level.mean(0) if correction == "published" else level.mean(0)
        # 300 updates leave 5% of the way to go.
        torch.testing.assert_close(population.post.reshape(-1), error / divisor, atol=3e-3, rtol=0.1)
        found[correction] = population.post.abs().sum()
    assert found["published"] < found["unbiased"]


@pytest.mark.parametrize(("recipe", "timesteps"), [("parallel", 8), ("integrate_and_fire", 32), ("subgradient", 64)])
@torch.no_grad()
def test_predictions_survive(digits, recipe, timesteps):
    model, calibration, x, y = digits
    snn = convert(model, calibration, timesteps=timesteps, recipe=recipe)
    ann, spiking = (outputs.argmax(1) for outputs in (model(x), snn(x)))
    assert (ann == y).float().mean() > 0.9
    assert (ann == spiking).float().mean() > 0.97


@torch.no_grad()
def test_steps_of_a_parallel_network_add_up():
    """Windows that are cut anywhere give what whole ones give."""
    model, x = seeded_model(relu_mlp), images()
    snn = convert(model, [x], timesteps=6, recipe="parallel")
    assert snn.latency == 12
    run = snn.start(x)
    for _ in range(snn.latency):
        run.step()
    torch.testing.assert_close(run.output(), snn(x))


@pytest.mark.parametrize("recipe", ["subgradient", "integrate_and_fire", "parallel"])
@torch.no_grad()
def test_sure_samples_stop(recipe):
    model, x = seeded_model(relu_mlp), 3 * images(12)
    snn = convert(model, [x], timesteps=32, recipe=recipe)
    output, steps = snn.run_until(x, confidence=0.28)
    assert steps.min() < steps.max()
    for sample, step in enumerate(steps.tolist()):
        # Smaller batches add up in another order: a membrane within rounding of its threshold may fire a step later.
        torch.testing.assert_close(output[sample], snn.outputs_at(x, steps=[step])[0][sample], atol=0.05, rtol=0.05)


@pytest.mark.parametrize("recipe", ["integrate_and_fire", "parallel"])
def test_thresholds_are_the_largest_values(recipe):
    """However few they are known from, unlike the ranges that signGD neurons have to reach."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)).eval(), torch.randn(8, 6)
    ((_, population),) = convert(model, [x], timesteps=4, recipe=recipe).populations()
    with torch.no_grad():
        largest = torch.relu(model[0](x)).amax(0)
    torch.testing.assert_close(population.scale[0], largest.clamp_min(0.01 * largest.max()))


def test_what_does_not_fit_is_named():
    x = images()
    smooth = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.GELU()).eval()
    for recipe in ("subgradient", "integrate_and_fire", "parallel"):
        with pytest.raises(UnsupportedOperation, match=r"aten.gelu.*clip\(x, 0, c\)"):
            convert(smooth, [x], recipe=recipe)
    with pytest.raises(UnsupportedOperation, match="recipe='parallel'"):
        convert(qcfs_network(4), [x])
    with pytest.raises(ValueError, match="encoder, v0: subgradient neurons"):
        convert(relu_mlp(), [x], recipe="subgradient", encoder="float")
    with pytest.raises(ValueError, match="correction: expected one of published"):
        convert(relu_mlp(), [x], recipe="parallel", correction="best")
    with pytest.raises(ValueError, match="correction: expected one of None for signgd neurons, got 'published'"):
        convert(relu_mlp(), [x], correction="published")
    with pytest.raises(ValueError, match="levels: expected an integer"):
        QCFS(0)


@pytest.mark.parametrize(
    ("recipe", "arguments", "message"),
    [
        ("parallel", {"schedule": Exponential()}, r"schedule: expected Uniform\(\), that of parallel neurons"),
        ("parallel", {"onset_delay": 3}, "onset_delay: expected 4, that of parallel neurons, got 3"),
        ("integrate_and_fire", {"onset_delay": 4}, "onset_delay: expected 0, that of integrate_and_fire neurons"),
    ],
)
def test_neurons_with_a_timing_of_their_own(recipe, arguments, message):
    model, x = seeded_model(relu_mlp), images()
    with pytest.raises(ValueError, match=message):
        convert(model, [x], timesteps=4, recipe=recipe, **arguments)
    snn = convert(model, [x], timesteps=4, recipe=recipe)
    wanted = snn(x)
    with pytest.raises(ValueError, match=message):
        snn.set_schedule(**{"schedule": snn.schedule, "timesteps": 4, **arguments})
    assert torch.equal(snn(x), wanted)
    snn.set_schedule(snn.schedule, 6)
    assert snn.onset_delay == (6 if recipe == "parallel" else 0)


@torch.no_grad()
def test_the_model_is_left_as_it_was():
    model = seeded_model(relu_mlp)
    before = copy.deepcopy(model.state_dict())
    convert(model, [images()], timesteps=4, recipe="parallel")
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
