"""What a user of ``convert`` meets: structures, batches, modes, and errors that lose nothing."""

from __future__ import annotations

import copy
import pickle
from collections import UserDict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models import Residual, gelu_mlp, images, pooled_cnn, randomise_batch_norm
from snn_convert import CalibrationError, UnsupportedOperation, convert
from snn_convert.loop import single_step_loop
from snn_kernels import SpikeTrain
from snn_kernels.schedules import Constant, Exponential

QUICK = {"timesteps": 5, "schedule": Exponential(0.3, 0.8)}


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(3, 4), nn.Linear(2, 4), nn.Linear(4, 2)

    def forward(self, x, y, scale=None):
        hidden = F.relu(self.a(x) + self.b(y))
        hidden = hidden if scale is None else hidden * scale
        return {"logits": self.head(hidden), "parts": (hidden, x.sum(1))}


def test_several_inputs_and_structured_outputs():
    torch.manual_seed(0)
    model, x, y = TwoInputs(), torch.randn(5, 3), torch.randn(5, 2)
    snn = convert(model, [(x, y)], timesteps=32)
    out, wanted = snn(x, y), model(x, y)
    assert out.keys() == wanted.keys()
    assert isinstance(out["parts"], tuple)
    torch.testing.assert_close(out["logits"], wanted["logits"], atol=0.02, rtol=0)
    torch.testing.assert_close(out["parts"][1], x.sum(1))
    by_name = convert(model, [{"x": x, "y": y}], timesteps=32)
    torch.testing.assert_close(by_name(x=x, y=y)["logits"], wanted["logits"], atol=0.02, rtol=0)
    assert torch.equal(by_name(y=y, x=x)["logits"], by_name(x=x, y=y)["logits"])
    for arguments in (((x,), {"y": y}), ((), {"y": y, "x": x})):
        assert torch.equal(snn(*arguments[0], **arguments[1])["logits"], out["logits"])


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        (1, "", "expected positional arguments x, y; got 1 by position"),
        (3, "", "expected positional arguments x, y; got 3 by position"),
        (0, "", "expected positional arguments x, y; got none"),
        (1, "x", "expected positional arguments x, y; got 1 by position and keyword arguments x"),
        (0, "xz", "expected positional arguments x, y; got keyword arguments x, z"),
        (2, "z", "expected positional arguments x, y; got 2 by position and keyword arguments z"),
    ],
)
def test_arguments_that_are_not_those_of_the_calibration(args, kwargs, message):
    x, y = torch.randn(5, 3), torch.randn(5, 2)
    snn = convert(TwoInputs(), [(x, y)], **QUICK)
    with pytest.raises(TypeError, match=f"^inputs: {message}$"):
        snn(*(x, y, y)[:args], **dict.fromkeys(kwargs, x))


def test_arguments_by_name_stay_so():
    x, y = torch.randn(5, 3), torch.randn(5, 2)
    snn = convert(TwoInputs(), [{"y": y, "x": x}], **QUICK)
    with pytest.raises(TypeError, match=r"^inputs: expected keyword arguments .*; got 2 by position$"):
        snn(x, y)
    with pytest.raises(TypeError, match=r"^inputs: expected keyword arguments .*; got keyword arguments x$"):
        snn(x=x)


class Wrapped(nn.Module):
    """As models are wrapped whose outputs hold more than is wanted."""

    def __init__(self):
        super().__init__()
        self.model = TwoInputs()

    def forward(self, **batch):
        return self.model(**batch)


def test_arguments_that_are_passed_on():
    torch.manual_seed(0)
    model, batch = Wrapped().eval(), {"x": torch.randn(8, 3), "y": torch.randn(8, 2)}
    snn, direct = (convert(one, [batch], **QUICK) for one in (model, model.model))
    assert "forward" not in vars(model)
    assert torch.equal(snn(**batch)["logits"], direct(**batch)["logits"])
    with pytest.raises(TypeError, match=r"^inputs: expected keyword arguments .*; got keyword arguments x$"):
        snn(x=batch["x"])


class OfPairs(nn.Module):
    def forward(self, pair, z):
        return F.relu(pair[0]) + F.relu(pair[1]) + z


def test_an_argument_that_is_a_tuple():
    x = torch.randn(5, 3)
    snn = convert(OfPairs(), [((x, 2 * x), 3 * x)], **QUICK)
    assert torch.equal(snn((x, 2 * x), z=3 * x), snn((x, 2 * x), 3 * x))
    with pytest.raises(TypeError, match="inputs: expected positional arguments number 0, z; got keyword arguments z"):
        snn(z=x)
    with pytest.raises(TypeError, match=r"(?s)inputs: expected the structure .* got "):
        snn((x, x, x), x)


