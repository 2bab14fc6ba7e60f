"""
What is left as it was found: modes, gradients, random states and files; and that a seed's uses have their numbers.
"""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest
import torch
from torch import nn

from art_mmc.state import Stream, derived_seed, seeded, untouched, write_atomically


def test_a_derived_seed_is_numpys():
    assert derived_seed(7, Stream.ATTACK, 3) == np.random.SeedSequence((7, 10, 3)).generate_state(1)[0]


def test_no_two_uses_have_the_same_number():
    assert len({use.value for use in Stream}) == len(Stream.__members__)
    assert Stream.ATTACK == 10
    assert Stream.EVALUATION == 12


def test_global_random_states_are_put_back():
    def drawn():
        return random.random(), np.random.rand(), torch.rand(1).item()

    with seeded(3):
        first = drawn()
    with seeded(4):
        before, after = drawn(), drawn()

    def fails():
        with seeded(3):
            assert drawn() == first
            raise ZeroDivisionError

    with seeded(4):
        assert drawn() == before
        pytest.raises(ZeroDivisionError, fails)
        assert drawn() == after


def test_a_network_is_as_it_was():
    net = nn.Sequential(nn.Linear(3, 3), nn.Dropout())
    net[0].eval()
    state = torch.get_rng_state()

    def fails():
        with untouched(net):
            net.train()(torch.rand(2, 3))
            raise ZeroDivisionError

    pytest.raises(ZeroDivisionError, fails)
    assert [net.training, net[0].training, net[1].training] == [True, False, True]
    assert torch.equal(torch.get_rng_state(), state)


def test_files_are_written_together_or_not_at_all(tmp_path):
    one, two = tmp_path / "folder" / "one", tmp_path / "two"
    assert write_atomically({one: b"1", two: lambda handle: np.savez(handle, a=1)}) == [one, two]
    assert one.read_bytes() == b"1"
    assert np.load(two)["a"] == 1
    with pytest.raises(ZeroDivisionError):
        write_atomically({one: b"2", two: lambda handle: 1 / 0})
    assert one.read_bytes() == b"1"
    assert sorted(each.name for each in tmp_path.rglob("*")) == ["folder", "one", "two"]


def test_two_threads_may_write_one_file(tmp_path):
    path, start = tmp_path / "file", threading.Barrier(2)

    def content(handle):
        start.wait(10)  # both have their file open
        handle.write(b"whole")
        start.wait(10)

    threads = [threading.Thread(target=write_atomically, args=({path: content},)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() == b"whole"
    assert len(list(tmp_path.iterdir())) == 1
