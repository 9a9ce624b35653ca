"""A converted network on disk, in a state dict, and copied."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import zipfile
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from converted import MODELS, converted
from models import images, relu_cnn
from programs import output_of
from snn_convert import QCFS, ModelFileError, SpikingModel, convert
from snn_convert.storage import HEAD
from snn_kernels.schedules import Exponential, Schedule
from test_convert_operations import Applied


@pytest.fixture(params=MODELS)
def snn(request) -> SpikingModel:
    return converted(request.param)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "cnn.snn"
    converted("cnn").save(path)
    return path


# Files


def test_a_loaded_network_gives_the_same_bits(snn, tmp_path):
    snn.save(tmp_path / "model.snn")
    loaded = SpikingModel.load(tmp_path / "model.snn")
    assert torch.equal(loaded(images(7)), snn(images(7)))
    assert not loaded.training
    assert (loaded.schedule, loaded.timesteps) == (snn.schedule, snn.timesteps)
    assert loaded.state_dict().keys() == snn.state_dict().keys()
    assert [path.name for path in tmp_path.iterdir()] == ["model.snn"]
    loaded.set_schedule(Exponential(0.5, 0.7), 5)
    snn.set_schedule(Exponential(0.5, 0.7), 5)
    assert torch.equal(loaded(images(3)), snn(images(3)))


@pytest.mark.parametrize("options", [{"recipe": "paper"}, {"encoder": "spike"}, {"normalisation": "decomposed"}])
def test_every_recipe_can_be_saved(options, tmp_path):
    snn = converted("vit", **options)
    snn.save(tmp_path / "model.snn")
    assert torch.equal(SpikingModel.load(tmp_path / "model.snn")(images()), snn(images()))


@pytest.mark.parametrize(
    ("recipe", "delay"), [("default", 2), ("subgradient", 9), ("integrate_and_fire", None), ("parallel", None)]
)
def test_other_dynamics_and_onsets_can_be_saved(recipe, delay, tmp_path):
    torch.manual_seed(0)
    snn = convert(relu_cnn().eval(), [images()], timesteps=9, recipe=recipe, onset_delay=delay)
    snn.save(tmp_path / "model.snn")
    loaded = SpikingModel.load(tmp_path / "model.snn")
    assert (loaded.dynamics, loaded.onset_delay, loaded.latency) == (snn.dynamics, snn.onset_delay, snn.latency)
    assert torch.equal(loaded(images()), snn(images()))


def test_learned_thresholds_can_be_saved(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), QCFS(4), nn.Linear(8, 5)).eval()
    snn = convert(model, [images()], timesteps=4, recipe="parallel")
    snn.save(tmp_path / "model.snn")
    assert torch.equal(SpikingModel.load(tmp_path / "model.snn")(images()), snn(images()))


def test_a_fresh_process_needs_no_model_class(tmp_path):
    snn, x = converted("vit"), images()
    snn.save(tmp_path / "model.snn")
    torch.save({"x": x, "y": snn(x)}, tmp_path / "data.pt")
    program = (
        "import sys, torch; from snn_convert import SpikingModel\n"
        "assert 'architectures' not in sys.modules\n"
        "data = torch.load('data.pt', weights_only=True)\n"
        "assert torch.equal(SpikingModel.load('model.snn')(data['x']), data['y'])\n"
    )
    root = Path(__file__).resolve().parents[1]
    path = os.pathsep.join([str(root), str(root / "python")])
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


class Structured(nn.Module):
    """Tokens and a mask in, a dict out; one weight in two places, and channels-last weights."""

    def __init__(self):
        super().__init__()
        self.embed, self.hidden, self.head = nn.Embedding(9, 8), nn.Linear(8, 8), nn.Linear(8, 9, bias=False)
        self.head.weight = self.embed.weight
        self.conv = nn.Conv2d(2, 4, 3, padding=1).to(memory_format=torch.channels_last)

    def forward(self, tokens, mask, x):
        hidden = torch.relu(self.hidden(self.embed(tokens))) * mask[..., None]
        hidden = torch.tanh(self.hidden(hidden))
        return {"logits": self.head(hidden), "parts": (torch.relu(self.conv(x)), tokens.sum(1))}


def test_structures_tokens_masks_and_tied_weights(tmp_path):
    torch.manual_seed(0)
    tokens = torch.randint(0, 9, (4, 5))
    sample = (tokens, tokens > 2, torch.randn(4, 2, 6, 6))
    snn = convert(Structured(), [sample], timesteps=9, schedule=Exponential(0.3, 0.8))
    snn.save(tmp_path / "model.snn")
    loaded = SpikingModel.load(tmp_path / "model.snn")
    assert loaded.measures_each_run
    wanted, got = snn(*sample), loaded(*sample)
    assert got.keys() == wanted.keys()
    assert torch.equal(got["logits"], wanted["logits"])
    assert all(map(torch.equal, got["parts"], wanted["parts"]))
    with zipfile.ZipFile(tmp_path / "model.snn") as file:
        forms = json.loads(file.read(HEAD))["tensor_forms"]
    assert sum(form["shape"] == [9, 8] for form in forms) == 1
    assert loaded.network.conv.weight.is_contiguous(memory_format=torch.channels_last)
    with pytest.raises(TypeError, match="inputs: expected positional arguments tokens, mask, x; got 1"):
        loaded(tokens)


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, x, scale=1.0, flag=True, mode=None):
        return torch.relu(self.layer(x)) * (scale if flag else -scale)


def test_arguments_that_are_no_tensors_are_those_of_the_conversion(tmp_path):
    x = torch.randn(5, 3)
    snn = convert(Scaled(), [(x, 2.0, True, None)], timesteps=9, schedule=Exponential(0.3, 0.8))
    snn.save(tmp_path / "model.snn")
    for network in (snn, SpikingModel.load(tmp_path / "model.snn")):
        assert torch.equal(network(x, 2, True, None), snn(x, 2.0, True, None))
        for arguments, message in (
            ((5.0, True, None), r"scale: expected 2.0 \(fixed at conversion\), got 5.0"),
            ((torch.tensor(2.0), True, None), r"scale: expected 2.0 \(fixed at conversion\), got tensor"),
            ((2.0, False, None), r"flag: expected True \(fixed at conversion\), got False"),
            ((2.0, True, "fast"), r"mode: expected None \(fixed at conversion\), got 'fast'"),
        ):
            with pytest.raises(ValueError, match=message):
                network(x, *arguments)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.add(torch.relu(x), torch.tanh(x), alpha=0.5),
        lambda x: torch.relu(x).masked_fill(torch.arange(12) < 3, 0.5),  # of zeros_like(mask, dtype=float32)
    ],
)
def test_arguments_by_name_are_kept(function, tmp_path):
    torch.manual_seed(0)
    model, x = Applied(function).eval(), torch.randn(16, 6)
    model(x)
    snn = convert(model, [x], timesteps=9, schedule=Exponential(0.3, 0.8))
    snn.save(tmp_path / "model.snn")
    assert torch.equal(SpikingModel.load(tmp_path / "model.snn")(x), snn(x))
    assert torch.equal(copy.deepcopy(snn)(x), snn(x))


class Warm(Schedule):
    def at(self, t):
        return 0.2 / (1 + t)


def test_a_schedule_of_the_users_own_is_kept_as_its_table(tmp_path):
    snn = converted("cnn", schedule=Warm())
    snn.save(tmp_path / "model.snn")
    loaded = SpikingModel.load(tmp_path / "model.snn")
    assert torch.equal(loaded(images()), snn(images()))
    with pytest.raises(ValueError, match="timesteps: expected at most 9"):
        loaded.set_schedule(loaded.schedule, 10)


def with_outputs_of(saved, context):
    def foreign(head):
        leaf = json.loads(head["outputs"])[1]
        node = {"type": "elsewhere.Output", "context": context, "children_spec": [leaf]}
        head["outputs"] = json.dumps([1, node])

    rewrite(saved, foreign)


def test_an_output_class_that_is_not_known_is_a_dict(saved):
    wanted = SpikingModel.load(saved)(images())
    with_outputs_of(saved, '["logits"]')
    with pytest.warns(UserWarning, match=r"class elsewhere\.Output are dicts") as caught:
        snn = SpikingModel.load(saved)
    assert caught[0].filename == __file__
    assert "elsewhere" not in sys.modules
    got = snn(images())
    assert type(got) is dict
    assert torch.equal(got["logits"], wanted)


Named = namedtuple("Named", ("hidden", "logits"))


class TwoOutputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.map = nn.Linear(5, 5)

    def forward(self, x):
        hidden = torch.relu(self.map(x))
        return Named(hidden, [self.map(hidden)])


def test_outputs_with_names(tmp_path):
    x, path = torch.randn(4, 5), tmp_path / "named.snn"
    snn = convert(TwoOutputs().eval(), [x], timesteps=4)
    snn.save(path)
    for one in (snn, SpikingModel.load(path), copy.deepcopy(snn)):
        output = one(x)
        assert type(output) is Named
        assert torch.equal(output.logits[0], snn(x).logits[0])
    program = "from snn_convert import SpikingModel; import sys, torch; "
    program += (
        "output = SpikingModel.load(sys.argv[1])(torch.zeros(2, 5)); print(type(output).__module__, output._fields)"
    )
    for module in ("snn_convert.structures", "test_convert_storage"):  # a class like it, or the class itself
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
        given = (sys.executable, "-c", f"import {module}; {program}", path)
        assert output_of(*given, environment=environment).strip().endswith(f"{module} ('hidden', 'logits')")


@pytest.mark.parametrize("context", ["null", '["logits", "more"]', "[3]", "{"])
def test_an_output_class_without_names_for_its_values_is_named(saved, context):
    with_outputs_of(saved, context)
    with pytest.raises(ModelFileError, match=r"cnn\.snn: .*elsewhere\.Output.*import the module"):
        SpikingModel.load(saved)


def test_a_failed_write_keeps_the_old_file(saved, monkeypatch):
    before = saved.read_bytes()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(OSError, match="No space left"):
        converted("residual").save(saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.snn"):
        SpikingModel.load(tmp_path / "none.snn")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file(saved, share):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelFileError, match=r"cnn\.snn: not a converted network, or truncated or damaged"):
        SpikingModel.load(saved)


def test_a_byte_that_changed(saved):
    """In a tensor the checksum finds it; elsewhere the file is refused or nothing that matters has changed."""
    content, wanted = saved.read_bytes(), converted("cnn")(images())
    generator = torch.Generator().manual_seed(0)
    messages = []
    for place in torch.randint(0, len(content), (40,), generator=generator).tolist():
        saved.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
        try:
            assert torch.equal(SpikingModel.load(saved)(images()), wanted)
        except ModelFileError as error:
            messages.append(str(error))
    assert len(messages) > 20
    assert all(message.startswith(str(saved)) for message in messages)


def test_foreign_files(tmp_path):
    path = tmp_path / "foreign.snn"
    torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(ModelFileError, match=rf"foreign\.snn: not a converted network: a zip file without {HEAD}"):
        SpikingModel.load(path)
    path.write_text("hello")
    with pytest.raises(ModelFileError, match=r"foreign\.snn: not a converted network"):
        SpikingModel.load(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(HEAD, '{"format": "another"}')
    with pytest.raises(ModelFileError, match=r"foreign\.snn: .* of another program"):
        SpikingModel.load(path)


def rewrite(path: Path, change) -> None:
    """Change the description in the file."""
    with zipfile.ZipFile(path) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    head = json.loads(entries[HEAD])
    change(head)
    entries[HEAD] = json.dumps(head).encode()
    with zipfile.ZipFile(path, "w") as file:
        for name, content in entries.items():
            file.writestr(name, content)


def node_of(head: dict, op: str) -> dict:
    return next(node for node in head["graph"] if node["op"] == op)


CODE = "x'); __import__('os').mkdir('pwned'); ('"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda head: head.update(version=7), "version 7 of the format"),
        (lambda head: node_of(head, "call_function").update(target="os.system"), "'os.system' is not known"),
        (lambda head: node_of(head, "call_function").update(target="aten.from_file.default"), "is not known"),
        (lambda head: node_of(head, "call_function").update(target="aten.nothing.default"), "nothing"),
        (lambda head: node_of(head, "get_attr").update(target=CODE), "no path of a module"),
        (lambda head: node_of(head, "call_module").update(target=CODE), "no path of a module"),
        (lambda head: node_of(head, "placeholder").update(target=CODE), "is no name"),
        (lambda head: node_of(head, "placeholder").update(name=CODE), "is no name"),
        (lambda head: node_of(head, "placeholder").update(name="class"), "'class' is no name"),
        (lambda head: node_of(head, "call_function").update(kwargs={CODE: 1}), "is no name"),
        (lambda head: head["graph"][0].update(op="call_method"), "'call_method' is not known"),
        (lambda head: head["settings"]["schedule"].update(name="__all__"), "'__all__' is not known"),
        (lambda head: head["tensor_forms"][0].update(dtype="nn"), "'nn' is no constant of torch"),
        (lambda head: head["tensor_forms"][0]["shape"].append(2), "does not have"),
        (lambda head: head["tensors"].popitem(), "are missing"),
        (lambda head: head.pop("graph"), "graph"),
    ],
)
def test_a_description_that_does_not_fit(change, message, saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rewrite(saved, change)
    with pytest.raises(ModelFileError, match=message) as caught:
        SpikingModel.load(saved)
    assert str(caught.value).startswith(str(saved))
    assert not (tmp_path / "pwned").exists()


# State dicts and copies


@pytest.mark.parametrize("name", MODELS)
def test_state_dict_round_trip(name, tmp_path):
    snn = converted(name)
    torch.save(snn.state_dict(), tmp_path / "state.pt")
    torch.manual_seed(1)
    options = {"timesteps": 12, "schedule": Exponential(0.1, 0.9), "scale": 0.7, "v0": "zero"}
    other = convert(MODELS[name]().eval(), [3 * images(seed=5)], **options)
    assert not torch.equal(other(images()), snn(images()))
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert (other.timesteps, other.schedule) == (9, Exponential(0.3, 0.8))
    assert torch.equal(other(images()), snn(images()))


def test_a_state_of_another_encoder_is_refused():
    state = converted("cnn", encoder="float").state_dict()
    with pytest.raises(ValueError, match="encoder: expected the state of a network with 'direct', got 'float'"):
        converted("cnn").load_state_dict(state)


def test_a_state_of_other_dynamics_is_refused():
    model = relu_cnn().eval()
    state = convert(model, [images()], timesteps=9, recipe="subgradient").state_dict()
    other = convert(model, [images()], timesteps=9, schedule=Exponential(0.3, 0.8), scale="paper", v0="zero")
    with pytest.raises(ValueError, match="dynamics: expected the state of a network with 'signgd', got 'subgradient'"):
        other.load_state_dict(state)


@pytest.mark.parametrize("delay", [0, 9])
def test_a_state_brings_its_onset_delay(delay):
    snn, other = converted("cnn", onset_delay=delay), converted("cnn", timesteps=5, onset_delay=3)
    other.load_state_dict(snn.state_dict())
    assert (other.latency, other.onsets) == (snn.latency, snn.onsets)
    assert torch.equal(other(images()), snn(images()))


def test_networks_of_inference_mode_take_a_state(tmp_path):
    with torch.inference_mode():
        model, x = MODELS["residual"]().eval(), images()
        snn = convert(model, [x], timesteps=9, schedule=Exponential(0.3, 0.8))
        snn.save(tmp_path / "model.snn")
        networks = [snn, SpikingModel.load(tmp_path / "model.snn"), copy.deepcopy(snn)]
    state = converted("residual").state_dict()
    for network in networks:
        network.load_state_dict(state)
        assert torch.equal(network(images()), converted("residual")(images()))


def test_a_copy_is_independent(snn):
    wanted = snn(images())
    twin = copy.deepcopy(snn)
    assert torch.equal(twin(images()), wanted)
    with torch.no_grad():
        for tensor in twin.state_dict().values():
            if isinstance(tensor, torch.Tensor):
                tensor.zero_()
    assert torch.equal(snn(images()), wanted)


def test_a_network_of_another_device_is_read(tmp_path):
    """Its graph makes tensors there."""
    model = Applied(lambda x: torch.relu(x + torch.arange(12, device=x.device)))
    x = torch.randn(9, 6)
    model(x)
    snn = convert(model, [x], timesteps=8, schedule=Exponential(np.float32(0.5), 0.8))
    wanted = snn(x)
    snn.engine.move(torch.device("cuda:0"))
    snn.save(tmp_path / "model.snn")
    assert torch.equal(SpikingModel.load(tmp_path / "model.snn")(x), wanted)
