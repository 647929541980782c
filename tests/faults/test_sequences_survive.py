"""Producers of a Sequence are killed at named points: the order and exactly-once hold (contract C6, F2).

Whole plans of faults are in `test_plans`.
"""

import os
import re
import signal

import pytest
import ray
from ray.exceptions import RuntimeEnvSetupError

import rayfeed
from rayfeed import ProducerOptions
from rayfeed.errors import ProducerDiedError
from rayfeed.producer import restarts
from rayfeed.producer.crew import Down
from rayfeed.testing.faults import Fault, Faulty
from tests.conftest import producer_pids, wait_until
from tests.sources import Log, Numbered, Shuffling, die, is_settled, number_of, numbers_of, plain_passes


def dying(length, folder, at):
    """The process that first makes one of the batches `at` of the first pass is killed while it does."""
    return Faulty(Numbered(length), [Fault("make", index=index) for index in at], folder)


@pytest.mark.parametrize(("workers", "use_multiprocessing"), [(1, True), (3, False), (3, True)])
def test_a_producer_killed_while_it_makes_a_batch_costs_nothing(workers, use_multiprocessing, tmp_path):
    with rayfeed.Feed(dying(40, tmp_path, {7}), workers, use_multiprocessing) as feed:
        assert numbers_of(feed) == list(range(40))
        assert numbers_of(feed.take(40)) == list(range(40))
        stats = feed.stats()
    assert stats.lost_producers == 1
    assert stats.remade_tickets >= 1


def test_unordered_each_batch_still_comes_once(tmp_path):
    with rayfeed.Feed(dying(40, tmp_path, {0, 13}), 3, use_multiprocessing=True, ordered=False) as feed:
        assert [sorted(numbers_of(feed)) for _ in range(2)] == [list(range(40))] * 2


def test_replacements_have_the_state_that_on_epoch_end_left_and_the_hook_runs_once_a_pass(once, log, tmp_path):
    def die_once():
        if once("second pass"):
            die()

    expected = plain_passes(Shuffling(Log(tmp_path / "other")), 3)
    sequence = Shuffling(log, at={(1, 4): die_once})
    with rayfeed.Feed(sequence, 2, use_multiprocessing=True, max_queue_size=4) as feed:
        assert [numbers_of(feed) for _ in range(3)] == expected
        assert feed.stats().lost_producers == 1
    assert [line.split()[1] for line in log.lines() if line.startswith("hook")] == ["0", "1", "2"]


@pytest.mark.parametrize("all_at_once", [False, True])
def test_producers_killed_while_idle_are_replaced_and_what_they_made_is_kept(all_at_once, log):
    with rayfeed.Feed(Numbered(40, log=log), 3, use_multiprocessing=True) as feed:
        wait_until(lambda: is_settled(feed), "the queue does not fill")
        made = len(log.lines())
        pids = producer_pids()
        assert len(pids) == 3
        doomed = pids if all_at_once else pids[:1]
        for pid in doomed:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: feed.stats().lost_producers == len(doomed), "the loss is not noticed")
        assert numbers_of(feed) == list(range(40))
        assert feed.stats().remade_tickets == 0
        assert log.numbers()[:made] == list(dict.fromkeys(log.numbers()[:made]))  # nothing was made again


def test_without_restarts_the_feed_goes_on_with_the_rest(tmp_path):
    options = ProducerOptions(max_restarts=0)
    with rayfeed.Feed(dying(40, tmp_path, {4, 19}), 3, use_multiprocessing=True, producers=options) as feed:
        with pytest.warns(UserWarning, match="goes on without it") as told:
            numbers = numbers_of(feed)
        assert numbers == numbers_of(feed) == list(range(40))
        assert (feed.stats().lost_producers, feed.stats().num_producers) == (2, 1)
        assert len(producer_pids()) == 1
    for warning in told:
        assert re.fullmatch(
            r"producer \d \(node [\d.]+, pid \d+\) was lost, and source goes on without it\. 0 of 0 restarts "
            r"within 60 s are used \(ProducerOptions\.max_restarts\): it is not replaced\.",
            str(warning.message),
        )
    assert len(told) == 2


def test_a_lost_producer_is_not_counted_before_it_is_no_longer_one_that_works(monkeypatch):
    kill, seen = ray.kill, []

    def look_and_kill(actor, **options):
        seen.append((feed.stats().lost_producers, len(feed.processes())))
        kill(actor, **options)

    with rayfeed.Feed(Numbered(40), 2, use_multiprocessing=True) as feed:
        wait_until(lambda: is_settled(feed), "the queue does not fill")
        with monkeypatch.context() as patched:
            patched.setattr(ray, "kill", look_and_kill)
            os.kill(feed.processes()[0].pid, signal.SIGKILL)
            wait_until(lambda: feed.stats().lost_producers == 1, "the loss is not noticed")
        assert seen[0] == (0, 2)  # others are of feeds that end meanwhile
        assert numbers_of(feed) == list(range(40))