def test_one_tensor_for_two_arguments():
    """What is calibrated with is no more than an example: the arguments stay two."""
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(16, 2, batch_first=True).eval()
    h, q, k, v = torch.randn(4, 2, 5, 16)
    shared, apart = (convert(attention, [item], timesteps=32)(q, k, v)[0] for item in ((h, h, h), (h, h.clone(), +h)))
    assert torch.equal(shared, apart)


def test_a_factor_that_comes_with_the_input():
    """An activation times an input is a population with one constant decoded input."""
    torch.manual_seed(0)
    model, x, y = TwoInputs(), torch.randn(5, 3), torch.randn(5, 2)
    scale = torch.rand(5, 4) + 0.5
    snn = convert(model, [(x, y, scale)], timesteps=64)
    torch.testing.assert_close(snn(x, y, scale)["logits"], model(x, y, scale)["logits"], atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(2, 1, 8, 9), ValueError, r"input: expected shape \['any', 1, 8, 8\] on cpu, got torch.float32"),
        (torch.zeros(2, 64), ValueError, r"input: expected shape \['any', 1, 8, 8\] on cpu"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.float64), TypeError, "input: expected a tensor of torch.float32, got"),
        (torch.zeros(2, 1, 8, 8, device="meta"), ValueError, "input: expected shape .* on cpu, got .* on meta"),
    ],
)
def test_inputs_that_do_not_fit(x, error, message):
    snn = convert(gelu_mlp(), [images()], **QUICK)
    with pytest.raises(error, match=message):
        snn(x)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_batch_size_is_free(batch):
    torch.manual_seed(0)
    model = randomise_batch_norm(Residual())
    snn = convert(model, [images(1)], timesteps=9, schedule=Exponential(0.3, 0.8))
    x = images(7)
    torch.testing.assert_close(snn(x[:batch]), snn(x)[:batch], rtol=1e-3, atol=1e-3)


def test_outputs_at_any_steps_in_any_order():
    snn = convert(gelu_mlp(), [images()], timesteps=20, schedule=Exponential(0.3, 0.9))
    x = images()
    nine, one, again, last = snn.outputs_at(x, steps=[9, 1, 9, 20])
    assert torch.equal(nine, again)
    assert torch.equal(last, snn(x))
    assert not torch.equal(one, nine)
    assert len(snn.outputs_at(x, steps=torch.tensor([4, 8]))) == 2
    for steps in ([], [0], [21], [1.5], [True], 8, torch.tensor(8), None):
        with pytest.raises(ValueError, match=r"steps: expected integers from 1 to timesteps=20"):
            snn.outputs_at(x, steps=steps)


def test_the_model_is_left_as_it_was():
    torch.manual_seed(0)
    model = Residual().train()
    model.first_norm.eval()
    before, modes = copy.deepcopy(model.state_dict()), {n: m.training for n, m in model.named_modules()}
    snn = convert(model, [images()], **QUICK)
    assert {n: m.training for n, m in model.named_modules()} == modes
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    with torch.no_grad():
        wanted = snn(images())
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(snn(images()), wanted)  # the spiking network has its own parameters


def test_converts_in_evaluation_mode():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2)
    )
    x = images(32)
    snn = convert(model.train(), [x], timesteps=64)
    torch.testing.assert_close(snn(x), model.eval()(x), atol=0.02, rtol=0)


