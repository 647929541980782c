"""Requests that no node can hold, and places that are taken (contract F5)."""

import importlib
import os
import re
import time

import numpy as np
import pytest
import ray

import rayfeed
from rayfeed import ProducerOptions
from rayfeed.errors import OptionError, PlacementError, SourceError
from rayfeed.producer import placement
from tests.conftest import NUM_CPUS, wait_until
from tests.sources import Numbered, numbers_of


@pytest.mark.parametrize(
    ("options", "claimed", "had"),
    [
        (ProducerOptions(num_cpus=64), "64 CPU", f"{NUM_CPUS} CPU"),
        (ProducerOptions(num_cpus=0, resources={"GPU": 1000}), "1000 GPU", "GPU"),
        (ProducerOptions(num_cpus=0, memory=2**50), "1048576.0 GiB memory", "GiB memory"),
        (ProducerOptions(num_cpus=0, resources={"licence": 2}), "2 licence", "0 licence"),
    ],
    ids=["cpus", "gpus", "memory", "custom"],
)
def test_what_no_node_has_is_refused_at_once_with_the_numbers(options, claimed, had):
    started = time.monotonic()
    with pytest.raises(PlacementError) as caught:
        rayfeed.Feed(Numbered(3), producers=options)
    assert time.monotonic() - started < 5
    text = str(caught.value)
    assert re.search(rf"a producer claims {claimed}, more than any node of the cluster has \([\d.]+: .*{had}\)", text)
    assert "lower ProducerOptions, or add such a node" in text


def test_labels_that_no_node_has_are_refused_at_once_with_those_it_has():
    selector = {"colour": "red", "ray.io/node-id": ray.get_runtime_context().get_node_id()}
    with pytest.raises(PlacementError) as caught:
        rayfeed.Feed(Numbered(3), producers=ProducerOptions(num_cpus=0, label_selector=selector))
    assert re.search(
        r"a producer claims no resources on a node with colour=red, ray.io/node-id=\w+, and no node of the cluster has "
        r"these labels \([\d.]+: ray.io/node-id=\w+\)\.\n  It would wait for ever",
        str(caught.value),
    )
    there = {"ray.io/node-id": selector["ray.io/node-id"], "colour": "!red"}  # operators are Ray's
    with rayfeed.Feed(Numbered(3), producers=ProducerOptions(num_cpus=0, label_selector=there)) as feed:
        assert numbers_of(feed) == [0, 1, 2]
    too_large = ProducerOptions(num_cpus=64, label_selector=there)
    with pytest.raises(PlacementError, match=r"claims 64 CPU on a node .*, more than any such node of the cluster has"):
        rayfeed.Feed(Numbered(3), producers=too_large)


@pytest.fixture
def all_cpus_taken():
    """Another job's actor that holds every CPU."""

    @ray.remote(num_cpus=NUM_CPUS)
    class Other:
        def ready(self):
            return True

    # Producers of the test before may still be about to give theirs back.
    wait_until(lambda: ray.available_resources().get("CPU") == NUM_CPUS, "CPUs are still taken")
    other = Other.remote()
    assert ray.get(other.ready.remote())
    wait_until(lambda: not ray.available_resources().get("CPU"), "the CPUs are not counted as taken")
    yield
    ray.kill(other)


def test_a_place_that_stays_taken_is_an_error_after_the_deadline_with_the_numbers(all_cpus_taken):
    options = ProducerOptions(num_cpus=1, start_timeout_s=1.5)
    with rayfeed.Feed(Numbered(3), 2, use_multiprocessing=True, producers=options) as feed:
        started = time.monotonic()
        with pytest.raises(PlacementError) as caught:
            next(iter(feed))
        assert 1 < time.monotonic() - started < 8
    for part in (
        "found no place in",
        f"each of 2 claims 1 CPU, and the cluster has 0 of {NUM_CPUS} CPU free",
        "ProducerOptions.num_cpus",
        "start_timeout_s (now 1.5)",
    ):
        assert part in str(caught.value)


def test_without_a_claim_producers_start_though_all_cpus_are_taken(all_cpus_taken):
    with rayfeed.Feed(Numbered(3), 2, use_multiprocessing=True) as feed:
        assert numbers_of(feed) == [0, 1, 2]


