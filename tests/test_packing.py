import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snn_kernels import SpikeTrain, pack, unpack
from snn_kernels.ops.packing.reference import pack_reference, unpack_reference

STEPS = [0, 1, 7, 8, 9, 33]
SIZES = [1, 7, 63, 500]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def random_spikes(*shape: int, dtype=torch.float32, rate=0.5) -> torch.Tensor:
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(sum(shape))) < rate).to(dtype)


def bytes_by_hand(spikes: torch.Tensor) -> torch.Tensor:
    """The definition of the format, bit by bit."""
    out = torch.zeros(-(-len(spikes) // 8), *spikes.shape[1:], dtype=torch.uint8)
    for t, step in enumerate(spikes):
        out[t // 8] += ((step != 0) * (1 << t % 8)).to(torch.uint8)
    return out


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("timesteps", STEPS)
def test_pack_follows_the_format(timesteps, size, backend):
    spikes = random_spikes(timesteps, size)
    train = pack(spikes, backend=backend)
    assert train.timesteps == timesteps
    assert train.bytes.dtype == torch.uint8
    assert torch.equal(train.bytes, bytes_by_hand(spikes))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("timesteps", STEPS)
def test_unpack_inverts_pack(timesteps, size, backend, dtype):
    spikes = random_spikes(timesteps, size, dtype=dtype)
    again = unpack(pack(spikes), dtype, backend=backend)
    assert again.dtype == dtype
    assert torch.equal(again, spikes)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float64], ids=str)
def test_other_dtypes_go_through_the_reference(dtype):
    spikes = random_spikes(9, 7)
    assert torch.equal(pack(spikes.to(dtype)).unpack(dtype), spikes.to(dtype))
    with pytest.raises(ValueError, match=f"^dtype: expected float32, float16 or bfloat16 .* cpu backend, got {dtype}"):
        unpack(pack(spikes), dtype, backend="cpu")


def test_whatever_is_not_zero_is_a_spike():
    values = torch.tensor([0.0, -0.0, 1e-7, -3.0, float("inf"), float("nan")])
    for dtype in DTYPES:
        for steps in (1, 8):
            train = pack(values.to(dtype).expand(steps, -1), backend="cpu")
            assert train.bytes.tolist() == [[0, 0, *[2**steps - 1] * 4]]
    assert pack(torch.tensor([[1e-45]])).bytes.item() == 1


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_views_pack_alike_and_keep_their_memory_format(backend):
    images = random_spikes(9, 2, 6, 5, 7)
    channels_last = images.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    large = random_spikes(20, 4, 12, 5, 14)
    for view in (channels_last, images.transpose(1, 3), large[2:11, ::2, :6, :, 7:], images[:1].expand(9, 2, 6, 5, 7)):
        train = pack(view, backend=backend)
        assert torch.equal(train.bytes, bytes_by_hand(view))
        for dtype in DTYPES:
            assert torch.equal(unpack(train, dtype, backend=backend), view.to(dtype))
    packed = pack(channels_last, backend=backend)
    assert packed.bytes[0].is_contiguous(memory_format=torch.channels_last)
    unpacked = unpack(packed, backend=backend)
    assert unpacked.stride() == channels_last.stride()


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_views_of_bytes_unpack_alike(backend):
    """Their groups are further apart than the neurons of one."""
    spikes = random_spikes(33, 4, 7, 9)
    train = pack(spikes)
    for view in (train[1], train[:, 2:5], train[..., ::3], train.permute(2, 0, 1)):
        expected = unpack_reference(view.bytes, 33, torch.float32)
        assert torch.equal(unpack(view, backend=backend), expected)
    assert torch.equal(unpack(train[1], backend=backend), spikes[:, 1])


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("shape", [(0,), (3, 0, 2), ()])
@pytest.mark.parametrize("timesteps", [0, 9])
def test_empty_and_scalar_populations(timesteps, shape, backend):
    spikes = random_spikes(timesteps, *shape)
    train = pack(spikes, backend=backend)
    assert train.bytes.shape == ((timesteps + 7) // 8, *shape)
    assert torch.equal(unpack(train, backend=backend), spikes)


def test_large_trains_are_shared_among_threads(three_threads):
    spikes = random_spikes(33, 20_011)
    assert torch.equal(pack(spikes).bytes, pack_reference(spikes))
    assert torch.equal(pack(spikes).unpack(), spikes)


@given(
    data=st.data(),
    timesteps=st.integers(0, 40),
    shape=st.lists(st.integers(0, 9), max_size=4),
    dtype=st.sampled_from(DTYPES),
)
def test_any_view_round_trips(data, timesteps, shape, dtype):
    spikes = random_spikes(timesteps, *shape, dtype=dtype)
    order = data.draw(st.permutations(range(spikes.ndim)))
    spikes = spikes.permute(order).contiguous().permute([order.index(d) for d in range(spikes.ndim)])
    for dim in range(spikes.ndim):
        spikes = spikes[
            (slice(None),) * dim + (slice(data.draw(st.integers(0, 2)), None, data.draw(st.integers(1, 3))),)
        ]
    train = pack(spikes)
    assert torch.equal(train.bytes, bytes_by_hand(spikes))
    assert torch.equal(unpack(train, dtype), spikes)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"spikes: expected \[T, \*shape\]"):
        pack(torch.tensor(1.0))
    with pytest.raises(TypeError, match=r"spikes: expected a tensor, got list \[1, 0\]"):
        pack([1, 0])
    with pytest.raises(TypeError, match=r"train: expected a SpikeTrain, got torch\.float32 \(8, 1\)"):
        unpack(torch.zeros(8, 1))
    with pytest.raises(ValueError, match="backend: expected None or one of cpu, reference; got 'gpu'"):
        pack(torch.zeros(8, 1), backend="gpu")
    with pytest.raises(ValueError, match="bytes: expected 125 groups for timesteps=1000"):
        unpack(SpikeTrain(torch.zeros(1, 4, dtype=torch.uint8), 1000))
    with pytest.raises(TypeError, match="bytes"):
        unpack(SpikeTrain(torch.zeros(1, 4), 8))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_opcheck(backend):
    spikes = random_spikes(9, 2, 3)
    torch.library.opcheck(torch.ops.snn_kernels.pack.default, (spikes, backend))
    torch.library.opcheck(torch.ops.snn_kernels.pack.default, (spikes.transpose(1, 2), backend))
    bytes = pack(spikes).bytes
    torch.library.opcheck(torch.ops.snn_kernels.unpack.default, (bytes, 9, torch.float16, backend))
    torch.library.opcheck(torch.ops.snn_kernels.unpack.default, (bytes.transpose(1, 2), 9, torch.float32, backend))


def test_compile_and_export_pass_a_train_through():
    def doubled(train: SpikeTrain) -> SpikeTrain:
        return pack(SpikeTrain.cat([train, train], 0).permute(1, 0).unpack())

    train = pack(random_spikes(9, 3, 5))
    expected = doubled(train)
    compiled = torch.compile(doubled, fullgraph=True, backend="aot_eager")(train)
    assert isinstance(compiled, SpikeTrain)
    assert compiled.timesteps == 9
    assert torch.equal(compiled.bytes, expected.bytes)

    class Module(torch.nn.Module):
        def forward(self, train):
            return doubled(train)

    exported = torch.export.export(Module(), (train,)).module()(train)
    assert isinstance(exported, SpikeTrain)
    assert torch.equal(exported.bytes, expected.bytes)
