import pytest
import torch
from torch.utils import _pytree as pytree

from snn_kernels import SpikeTrain, pack
from snn_kernels.spike_train import groups_of


def random_train(timesteps: int, *shape: int) -> tuple[torch.Tensor, SpikeTrain]:
    spikes = (torch.rand(timesteps, *shape, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    return spikes, pack(spikes)


@pytest.mark.parametrize(("timesteps", "groups"), [(0, 0), (1, 1), (7, 1), (8, 1), (9, 2), (33, 5)])
def test_groups_of(timesteps, groups):
    assert groups_of(timesteps) == groups


def test_bit_i_of_group_g_is_step_8g_plus_i():
    for step in range(17):
        spikes = torch.zeros(17, 3)
        spikes[step, 1] = 1
        expected = torch.zeros(3, 3, dtype=torch.uint8)
        expected[step // 8, 1] = 1 << (step % 8)
        assert torch.equal(pack(spikes).bytes, expected)


@pytest.mark.parametrize("timesteps", [1, 8, 9, 33])
def test_dimensions_move_without_unpacking(timesteps):
    spikes, train = random_train(timesteps, 2, 3, 7)
    assert train.shape == (2, 3, 7)
    assert torch.equal(train.reshape(6, 7).unpack(), spikes.reshape(timesteps, 6, 7))
    assert torch.equal(train.reshape(-1).unpack(), spikes.reshape(timesteps, 42))
    assert torch.equal(train.permute(2, 0, 1).unpack(), spikes.permute(0, 3, 1, 2))
    assert torch.equal(train.permute(-1, 0, 1).unpack(), spikes.permute(0, 3, 1, 2))
    assert torch.equal(train[1].unpack(), spikes[:, 1])
    assert torch.equal(train[:, 1:, ::2].unpack(), spikes[:, :, 1:, ::2])
    assert torch.equal(train[..., 0].unpack(), spikes[..., 0])
    for dim in (0, 2, -1):
        both = torch.cat([spikes, spikes], dim + 1 if dim >= 0 else dim)
        assert torch.equal(SpikeTrain.cat([train, train], dim).unpack(), both)


def test_numbers_come_one_by_one_or_in_a_sequence():
    spikes, train = random_train(9, 2, 3, 7)
    for shape in ((6, 7), [6, 7], torch.Size((6, 7))):
        assert torch.equal(train.reshape(shape).unpack(), spikes.reshape(9, 6, 7))
    for dims in ((2, 0, 1), [-1, 0, 1]):
        assert torch.equal(train.permute(dims).unpack(), spikes.permute(0, 3, 1, 2))


@pytest.mark.parametrize("dims", [(0, 1), (0, 1, 3), (0, 1, -4), (0, 0, 1), (0, 1, 2, 0), ()])
def test_dimensions_that_there_are_not(dims):
    _, train = random_train(9, 2, 3, 7)
    with pytest.raises(ValueError, match=r"dims: expected (a dimension|all dimensions) of \(2, 3, 7\), got"):
        train.permute(*dims)
    for dim in (3, -4):
        with pytest.raises(ValueError, match=rf"dim: expected a dimension of \(2, 3, 7\), got {dim}"):
            SpikeTrain.cat([train, train], dim)
    with pytest.raises(ValueError, match=r"dim: expected a dimension of \(\), got 0"):
        SpikeTrain.cat([train[0, 0, 0]])


@pytest.mark.parametrize("cuts", [[8, 16], [5], [0, 8, 8], [16, 17], []])
def test_trains_join_over_time(cuts):
    spikes, train = random_train(19, 2, 5)
    joined = SpikeTrain.join([pack(part) for part in spikes.tensor_split(cuts)])
    assert joined.timesteps == 19
    assert torch.equal(joined.bytes, train.bytes)
    with pytest.raises(ValueError, match=r"trains: expected one shape, got \[\(2, 5\), \(2,\)\]"):
        SpikeTrain.join([train, train[:, 0]])
    with pytest.raises(ValueError, match=r"trains: expected one shape, got \[\]"):
        SpikeTrain.join([])


def test_it_moves_and_keeps_its_steps():
    _, train = random_train(9, 4)
    moved = train.to("meta")
    assert (moved.device.type, moved.timesteps, moved.shape) == ("meta", 9, (4,))
    with pytest.raises(TypeError):
        train.to(torch.float32)


@pytest.mark.parametrize("timesteps", [1, 7, 8, 9, 33])
def test_firing_rate(timesteps):
    spikes, train = random_train(timesteps, 5, 63)
    assert train.firing_rate().item() == pytest.approx(spikes.mean().item(), rel=1e-6)


def test_a_step():
    spikes = torch.rand(11, 3, 4) < 0.5
    train = pack(spikes)
    for t in range(11):
        assert torch.equal(train.step(t).bool(), spikes[t])
    with pytest.raises(ValueError, match="t: expected a step from 0 to 10, got 11"):
        train.step(11)
    with pytest.raises(ValueError, match=r"t: expected a step from 0 to 10, got 1\.5"):
        train.step(1.5)


def test_firing_rate_of_nothing_is_nan():
    assert pack(torch.zeros(0, 3)).firing_rate().isnan()
    assert pack(torch.zeros(8, 0)).firing_rate().isnan()


def test_it_is_a_pytree_node():
    _, train = random_train(9, 4)
    leaves, spec = pytree.tree_flatten({"train": train})
    assert len(leaves) == 1
    assert leaves[0] is train.bytes
    again = pytree.tree_unflatten(leaves, spec)["train"]
    assert again.timesteps == 9
    assert again.bytes is train.bytes
    assert pytree.tree_map(lambda _: 0, train).bytes == 0


def test_repr_names_shape_and_timesteps():
    assert repr(random_train(9, 4, 2)[1]) == "SpikeTrain(shape=(4, 2), timesteps=9, device=cpu)"


def test_bytes_from_elsewhere_are_checked():
    with pytest.raises(TypeError, match=r"bytes: expected a torch\.uint8 tensor, got torch\.float32 \(1, 4\)"):
        SpikeTrain.checked(torch.zeros(1, 4), 8)
    with pytest.raises(ValueError, match="bytes: expected 2 groups for timesteps=9"):
        SpikeTrain.checked(torch.zeros(1, 4, dtype=torch.uint8), 9)
    with pytest.raises(ValueError, match="bytes"):
        SpikeTrain.checked(torch.zeros((), dtype=torch.uint8), 8)
    with pytest.raises(TypeError, match=r"bytes: expected a torch\.uint8 tensor, got list"):
        SpikeTrain.checked([1], 8)
    for timesteps in (8.0, -4, "8", None):
        with pytest.raises(ValueError, match="timesteps: expected an integer >= 0, got"):
            SpikeTrain.checked(torch.zeros(1, 4, dtype=torch.uint8), timesteps)
    assert SpikeTrain.checked(torch.zeros(2, 4, dtype=torch.uint8), 9).timesteps == 9


def test_trains_of_different_length_do_not_concatenate():
    with pytest.raises(ValueError, match=r"trains: expected one number of time-steps, got \[8, 9\]"):
        SpikeTrain.cat([random_train(8, 2)[1], random_train(9, 2)[1]])
    with pytest.raises(ValueError, match="trains: expected at least one, got none"):
        SpikeTrain.cat([])


def test_tensors_apart_index_the_population_alone():
    spikes = torch.rand(16, 2, 3, 5) < 0.5
    train, i, j = pack(spikes.float()), torch.tensor([0, 1]), torch.tensor([4, 2])
    for index in (
        (i, slice(None), j),
        (i, Ellipsis, j),
        (i, 1, j),
        (i, slice(None), 0),
        i,
        (Ellipsis, j),
        (0, slice(1, 3)),
    ):
        index = index if isinstance(index, tuple) else (index,)
        wanted = torch.stack([step[index] for step in spikes])
        assert torch.equal(train[index].unpack().bool(), wanted)
