"""Nodes of a cluster are drained and lost while a feed is read: order and exactly-once hold, and it goes on (F2)."""

import json
import re

import pytest

from tests.conftest import assert_runs


def run(module):
    output = assert_runs(f"from tests.nodes.{module} import main\nmain()", seconds=120, RAY_ADDRESS=None)
    return json.loads(output.splitlines()[-1])


@pytest.fixture(scope="module")
def found():
    return run("scenes")


def test_producers_of_a_node_that_is_drained_finish_what_they_hold_and_others_take_their_place(found):
    drained = found["drained"]
    assert drained["in order"]
    assert drained["there before"] >= 1
    assert drained["there after"] == 0
    assert drained["producers after"] == 4
    assert drained["lost"] == drained["remade"] == 0
    assert drained["longest gap"] < 2


def test_a_node_that_is_cut_off_is_not_waited_for_and_what_it_answers_later_is_dropped(found):
    cut_off = found["cut off"]
    assert cut_off["in order"]
    assert cut_off["there before"] >= 1
    assert cut_off["lost"] == 0, "Ray did not notice"
    assert cut_off["remade"] >= cut_off["there before"]
    assert 2 < cut_off["longest gap"] < 8


def test_a_node_that_is_killed_costs_a_moment(found):
    killed = found["killed"]
    assert killed["in order"]
    assert killed["there before"] >= 1
    assert killed["lost"] == killed["there before"]
    assert killed["remade"] >= 1
    assert killed["longest gap"] < 5


@pytest.mark.slow
def test_producers_are_spread_over_the_other_machines_while_these_have_room_and_each_does_what_it_can():
    placed = run("placing")
    assert placed["few"] == {"left": 1, "right": 1}
    assert placed["as many as the others hold"] == placed["as many, without a claim"] == {"left": 2, "right": 2}
    assert placed["more"] == {"left": 2, "right": 2, "here": 2}
    assert placed["more, without a claim"]["here"] == 1, "where the trainer needs one as well"
    assert sum(placed["more, without a claim"].values()) == 6
    assert placed["labelled"] == {"right": 3}
    assert placed["here alone"] == {"here": 2}, "whoever names a node is given it"
    assert placed["unequal"]["in order"]
    assert 0 < placed["unequal"]["slow"] < 200 / 3 / 2, "less than half of an equal share"


@pytest.fixture(scope="module")
def growing():
    return run("growing")


@pytest.mark.slow
def test_where_an_autoscaler_may_add_machines_each_actor_claims_a_cpu_and_has_half_an_hour_for_its_start(growing):
    assert growing["claimed"] == [1, 1]
    assert growing["start_timeout_s"] == [1800, 1800]


@pytest.mark.slow
def test_what_the_consumers_machine_can_spare_works_at_once_and_an_autoscaler_sees_the_demand_of_the_others(growing):
    assert growing["before"] == [{"here": 1}, {}]
    assert growing["wanted"] == {"producer": 2}, "of 4 CPUs each, for 5 producers and 2 that want its label"
    assert growing["infeasible"] == 0


@pytest.mark.slow
def test_labels_that_no_node_has_yet_are_waited_for_with_a_word(growing):
    (told,) = growing["told"]
    assert told.startswith(
        "rayfeed: a producer claims 1 CPU on a node with rayfeed.io/role=producer, and no node of the cluster has these"
    )
    assert told.endswith("Waiting for the autoscaler to add such a node.")


@pytest.mark.slow
def test_a_machine_that_is_added_gets_the_producers_that_wait_and_the_feeds_are_read_on(growing):
    assert growing["after"] == [{"here": 1, "added": 5}, {"added": 2}]
    assert growing["read"] == [list(range(50)), list(range(50)), list(range(5))]


@pytest.mark.slow
def test_a_trainer_that_claims_nothing_is_on_a_node_with_cpus_and_has_no_more_threads_than_these():
    found = run("bare_head")
    assert found["claimed"] == "no resources"
    assert set(found["trainers"]) == {"other"}
    assert found["threads"] == "1"


@pytest.fixture(scope="module")
def on_gpu():
    return run("on_gpu")


@pytest.mark.slow
def test_a_trainer_is_where_a_gpu_is_and_sees_it_and_producers_are_elsewhere_and_do_not(on_gpu):
    assert on_gpu["trainer"] == ["gpu", "0"]
    assert {name for name, _ in on_gpu["producers"]} <= {"here", "left"}
    assert {visible for _, visible in on_gpu["producers"]} == {""}


@pytest.mark.slow
def test_a_gpu_that_was_claimed_and_that_the_backend_does_not_find_is_told_to_the_caller_once(on_gpu):
    (told,) = [text for text in on_gpu["told"] if "GPU" in text]
    assert re.match(
        r"rayfeed: the trainer \(node [\d.]+, pid \d+\) claims 1 GPU, and Keras' tensorflow backend finds none there: "
        r"it goes on on the CPU\.\n",
        told,
    )
    for way_out in ("pip install 'tensorflow[and-cuda]'", "driver", "container", "TrainerOptions(num_gpus=0)"):
        assert way_out in told


@pytest.mark.slow
def test_frames_from_another_machine_are_compressed_where_that_was_asked_for_and_arrive_as_they_left():
    found = run("compressing")
    assert {found[name]["digest"] for name in ("zstd", "auto", "not compressed", "here")} == {found["wanted"]}
    # Up to a quarter of a pass has come besides, for the next one.
    assert 0.4 < found["zstd"]["came"] < 0.7
    assert min(found[name]["came"] for name in ("here", "not compressed")) >= 1


@pytest.mark.long
def test_a_trainer_that_is_lost_with_its_node_goes_on_elsewhere_and_ends_as_if_nothing_had_been():
    trainer = run("training")
    assert trainer["history"]
    assert trainer["weights"]
    (told,) = [one for one in trainer["told"] if "was lost during fit" in one]  # others tell how long it waits
    assert "going on from epoch 1, batch " in told
    assert trainer["waited"] < 60
