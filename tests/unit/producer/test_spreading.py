"""The machine that an actor is asked for."""

from collections import Counter

import pytest

from rayfeed.producer import spreading
from rayfeed.producer.placement import Claim
from rayfeed.producer.spreading import NODE_ID, Spread, least_loaded, room_here, where_cpus_are


def filled(cpus, number, here="here"):
    """Producers on each machine after so many were placed, one by one."""
    taken = Counter()
    for _ in range(number):
        taken[least_loaded(cpus, taken, here, left=None)] += 1
    return dict(taken)


@pytest.mark.parametrize(
    ("cpus", "number", "found"),
    [
        ({"here": 8}, 3, {"here": 3}),
        ({"here": 8, "a": 8}, 8, {"a": 8}),
        ({"here": 8, "a": 8}, 16, {"a": 9, "here": 7}),
        ({"here": 2, "a": 2, "b": 2}, 4, {"a": 2, "b": 2}),
        ({"here": 2, "a": 2, "b": 2}, 5, {"a": 2, "b": 2, "here": 1}),
        ({"here": 4, "a": 12, "b": 4}, 8, {"a": 6, "b": 2}),
        ({"a": 1, "b": 1}, 6, {"a": 3, "b": 3}),
    ],
)
def test_machines_fill_by_their_cpus_and_the_consumers_comes_last(cpus, number, found):
    assert filled(cpus, number) == found


def test_a_machine_that_may_be_gone_is_left_out_where_there_are_others():
    assert least_loaded({"a": 2, "b": 2}, {"b": 1}, "here", left="a") == "b"
    assert least_loaded({"a": 2}, {}, "here", left="a") == "a"
    assert least_loaded({}, {}, "here", left=None) is None


def node(name, cpus=8, labels=(), **resources):
    return {
        "NodeID": name,
        "Resources": {"CPU": cpus, **resources} if cpus else resources,
        "Labels": {NODE_ID: name, **dict(labels)},
    }


SPOT = {"market": "spot"}


@pytest.mark.parametrize(
    ("nodes", "claim", "found"),
    [
        ([node("here", 8)], Claim(1), 7),
        ([node("here", 8)], Claim(2), 3),
        ([node("here", 1)], Claim(1), 0),
        ([node("here", 8, memory=100)], Claim(1, memory=30), 3),
        ([node("here", 8)], Claim(1, resources={"disk": 1}), 0),
        ([node("here", 8)], Claim(1, label_selector=SPOT), 0),
        ([node("here", 8), node("small", 2)], Claim(4), 1),
        ([node("here", 8), node("bare", 0)], Claim(1), 7),
        ([node("here", 8), node("a")], Claim(1), None),
        ([node("here", 8), node("a", labels=SPOT)], Claim(1, label_selector=SPOT), None),
        ([], Claim(1), 0),
    ],
)
def test_before_other_machines_come_the_consumers_has_room_for_what_it_can_hold_beside_the_trainer(nodes, claim, found):
    assert room_here(nodes, claim, "here") == found


@pytest.fixture
def has(monkeypatch):
    """Says what the cluster has."""

    def has(*nodes, grows):
        monkeypatch.setattr(spreading, "can_grow", lambda: grows)
        for name in ("staying_nodes", "living_nodes"):
            monkeypatch.setattr(spreading, name, lambda: nodes)

    return has


HERE, AWAY = {NODE_ID: "here"}, {NODE_ID: "!here"}


def selectors(options):
    """The labels that are asked for, in this order."""
    return [one["label_selector"] for one in (options, *options.get("fallback_strategy", []))]


def test_where_machines_may_come_the_first_producers_start_here_and_the_others_are_asked_for_elsewhere_alone(has):
    has(node("here", 3), grows=True)
    spread = Spread(Claim(1), "here")
    taken = Counter()
    found = []
    for _ in range(4):
        name, options = spread.choose(taken, left=None)
        taken[name] += 1
        found.append((name, selectors(options)))
    assert found == [("here", [HERE, AWAY])] * 2 + [(None, [AWAY])] * 2


def test_where_another_machine_has_come_or_none_may_come_producers_take_what_the_consumers_has_left(has):
    for nodes, grows in (([node("here", 3), node("a")], True), ([node("here", 3)], False)):
        has(*nodes, grows=grows)
        name, options = Spread(Claim(1), "here").choose({"here": 5}, left=None)
        assert (name, selectors(options)) == (None, [AWAY, {}])


def test_producers_that_are_to_claim_no_cpus_start_on_the_machines_that_there_are(has):
    has(node("here", 3), grows=True)
    name, options = Spread(Claim(0), "here").choose({"here": 5}, left=None)
    assert (name, selectors(options)) == ("here", [HERE, AWAY, {}])


def test_an_actor_without_a_claim_is_asked_for_on_its_callers_machine_and_else_on_another_with_cpus(has):
    has(node("here"), node("a"), grows=False)
    assert selectors(where_cpus_are(Claim(0), "here")) == [HERE, {}]
    has(node("here"), node("a"), node("bare", 0), node("idle", 0), grows=False)
    others = {NODE_ID: "!in(bare,idle)"}
    assert selectors(where_cpus_are(Claim(0), "here")) == [HERE, others, {}]
    assert selectors(where_cpus_are(Claim(0), "bare")) == [others, {}]
    assert selectors(where_cpus_are(Claim(0, label_selector=SPOT), "here")) == [SPOT | others, SPOT]


def test_an_actor_that_claims_a_cpu_or_gpu_or_names_its_node_goes_where_ray_finds_that(has):
    has(node("here"), node("bare", 0), grows=False)
    for claim in (Claim(1), Claim(0, num_gpus=1), Claim(0, label_selector={NODE_ID: "bare"})):
        assert where_cpus_are(claim, "here") == {}
