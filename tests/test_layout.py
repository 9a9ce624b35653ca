"""What the kernels are told about memory: orders, dense steps and broadcast operands."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snn_kernels.layout import as_operand, empty_steps, flat_steps, neuron_order


def values_of(operand, neurons: int) -> torch.Tensor:
    """What a kernel reads for neurons 0 .. neurons - 1, straight from memory."""
    flat = operand.data.as_strided((operand.period,), (1,)) if neurons else operand.data.reshape(-1)[:0]
    return flat[torch.arange(neurons) // operand.inner % operand.period] if neurons else flat


@pytest.mark.parametrize(
    ("shape", "permutation", "order"),
    [
        ((2, 3, 4, 5), (0, 1, 2, 3), (0, 1, 2, 3)),
        ((2, 3, 4, 5), (0, 2, 3, 1), (0, 2, 3, 1)),
        ((2, 3, 4, 5), (3, 2, 1, 0), (3, 2, 1, 0)),
        ((7,), (0,), (0,)),
    ],
)
def test_neuron_order_is_the_order_in_memory(shape, permutation, order):
    dense = torch.zeros(9, *(shape[d] for d in permutation))
    view = dense.permute(0, *(permutation.index(d) + 1 for d in range(len(shape))))
    assert view.shape[1:] == shape
    assert neuron_order(view) == order
    assert neuron_order(view[:1]) == order
    assert empty_steps(9, shape, order, torch.float32, view.device).stride() == view.stride()


def test_dense_steps_are_not_copied():
    currents = torch.randn(9, 2, 3, 4, 5)
    channels_last = currents.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    every_other = torch.randn(18, 2, 3, 4, 5)[::2]
    one_step = currents[:1].expand(9, 2, 3, 4, 5)
    for tensor, stride in ((currents, 120), (channels_last, 120), (every_other, 240), (one_step, 0)):
        flat, step_stride = flat_steps(tensor, neuron_order(tensor))
        assert flat.data_ptr() == tensor.data_ptr()
        assert step_stride == stride


def test_steps_with_holes_are_copied():
    currents = torch.randn(9, 6, 8)[:, ::2, 1:]
    flat, step_stride = flat_steps(currents, neuron_order(currents))
    assert flat.data_ptr() != currents.data_ptr()
    assert step_stride == 21
    assert torch.equal(flat, currents)


SHAPE = (2, 3, 4, 5)
OPERANDS = [
    # shape of the operand, order of the population, inner, period
    ((), (0, 1, 2, 3), 1, 1),
    ((1,), (0, 1, 2, 3), 1, 1),
    ((1, 1, 1, 1), (0, 2, 3, 1), 1, 1),
    ((3, 1, 1), (0, 1, 2, 3), 20, 3),
    ((3, 1, 1), (0, 2, 3, 1), 1, 3),
    ((5,), (0, 1, 2, 3), 1, 5),
    ((3, 4, 5), (0, 1, 2, 3), 1, 60),
    ((2, 3, 4, 5), (0, 1, 2, 3), 1, 120),
    ((2, 1, 1, 1), (0, 1, 2, 3), 60, 2),
]


@pytest.mark.parametrize(("shape", "order", "inner", "period"), OPERANDS)
def test_operands_are_described_not_expanded(shape, order, inner, period):
    value = torch.randn(shape)
    operand = as_operand(value, SHAPE, order)
    assert operand.data.data_ptr() == value.data_ptr()
    assert (operand.inner, operand.period) == (inner, period)
    assert torch.equal(values_of(operand, 120), value.expand(SHAPE).permute(order).reshape(-1))


IN_ORDER, CHANNELS_LAST = (0, 1, 2, 3), (0, 2, 3, 1)


@pytest.mark.parametrize(
    ("shape", "order", "inner", "period"),
    [
        ((2, 1, 4, 1), IN_ORDER, 5, 24),
        ((3, 1, 5), IN_ORDER, 1, 60),
        ((2, 1, 1, 5), IN_ORDER, 1, 120),
        ((3, 4, 5), CHANNELS_LAST, 1, 60),
        ((3, 4, 1), CHANNELS_LAST, 1, 60),
    ],
)
def test_what_is_copied_is_the_pattern(shape, order, inner, period):
    """One with a broadcast dimension between two others, or in another order; not what is broadcast around it."""
    value = torch.randn(shape)
    operand = as_operand(value, SHAPE, order)
    assert (operand.inner, operand.period, operand.data.numel()) == (inner, period, period)
    assert torch.equal(values_of(operand, 120), value.expand(SHAPE).permute(order).reshape(-1))


@given(data=st.data(), shape=st.lists(st.integers(0, 5), max_size=4).map(tuple))
def test_any_operand_reads_as_its_expansion(data, shape):
    ndim = data.draw(st.integers(0, len(shape)))
    small = [data.draw(st.sampled_from([1, size])) for size in shape[len(shape) - ndim :]]
    value = torch.randn([2 * size for size in small])[tuple(slice(None, size) for size in small)]
    if data.draw(st.booleans()):
        value = value.contiguous()
    order = tuple(data.draw(st.permutations(range(len(shape)))))
    operand = as_operand(value, shape, order)
    expected = value.expand(shape).permute(order).reshape(-1)
    assert torch.equal(values_of(operand, expected.numel()), expected)


@given(data=st.data(), shape=st.lists(st.integers(0, 5), min_size=1, max_size=5).map(tuple))
def test_any_steps_read_as_the_view(data, shape):
    permutation = data.draw(st.permutations(range(len(shape))))
    large = torch.randn([shape[d] + 2 for d in permutation])
    starts = [data.draw(st.integers(0, 2)) for _ in shape]
    view = large.permute([permutation.index(d) for d in range(len(shape))])
    view = view[tuple(slice(start, start + size) for start, size in zip(starts, shape))]
    order = neuron_order(view)
    flat, stride = flat_steps(view, order)
    neurons = view.shape[1:].numel()
    for t in range(len(view)):
        step = flat[t].as_strided((neurons,), (1,), flat.storage_offset() + t * stride)
        assert torch.equal(step, view[t].permute(order).reshape(-1))
