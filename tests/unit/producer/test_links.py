"""Links are measured by a few probes for each machine; who shares one is told."""

import concurrent.futures
from types import SimpleNamespace

import pytest
from ray.exceptions import ActorDiedError

from rayfeed.producer.links import LEAST_BYTES, MOST_BYTES, NUM_PROBES, Links


class Call:
    """A call of an actor: answered when the test says so."""

    def __init__(self):
        self.done = concurrent.futures.Future()

    def future(self):
        return self.done


class Producer:
    """A member of a pool, whose actor notes what it is asked and told."""

    def __init__(self, worker, node_id):
        self.worker, self.life, self.node_id = worker, 0, node_id
        self.calls, self.sizes, self.told = [], [], []
        self.actor = SimpleNamespace(probe=SimpleNamespace(remote=self.probe), link=SimpleNamespace(remote=self.link))

    def probe(self, num_bytes):
        self.sizes.append(num_bytes)
        self.calls.append(Call())
        return self.calls[-1]

    def link(self, share):
        self.told.append(share)


def measure(links, members, *measured):
    for _ in range(NUM_PROBES):
        links.look(members)
        for member in measured:
            member.calls[-1].done.set_result(None)
    links.look(members)


def test_each_machine_is_measured_and_each_of_its_producers_told_its_share():
    links = Links("here")
    here, one, same, other = members = [Producer(number, node) for number, node in enumerate(("here", *"aab"))]
    measure(links, members, same, other)
    assert [len(member.sizes) for member in members] == [0, 0, NUM_PROBES, NUM_PROBES]
    assert same.sizes[0] == LEAST_BYTES
    assert same.sizes[-1] == MOST_BYTES, "nothing takes less time than these"
    assert here.told == []
    assert one.told == same.told
    assert len(one.told) == len(other.told) == 1
    assert links.under_way() == []
    links.look(members)
    assert len(one.told) == 1, "nothing has changed"
    links.look([here, one, same])
    assert one.told[1] == pytest.approx(1.5 * one.told[0])
    assert len(other.told) == 1


def test_nothing_is_told_before_all_probes_came():
    links, one = Links("here"), Producer(0, "a")
    for number in range(NUM_PROBES):
        links.look([one])
        assert links.under_way() == one.calls[-1:]
        links.look([one])
        assert len(one.calls) == number + 1, "one at a time"
        assert one.told == []
        one.calls[-1].done.set_result(None)
    links.look([one])
    assert len(one.told) == 1


def test_another_is_asked_where_a_producer_was_lost():
    links, one, other = Links("here"), Producer(0, "a"), Producer(1, "a")
    links.look([one])
    one.calls[0].done.set_exception(ActorDiedError())
    measure(links, [other], other)
    assert len(other.calls) == NUM_PROBES
    assert len(other.told) == 1


def test_an_error_of_ours_is_not_hidden():
    links, one = Links("here"), Producer(0, "a")
    links.look([one])
    one.calls[0].done.set_exception(TypeError("probe"))
    with pytest.raises(TypeError, match="probe"):
        links.look([one])