class SharedAndUnused(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.act, self.norm = nn.Linear(4, 4), nn.ReLU(), nn.BatchNorm1d(4)
        self.unused = nn.LSTM(4, 4)

    def forward(self, x):
        x = self.norm(self.layer(x))
        x = self.act(x)
        return self.layer(self.act(self.layer(x)))


def test_shared_and_unused_modules():
    """One module in three places: BatchNorm is folded into one of its uses and must leave the others alone."""
    torch.manual_seed(0)
    model = randomise_batch_norm(SharedAndUnused())
    x = torch.randn(32, 4)
    snn = convert(model, [x], timesteps=64)
    assert len(list(snn.populations())) == 2
    torch.testing.assert_close(snn(x), model(x), atol=0.02, rtol=0)


def test_progress_bars_do_not_change_the_result(capsys):
    torch.manual_seed(0)
    model = gelu_mlp()
    quiet, shown = (convert(model, [images()], timesteps=4, progress=progress) for progress in (False, True))
    assert torch.equal(quiet(images()), shown(images()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"timesteps": 0}, "timesteps: expected an integer >= 1, got 0"),
        ({"timesteps": 2.0}, "timesteps: expected an integer >= 1, got 2.0"),
        ({"timesteps": True}, "timesteps: expected an integer >= 1, got True"),
        ({"recipe": "best"}, "recipe: expected one of default, paper"),
        ({"recipe": ["default"]}, r"recipe: expected one of default, paper.*got \['default'\]"),
        ({"encoder": "poisson"}, "encoder: expected one of direct, float"),
        *(({"scale": s}, "scale: expected 'channel', 'paper' or a positive") for s in (-1.0, True, torch.inf)),
        ({"v0": "half"}, "v0: expected 'mean' or 'zero'"),
    ],
)
def test_arguments_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        convert(gelu_mlp(), [images()], **arguments)


def test_a_number_of_steps_may_be_of_numpy():
    assert convert(gelu_mlp(), [images()], timesteps=np.int64(3), onset_delay=np.int64(2)).latency == 5


@pytest.mark.parametrize("model", [F.relu, nn.Linear, None])
def test_what_is_no_model(model):
    with pytest.raises(TypeError, match=r"model: expected an nn\.Module, got "):
        convert(model, [images()], **QUICK)


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        ([], "expected at least one model input"),
        (3, "expected an iterable of model inputs, got 3"),
        ([images()[:0]], r"expected samples in every item, got a tensor \(0, 1, 8, 8\)"),
        ([images(), images()[:0]], r"expected samples in every item, got a tensor \(0, 1, 8, 8\)"),
        ([torch.randn(2, 63)], "the model refuses its first item"),
        ([images(), torch.randn(2, 63)], "the model refuses item 1"),
        ([images(), images() * torch.nan], "item 1 holds NaN or infinity"),
        ([images() * torch.inf], "item 0 holds NaN or infinity"),
        (["text"], "expected tensors, tuples of arguments or dicts"),
        ([images(), (images(), images())], "(?s)the model refuses item 1.*leave labels out"),
        ([(torch.randn(24, 63), torch.randn(1))], r"dimension 0 .* this item's have sizes 1, 24"),
        ([(images(), torch.arange(8))], "(?s)the model refuses its first item.*leave labels out"),
    ],
)
def test_calibration_that_does_not_fit(calibration, message):
    with pytest.raises(CalibrationError, match=message):
        convert(gelu_mlp(), calibration, **QUICK)


def test_a_tensor_or_a_mapping_is_one_item():
    torch.manual_seed(0)
    model, x = gelu_mlp(), images()
    wanted = convert(model, [x], **QUICK)(x)
    assert torch.equal(convert(model, x, **QUICK)(x), wanted)
    assert torch.equal(convert(model, UserDict(input=x), **QUICK)(input=x), wanted)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_models_of_another_precision(dtype):
    with pytest.raises(TypeError, match=r"model: expected float32 parameters, got .* in '1\.weight'"):
        convert(gelu_mlp().to(dtype), [images().to(dtype)], **QUICK)


@pytest.mark.parametrize("training", [False, True])
def test_pickles(training):
    model, x = gelu_mlp(), images()
    snn = convert(model, [x], **QUICK).train(training)
    twin = pickle.loads(pickle.dumps(snn))
    assert torch.equal(twin(x), snn(x))
    assert all(module.training is training for module in (*twin.modules(), *copy.deepcopy(snn).modules()))


def test_an_activation_that_overflows_in_calibration():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    with torch.no_grad():
        model[1].weight.fill_(3e38)
    with pytest.raises(CalibrationError, match="NaN or infinity at population '2'"):
        convert(model, [images()], **QUICK)


def test_populations_that_never_move_are_reported():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        model[1].bias.fill_(-1e3)
    with pytest.warns(UserWarning, match="never moved in the calibration data: 2"):
        snn = convert(model, [images()], **QUICK)
    assert torch.isfinite(snn(images())).all()


class Sorting(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.ReLU())

    def forward(self, x):
        return torch.cumprod(self.inner(x), 1)


