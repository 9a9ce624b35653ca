"""Fresh memory is poisoned in every test, and tests that need a GPU say so where there is none.

Tests run side by side, on one thread each: tensors as small as theirs run slower on several. Those of the threads
themselves ask for some.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch reads it, and for the processes that tests start

import pytest
import torch
from hypothesis import settings

# The machine is shared and the first example of an op loads libraries: time is no property under test.
settings.register_profile("repository", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("repository")


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def poisoned_memory(monkeypatch):
    """torch.empty and its relatives return NaN and 0xFF, so that an output nobody writes cannot look right."""
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    before = torch.are_deterministic_algorithms_enabled()
    # As warnings: only the poisoning is wanted of that mode.
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(before)


# Files whose tests take minutes, the longest first: begun last, one would keep a single process at work alone.
LONGEST = ["triton_products", "cuda", "memory_safety", "cuda_networks", "triton", "convert_transformers", "packaging"]


def pytest_collection_modifyitems(items):
    places = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONGEST)))
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="torch finds no GPU"))
