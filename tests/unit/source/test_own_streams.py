"""The process' own random streams, while user code runs seeded in one or several of its threads."""

import random
import threading
from contextlib import contextmanager

import numpy as np
import pytest

from rayfeed.source.own_streams import OwnStreams, current, own_streams, set_current
from rayfeed.source.seeding import seeded


def same(one, other):
    return one[0] == other[0] and one[1][1].tolist() == other[1][1].tolist() and one[1][2:] == other[1][2:]


@pytest.fixture
def own():
    """The states as they were before anything ran seeded."""
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    found = current()
    yield found
    assert same(current(), found)


@contextmanager
def beside(pass_index):
    """Code that runs seeded in another thread, for as long as this is open."""
    inside, gate = threading.Event(), threading.Event()

    def run():
        with seeded(3, pass_index, 4, beside=True):
            random.random()
            inside.set()
            assert gate.wait(20)

    thread = threading.Thread(target=run)
    thread.start()
    assert inside.wait(20)
    yield
    gate.set()
    thread.join(20)


def test_the_process_own_states_are_had_at_once_while_a_hook_runs_or_hangs(own):
    with beside(0):
        assert not same(current(), own)
        assert same(own_streams.get(), own)
    assert same(own_streams.get(), own)


def test_states_that_are_set_meanwhile_count_from_the_hooks_end_on(own):
    other = OwnStreams().get()
    random.random()
    another = current()
    set_current(other)
    with beside(0):
        own_streams.set(another)
        assert same(own_streams.get(), another)
        assert not same(current(), another)
    assert same(current(), another)
    own_streams.set(own)


def test_nobody_waits_for_another_and_the_last_one_out_puts_the_own_states_back(own):
    first, second = beside(0), beside(1)
    with first:
        second.__enter__()
        with seeded(3, 2, 4):
            pass
    assert not same(current(), own), "the second one runs on"
    second.__exit__(None, None, None)


def test_seeded_code_within_seeded_code_leaves_the_outer_one_its_stream(own):
    with seeded(3, 0, 0):
        random.random()
        before = current()
        with seeded(3, 0, 1):
            assert not same(current(), before)
        assert same(current(), before)