def test_an_unsupported_operation_names_itself_its_place_and_a_way_out():
    model = nn.Sequential(nn.Linear(4, 4), Sorting())
    with pytest.raises(UnsupportedOperation) as caught:
        convert(model, [torch.randn(3, 4)], **QUICK)
    text = str(caught.value)
    assert "aten.cumprod" in text
    assert "module '1'" in text
    assert "torch.cumprod(self.inner(x), 1)" in text
    assert "snn_convert/rules.py" in text


def test_an_operation_with_an_unsupported_form():
    class Elu(nn.Module):
        def forward(self, x):
            return torch.ops.aten.elu(x, 1.0, 2.0)

    with pytest.raises(UnsupportedOperation, match="scale"):
        convert(nn.Sequential(nn.Linear(4, 4), Elu()), [torch.randn(3, 4)], **QUICK)


class Odd(nn.Module):
    """A function that is none of its input alone."""

    def __init__(self, odd):
        super().__init__()
        self.layer, self.odd = nn.Linear(4, 4), odd
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        return F.relu(self.odd(self, self.layer(x)))


def counted(model, x):
    model.calls += 1
    return x * model.calls


def observed(model, x):
    model.calls.copy_(x.mean())
    return x


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (lambda model, x: x + torch.rand(x.shape[0], 4), r"aten\.rand\.default at .*random"),
        (lambda model, x: x * torch.randn_like(model.layer.bias), r"aten\.randn_like\.default at .*random"),
        (lambda model, x: F.dropout(x, 0.5), r"aten\.(native_)?dropout\.default at .*random"),
        (lambda model, x: F.scaled_dot_product_attention(*3 * [x[:, None]], dropout_p=0.5), "dot_product.*random"),
        (counted, r"aten\.add\.Tensor at .*: it is written to 'calls'"),
        (observed, r"it is written to 'calls'"),
        (lambda model, x: x.add_(model.calls.add_(1)), r"it is written to 'calls'"),
    ],
)
def test_what_changes_from_call_to_call(odd, message):
    model = Odd(odd)
    with pytest.raises(UnsupportedOperation, match=f"(?s){message}"):
        convert(model, [torch.randn(3, 4)], **QUICK)
    assert model.calls == 0


@pytest.mark.parametrize(
    "odd",
    [
        lambda model, x: F.dropout(x, 0.5, model.training),
        lambda model, x: F.alpha_dropout(x, 0.5, model.training),
        lambda model, x: F.scaled_dot_product_attention(*3 * [x.reshape(-1, 2, 2)]),
    ],
)
def test_what_is_random_in_training_alone(odd):
    model, x = Odd(odd), torch.randn(3, 4)
    snn = convert(model, [x], **QUICK)
    torch.testing.assert_close(snn.network(x)[0], model.eval()(x))


class Branching(nn.Module):
    def forward(self, x):
        return x.relu() if x.sum() > 0 else x


def test_control_flow_keeps_torch_exports_own_message():
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the type is torch.export's
        convert(Branching(), [torch.ones(3, 4)], **QUICK)
    notes = "".join(getattr(caught.value, "__notes__", []))
    assert "control flow that depends on the data" in notes or not hasattr(caught.value, "add_note")


def test_firing_rates():
    snn = convert(pooled_cnn(), [images()], timesteps=16, schedule=Constant(0.1))
    rates = snn.firing_rates(images())
    assert list(rates) == [name for name, _ in snn.populations()]
    assert all(0.2 < rate < 0.8 for rate in rates.values())  # an estimate that has arrived goes up and down in turn


@pytest.mark.parametrize("delay", [0, 3])
def test_an_empty_batch(delay):
    snn = convert(pooled_cnn(), [images()], **QUICK, onset_delay=delay)
    empty = images()[:0]
    assert snn(empty).shape == (0, *snn(images()).shape[1:])
    assert all(train.shape[0] == 0 for train in snn.spikes(empty).values())
    for share in (snn.firing_rates, snn.profile):
        with pytest.raises(ValueError, match="inputs: expected at least one sample, got none"):
            share(empty)


@pytest.mark.parametrize("delay", [0, 3, 13])
def test_spikes(delay):
    """Of every population, all its steps, however a run cuts time into pieces."""
    snn = convert(pooled_cnn(), [images()], timesteps=13, schedule=Constant(0.1), onset_delay=delay)
    trains, rates = snn.spikes(images()), snn.firing_rates(images())
    assert list(trains) == list(rates)
    for name, train in trains.items():
        assert train.timesteps == 13
        assert train.shape[0] == len(images())
        assert train.firing_rate().item() == pytest.approx(rates[name])


