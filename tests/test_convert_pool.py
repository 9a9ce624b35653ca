"""Averages over windows become part of the convolution that they average, where that takes no more products."""

import pytest
import torch
from torch import nn

from models import images
from snn_convert import convert
from snn_kernels.schedules import Exponential
from test_convert_packed import assert_agrees_with_the_oracle, vectors


def network(*layers: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), *layers, nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))
    model(images(2))
    return model.eval()


def converted(model: nn.Module):
    snn = convert(model, [images(16, seed=2)], timesteps=12, schedule=Exponential(0.3, 0.9))
    pools = sum("avg_pool2d" in str(node.target) for node in snn.engine.nodes)
    torch.testing.assert_close(snn.network(images(3))[0], model(images(3)), rtol=0, atol=1e-5)
    assert_agrees_with_the_oracle(snn, model, images(3), [12])
    return snn, pools


IN_ONE = {
    "3x3": (nn.Conv2d(8, 6, 3, padding=1), nn.AvgPool2d(2)),
    "3x3, no bias": (nn.Conv2d(8, 6, 3, bias=False), nn.AvgPool2d(2)),
    "stride": (nn.Conv2d(8, 6, 3, stride=2, padding=1), nn.AvgPool2d(2)),
    "a window of its own on each side": (nn.Conv2d(8, 6, (3, 2), stride=(1, 2)), nn.AvgPool2d((3, 2))),
    "overlapping windows": (nn.Conv2d(8, 6, 3), nn.AvgPool2d(3, 2)),
    "rows and columns left over": (nn.Conv2d(8, 6, 2), nn.AvgPool2d(2)),
    "groups": (nn.Conv2d(8, 8, 3, padding=1, groups=4), nn.AvgPool2d(2)),
    "1x1 before": (nn.Conv2d(8, 6, 1), nn.AvgPool2d(2)),
    "ceil_mode that changes nothing": (nn.Conv2d(8, 6, 1), nn.AvgPool2d(2, ceil_mode=True)),
    "batch norm": (nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6), nn.AvgPool2d(2), nn.BatchNorm2d(6)),
}
APART = {
    "1x1, overlapping": (nn.Conv2d(8, 6, 1), nn.AvgPool2d(3, 2)),
    "behind the average": (nn.AvgPool2d(2), nn.Conv2d(8, 6, 1)),
    "a large window": (nn.Conv2d(8, 6, 1), nn.AvgPool2d(3)),
    "dilation": (nn.Conv2d(8, 6, 3, dilation=2), nn.AvgPool2d(2)),
    "padding": (nn.Conv2d(8, 6, 3), nn.AvgPool2d(2, padding=1)),
    "ceil_mode": (nn.Conv2d(8, 6, 2), nn.AvgPool2d(2, ceil_mode=True)),
    "divisor": (nn.Conv2d(8, 6, 3), nn.AvgPool2d(2, divisor_override=3)),
    "a function between": (nn.Conv2d(8, 6, 3), nn.ReLU(), nn.AvgPool2d(2)),
}


@pytest.mark.parametrize("layers", IN_ONE.values(), ids=IN_ONE)
def test_in_one_convolution(layers):
    snn, pools = converted(network(*layers))
    assert pools == 0
    assert sum("conv2d" in str(node.target) for node in snn.engine.nodes) == 2


@pytest.mark.parametrize("layers", APART.values(), ids=APART)
def test_apart(layers):
    assert converted(network(*layers))[1] == 1


class Twice(nn.Module):
    """A convolution and an average that are each read twice."""

    def __init__(self):
        super().__init__()
        self.stem, self.first, self.second = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.pool, self.head = nn.AvgPool2d(2), nn.Linear(8 * 45, 3)

    def forward(self, x):
        x = self.first(torch.relu(self.stem(x)))
        y = self.pool(x)
        return self.head(torch.relu(torch.cat([x.flatten(1), self.second(y).flatten(1)], 1)[:, :360]) + y.sum())


def test_what_is_read_twice_stays():
    torch.manual_seed(0)
    model = Twice().eval()
    snn = convert(model, [images(16, seed=2)], timesteps=3, schedule=Exponential(0.3, 0.9))
    assert sum("avg_pool2d" in str(node.target) for node in snn.engine.nodes) == 1
    torch.testing.assert_close(snn.network(images(3))[0], model(images(3)), rtol=0, atol=1e-5)


@vectors
def test_trains_stay_packed_through_averages(monkeypatch):
    monkeypatch.setattr("snn_kernels.SpikeTrain.unpack", None)
    model = network(*IN_ONE["3x3"])
    snn = convert(model, [images(16, seed=2)], timesteps=12, schedule=Exponential(0.3, 0.9))
    snn(images(3))