def test_a_feed_goes_on_with_the_producers_that_found_a_place():
    options = ProducerOptions(num_cpus=NUM_CPUS, start_timeout_s=30)
    with rayfeed.Feed(Numbered(5), 3, use_multiprocessing=True, producers=options) as feed:
        assert numbers_of(feed.take(20)) == [0, 1, 2, 3, 4] * 4


class Variables(rayfeed.Sequence):
    """Some of its process' environment variables."""

    def __init__(self, *names):
        self.names = names

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return np.array([os.environ.get(name, "unset") for name in self.names]), None


def test_environment_variables_reach_the_producers_and_gpus_are_hidden_from_them():
    with rayfeed.Feed(
        Variables("COLOUR", "CUDA_VISIBLE_DEVICES"), producers=ProducerOptions(env_vars={"COLOUR": "blue"})
    ) as feed:
        ((inputs, _),) = feed
    assert inputs.tolist() == ["blue", ""]


def test_a_runtime_environment_reaches_the_producers_and_env_vars_go_before_it():
    options = ProducerOptions(
        env_vars={"COLOUR": "blue"}, runtime_env={"env_vars": {"COLOUR": "red", "SHAPE": "round"}}
    )
    with rayfeed.Feed(Variables("COLOUR", "SHAPE"), producers=options) as feed:
        ((inputs, _),) = feed
    assert inputs.tolist() == ["blue", "round"]


def test_a_runtime_environment_that_ray_does_not_take_is_refused_with_the_way_out():
    with pytest.raises(OptionError) as caught:
        rayfeed.Feed(Numbered(3), producers=ProducerOptions(runtime_env={"working_dir": "."}))
    text = str(caught.value)
    assert text.startswith("ProducerOptions.runtime_env cannot be used: . is not a valid URI.")
    assert 'ray.init(runtime_env={"working_dir": "."})' in text


NOWHERE = "https://127.0.0.1:1/code.zip"


def test_a_runtime_environment_that_cannot_be_had_is_an_error_and_not_tried_for_ever():
    options = ProducerOptions(runtime_env={"working_dir": NOWHERE})
    with rayfeed.Feed(Numbered(3), producers=options) as feed, pytest.raises(PlacementError) as caught:
        next(iter(feed))
    text = str(caught.value)
    assert text.startswith("producer 0 cannot start: Ray could not set up its runtime environment: ")
    assert "Connection refused" in text
    assert "See to ProducerOptions.runtime_env" in text


def test_who_waits_for_producers_is_told_how_many_and_what_is_free(all_cpus_taken, monkeypatch):
    monkeypatch.setattr(placement, "TOLD_AFTER_S", 0.6)
    options = ProducerOptions(num_cpus=1, start_timeout_s=2.5)
    with (
        rayfeed.Feed(Numbered(3), 2, use_multiprocessing=True, producers=options) as feed,
        pytest.warns(UserWarning, match="have not started") as told,
        pytest.raises(PlacementError),
    ):
        next(iter(feed))
    assert str(told[0].message).startswith("rayfeed: 2 of 2 producers have not started after 1 s: ")
    text = str(told[0].message)
    assert f"claimed is 1 CPU, and the cluster has 0 of {NUM_CPUS} CPU free" in text
    assert (
        "it waits for other jobs; in ProducerOptions lower the claim (num_cpus=0: no CPU), or start_timeout_s (now 2.5)"
        in text
    )


def test_a_module_that_a_node_has_not_is_named_with_node_and_way_out(tmp_path, monkeypatch):
    (tmp_path / "augmenting.py").write_text("def images():\n    yield\n")
    monkeypatch.syspath_prepend(tmp_path)  # after Ray was started: it knows nothing of it
    source = importlib.import_module("augmenting").images
    with rayfeed.Feed(source) as feed, pytest.raises(SourceError) as caught:
        next(iter(feed))
    text = str(caught.value)
    assert text.startswith("source cannot be loaded in this process: the module 'augmenting' that it needs is not on")
    assert 'ray.init(runtime_env={"working_dir": "."})' in text
    (note,) = caught.value.__notes__
    assert re.fullmatch(r"rayfeed: raised in producer 0 \(node [\d.]+, pid \d+\), .*", note)