def test_a_loop_that_follows_the_spikes_gives_the_output():
    """Whatever its own neurons decide."""
    snn = convert(pooled_cnn(), [images()], timesteps=13, schedule=Constant(0.1))
    x = images()
    trains, decisions = snn.spikes(x), []

    def record(t, name, inputs, target, v, spike):
        decisions.append((spike.bool() == trains[name].step(t).bool()).float().mean())

    torch.testing.assert_close(single_step_loop(snn, x, record=record, follow=trains), snn(x), rtol=1e-5, atol=1e-5)
    assert min(decisions) > 0.99
    others = {name: SpikeTrain(~train.bytes, train.timesteps) for name, train in trains.items()}
    decisions.clear()
    assert (single_step_loop(snn, x, record=record, follow=others) - snn(x)).norm() > 0.1 * snn(x).norm()
    assert min(decisions) < 0.9


def test_print_shows_what_the_network_is_made_of():
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 4), nn.LeakyReLU(0.25), nn.Linear(4, 3), nn.ELU(), nn.LayerNorm(3)
    )
    snn = convert(model, [images()], timesteps=5, schedule=Exponential(0.3, 0.8), scale=0.5, onset_delay=2)
    head, columns, *lines = str(snn).splitlines()
    run = "5 steps of Exponential(lr=0.3, gamma=0.8), latency 9"
    assert head == f"SpikingModel({run}, signgd neurons, direct encoder, float32 on cpu)"
    assert columns.split("  ")[1] == "population"
    assert [line.split()[:2] for line in lines] == [["2", "leaky_relu(0.25)"], ["4", "elu(1)"], ["5", "layer_norm"]]
    assert all(" 0.5, " in line for line in lines)
    assert [line.split()[-1] for line in lines] == ["0", "2", "4"]
    per_channel = str(convert(model, [images()], **QUICK)).splitlines()[2]
    scale = next(population for _, population in convert(model, [images()], **QUICK).populations()).scale
    assert f"{scale.min():.3g} to {scale.max():.3g}, 4 values" in per_channel


def test_torch_compile_goes_round_the_network():
    """What is before and behind it is compiled once for all batches, and it is called."""
    torch.manual_seed(0)
    snn = convert(nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 3)), [torch.randn(16, 6)], timesteps=12)
    first = nn.Linear(4, 6)
    graphs = []

    def whole(x):
        return snn(first(x).tanh()).softmax(1)

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    compiled = torch.compile(whole, backend=backend, dynamic=True)
    for batch in (5, 7, 9):
        x = torch.randn(batch, 4)
        assert torch.equal(compiled(x), whole(x))
    assert len(graphs) == 2


@pytest.mark.parametrize(("samples", "together"), [(1, 256), (3, 80), (20, 8)])
def test_memory_does_not_grow_with_time_steps(monkeypatch, samples, together):
    """The longest train at a time has what 32 samples have in eight steps, or eight steps of a larger batch."""
    from snn_kernels.ops import neuron as op

    lengths, kernel = set(), op._run_extension

    def spy(received, eta, *rest):
        lengths.add(len(eta))
        return kernel(received, eta, *rest)

    snn = convert(gelu_mlp(), [images()], timesteps=300, schedule=Exponential())
    monkeypatch.setattr(op, "_run_extension", spy)
    snn(images(samples))
    assert max(lengths) == together


def test_the_steps_that_are_carried_together_do_not_show(monkeypatch):
    snn = convert(gelu_mlp(), [images()], timesteps=50)
    together = snn.outputs_at(images(2), steps=[7, 50])
    monkeypatch.setattr("snn_convert.run.SAMPLE_STEPS", 0)
    for output, eight_by_eight in zip(together, snn.outputs_at(images(2), steps=[7, 50])):
        torch.testing.assert_close(output, eight_by_eight, rtol=1e-6, atol=1e-6)


class Steps(nn.Module):
    """An argument of the name that methods of a spiking network give their own."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x, steps):
        return self.head(torch.relu(self.layer(x) + steps))


def test_an_argument_called_steps():
    torch.manual_seed(0)
    model, x, steps = Steps(), torch.randn(9, 4), torch.randn(9, 6)
    snn = convert(model, [{"x": x, "steps": steps}], timesteps=32, schedule=Exponential(0.3, 0.9))
    with torch.no_grad():
        wanted = model(x, steps)
    assert (snn(x=x, steps=steps) - wanted).norm() < 0.1 * wanted.norm()