def test_one_lost_too_often_is_told_and_replaced_once_its_restarts_are_older(monkeypatch):
    monkeypatch.setattr(restarts, "WITHIN_S", 4.0)
    options = ProducerOptions(max_restarts=1)
    with rayfeed.Feed(Numbered(10_000), 2, use_multiprocessing=True, producers=options) as feed:
        reader = iter(feed)
        kept = None
        for _ in range(2):
            wait_until(lambda: len(feed.processes()) == 2, "it is not replaced")
            kept = kept or feed.processes()[0].pid
            (doomed,) = (one.pid for one in feed.processes() if one.pid != kept)
            lost = feed.stats().lost_producers
            os.kill(doomed, signal.SIGKILL)
            wait_until(lambda lost=lost: feed.stats().lost_producers > lost, "the loss is not noticed")
        assert feed.stats().num_producers == 1
        with pytest.warns(
            UserWarning,
            match=r"1 of 1 restarts within 4 s are used \(ProducerOptions\.max_restarts\): it is replaced in",
        ):
            numbers = [number_of(next(reader)) for _ in range(1000)]
        wait_until(lambda: len(feed.processes()) == 2, "it is not replaced again")
        assert feed.stats().num_producers == 2
        numbers.extend(number_of(one) for one in reader)
    assert numbers == list(range(10_000))


def test_a_replacement_whose_environment_cannot_be_had_ends_no_call_that_others_serve():
    with rayfeed.Feed(Numbered(40), 2, use_multiprocessing=True) as feed:
        wait_until(lambda: len(feed.processes()) == 2, "they do not come")
        conductor = feed._stream._conductor
        life = conductor.crew._members[1].life
        conductor._post(Down(1, life, RuntimeEnvSetupError("s3://bucket/code.zip: slow down")))
        wait_until(lambda: feed.stats().lost_producers == 1, "the loss is not noticed")
        wait_until(lambda: len(feed.processes()) == 2, "it is not replaced")
        assert numbers_of(feed) == list(range(40))


def dies_behind(gate):
    """Ends its process, but not before the gate is open.

    What it answered a moment before may die with it: Ray sends an answer on after the call has returned.
    """

    def wait_and_die():
        gate.wait()
        die()

    return wait_and_die


def test_the_last_ones_death_is_an_error_after_all_that_was_delivered(gate):
    options = ProducerOptions(max_restarts=1)
    sequence = Numbered(40, at={6: dies_behind(gate)})
    with rayfeed.Feed(sequence, 1, use_multiprocessing=True, max_queue_size=2, producers=options) as feed:
        reader = iter(feed)
        # Frames of one batch, as the queue is that short: batch 6 is no part of what is read here.
        assert [number_of(next(reader)) for _ in range(6)] == list(range(6))
        gate.open()
        with pytest.raises(ProducerDiedError) as caught:
            next(reader)
        assert feed.stats().lost_producers == 2
    text = str(caught.value)
    for part in (
        "producer 0 (node ",
        "died while making batch 6 of pass 0 of source, and it was the last one",
        "Not replaced: 1 of 1 restarts within 60 s are used (ProducerOptions.max_restarts)",
        "raise ProducerOptions.memory or use smaller batches",
    ):
        assert part in text
    assert caught.value.__cause__ is not None


def test_what_was_delivered_before_the_end_is_read_though_the_end_is_known(gate):
    sequence = Numbered(40, at={8: dies_behind(gate)})
    with rayfeed.Feed(sequence, 1, True, 20, producers=ProducerOptions(max_restarts=0)) as feed:
        stream = feed._stream
        # The two tickets of one batch that every stream begins with.
        wait_until(lambda: stream._state.window.num_handed_over >= 2, "the first batches do not come")
        gate.open()
        wait_until(lambda: not stream._conductor.is_alive(), "the last producer's death is not noticed")
        read = []
        with pytest.raises(ProducerDiedError):
            read.extend(number_of(one) for one in feed)
        assert read == list(range(len(read)))
        assert len(read) >= 2


def test_user_code_that_ends_its_process_is_a_loss_and_told_as_one():
    sequence = Numbered(5, at={2: lambda: os._exit(7)})
    with (
        rayfeed.Feed(sequence, producers=ProducerOptions(max_restarts=1)) as feed,
        pytest.raises(
            ProducerDiedError,
            match=r"died while making batch 2 of pass 0 of source, and it was the last one: (.|\n)*worker process has",
        ),
    ):
        list(feed)


def test_a_batch_that_ends_every_process_is_given_up_at_its_place_and_named():
    with rayfeed.Feed(Numbered(40, at={12: die}), 3, use_multiprocessing=True, max_queue_size=4) as feed:
        read = []
        with pytest.raises(ProducerDiedError) as caught:
            read.extend(number_of(one) for one in feed)
        assert feed.stats().lost_producers >= 3  # one that was slow to make it may have had it too
        with pytest.raises(ProducerDiedError):
            next(iter(feed))
    assert str(caught.value).startswith("3 producers died while they made batch 12 of pass 0 of source")
    assert read == list(range(12))
    for part in ("(Numbered), the last of them producer ", "not tried again", "raise ProducerOptions.memory"):
        assert part in str(caught.value)
    assert caught.value.__cause__ is not None


def test_of_batches_that_threads_make_at_a_time_the_one_that_ends_the_process_is_named():
    read = []
    with (
        rayfeed.Feed(Numbered(40, at={3: die}), 4, max_queue_size=4) as feed,
        pytest.raises(ProducerDiedError, match="3 producers died while they made batch 3 of pass 0"),
    ):
        read.extend(number_of(one) for one in feed)
    assert read == [0, 1, 2]
