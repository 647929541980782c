"""What an actor claims of which nodes, and what is refused, from what Ray tells of the cluster (contract F5)."""

import pytest

from rayfeed.errors import PlacementError
from rayfeed.options import ProducerOptions, TrainerOptions
from rayfeed.producer import nodes, placement
from rayfeed.producer.placement import producer_claim, start_timeout_s, trainer_claim


def node(name, cpus, labels=(), *, free=None, going=False, **resources):
    return {
        "NodeID": name,
        "NodeManagerAddress": name,
        "Resources": {"CPU": cpus, **resources},
        "Labels": dict(labels),
        "free": cpus if free is None else free,
        "going": going,
    }


@pytest.fixture
def has(monkeypatch):
    """Says what the cluster has."""

    def has(*found, grows=False):
        told = {
            "can_grow": grows,
            "living_nodes": list(found),
            "staying_nodes": [one for one in found if not one["going"]],
            "draining_nodes": {one["NodeID"] for one in found if one["going"]},
            "free_cpus": {one["NodeID"]: one["free"] for one in found},
        }
        for name, value in told.items():
            monkeypatch.setattr(placement, name, lambda value=value: value)

    return has


SPOT = {"market": "spot"}


@pytest.mark.parametrize(
    ("options", "num_gpus"),
    [
        ({}, 1),
        ({"num_cpus": 4}, 1),
        ({"num_gpus": 0}, 0),
        ({"num_cpus": 32}, 0),
        ({"label_selector": SPOT}, 0),
        ({"resources": {"disk": 1}}, 0),
        ({"memory": 500}, 0),
    ],
)
def test_a_gpu_is_claimed_where_a_node_that_can_hold_the_rest_of_the_claim_has_one(options, num_gpus, has):
    has(node("gpu", 4, GPU=1, memory=100), node("cpu", 64, SPOT, disk=2, memory=1000))
    assert trainer_claim(TrainerOptions(**options)).num_gpus == num_gpus


def test_a_gpu_of_a_node_that_was_told_to_end_is_not_claimed(has):
    has(node("gpu", 4, going=True, GPU=1), node("cpu", 4))
    assert trainer_claim(TrainerOptions()).num_gpus == 0


@pytest.mark.parametrize(
    ("free", "options", "num_cpus"),
    [
        ((8, 0, 0), {}, 1),
        ((0, 8, 0), {}, 1),
        ((4, 4, 0), {}, 1),
        ((3, 4, 0), {}, 0),
        ((0, 0, 8), {}, 0),
        ((8, 0, 0), {"label_selector": SPOT}, 0),
        ((0, 8, 0), {"label_selector": SPOT}, 1),
        ((8, 0, 0), {"resources": {"disk": 1}}, 0),
        ((0, 8, 0), {"resources": {"disk": 1}}, 1),
        ((8, 0, 0), {"label_selector": {"market": "!spot"}}, 1),
        ((0, 0, 0), {"num_cpus": 2}, 2),
    ],
)
def test_only_free_cpus_of_nodes_that_can_hold_it_make_a_producer_claim_one(free, options, num_cpus, has):
    has(
        node("a", 8, free=free[0]),
        node("b", 8, SPOT, free=free[1], disk=1),
        node("c", 8, SPOT, free=free[2], disk=1, going=True),
    )
    assert producer_claim(ProducerOptions(**options), 4).num_cpus == num_cpus


def test_a_trainer_claims_a_cpu_where_the_nodes_with_a_gpu_have_two_free(has):
    for free, num_cpus in ((2, 1), (1, 0)):
        has(node("gpu", 8, free=free, GPU=1), node("cpu", 8))
        claim = trainer_claim(TrainerOptions())
        assert (claim.num_gpus, claim.num_cpus) == (1, num_cpus)


def test_a_claim_that_only_a_node_can_hold_that_was_told_to_end_is_refused_with_that(has):
    has(node("10.0.0.1", 2), node("10.0.0.2", 8, going=True))
    with pytest.raises(PlacementError) as caught:
        producer_claim(ProducerOptions(num_cpus=4), 1)
    assert str(caught.value) == (
        "a producer claims 4 CPU, more than any node of the cluster has "
        "(10.0.0.1: 2 CPU; 10.0.0.2: 8 CPU, but it was told to end).\n"
        "  It would wait for ever: lower ProducerOptions, or add such a node."
    )


@pytest.mark.parametrize(("grows", "found"), [(False, 300), (True, 1800)])
def test_an_actor_has_longer_for_its_start_where_a_machine_may_have_to_be_started_first(grows, found, has):
    has(node("a", 2), grows=grows)
    for options in (ProducerOptions, TrainerOptions):
        assert start_timeout_s(options()) == found
        assert start_timeout_s(options(start_timeout_s=5)) == 5


@pytest.mark.parametrize(
    ("configured", "labels", "grows"),
    [(None, {}, False), (None, {"ray.io/node-group": "head"}, True), ({"CPU": 64}, {}, True), ({}, {}, False)],
)
def test_a_cluster_can_grow_whose_nodes_have_groups_or_that_was_told_what_it_may_have(
    configured, labels, grows, monkeypatch
):
    monkeypatch.setattr(nodes.state, "get_max_resources_from_cluster_config", lambda: configured)
    monkeypatch.setattr(nodes, "living_nodes", lambda: [node("a", 2, labels), node("b", 2)])
    assert nodes.can_grow() is grows
