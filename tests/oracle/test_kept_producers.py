"""A kept `rayfeed.Trainer` reuses the producers of the call before, as long as they serve."""

import os
import signal
from pathlib import Path

import pytest

import rayfeed
from rayfeed.trainer.session import OneCall
from tests.conftest import producer_pids, wait_until
from tests.oracle.sources import Changing, Failing, Numbers, OwnError, Rows, Telling
from tests.oracle.test_epochs import identity
from tests.sources import Gate, Numbered

pytestmark = pytest.mark.slow

TRAINERS = pytest.mark.parametrize("trainer", ["driver", None], ids=["driver", "trainer actor"])
shared_trainer = pytest.mark.usefixtures("shared_trainer")
TWO = {"workers": 2, "use_multiprocessing": True}


def emptied(log):
    """The processes that made batches so far, and those that opened the source; the log is empty from here on."""
    lines = [line.split() for line in log.lines()]
    Path(log.path).write_text("")
    made, opened = ([int(pid) for word, pid in lines if word == wanted] for wanted in ("made", "opened"))
    return set(made), opened


def producers(count):
    """The processes of the producers, once there are as many as that."""
    wait_until(lambda: len(producer_pids()) == count, lambda: f"{len(producer_pids())} producers, not {count}")
    return set(producer_pids())


@shared_trainer
@TRAINERS
def test_a_later_call_has_the_processes_of_the_one_before_whatever_its_source(trainer, log):
    with OneCall(identity(), trainer) as kept:
        kept.fit_generator(Telling(20, log), verbose=0, **TWO)
        before = producers(2)
        kept.evaluate_generator(Telling(24, log), **TWO)
        kept.fit_generator(Telling(28, log), epochs=2, verbose=0, validation_data=Telling(5, log), **TWO)
        made, _ = emptied(log)
        assert made
        assert made <= before
        assert producers(2) == before


@shared_trainer
@TRAINERS
def test_another_demand_has_other_processes_and_the_old_ones_are_gone(trainer, log):
    changes = [
        (TWO, 2),
        (TWO | {"workers": 1}, 1),
        ({"workers": 2}, 1),
        (TWO, 2),
        (TWO | {"producers": rayfeed.ProducerOptions(env_vars={"COLOUR": "red"})}, 2),
    ]
    seen = set()
    with OneCall(identity(), trainer) as kept:
        for arguments, count in changes:
            kept.evaluate_generator(Telling(12, log), **arguments)
            made, _ = emptied(log)
            assert made <= producers(count)
            assert not producers(count) & seen
            seen |= producers(count)


def test_a_source_that_is_sent_again_is_not_unpickled_again(log):
    training, validation, other = Telling(6, log), Telling(3, log), Telling(4, log)
    one = {"workers": 1, "use_multiprocessing": True}
    with OneCall(identity(), "driver") as kept:
        kept.fit_generator(training, verbose=0, validation_data=validation, **one)
        made, opened = emptied(log)
        assert opened == [*made, *made]
        for _ in range(2):
            history = kept.fit_generator(training, verbose=0, validation_data=validation, **one)
            assert emptied(log) == (made, [])
            assert history.history["val_loss"] == [1.0]
        kept.evaluate_generator(other, **one)
        assert emptied(log) == (made, [*made])
        kept.evaluate_generator(training, **one)
        assert emptied(log) == (made, [*made])  # it was let go for the other's sake


def test_a_source_that_changed_in_its_producers_is_sent_anew(log):
    one = {"workers": 1, "use_multiprocessing": True, "shuffle": False}
    source = Changing(3, log)
    with OneCall(identity(), "driver") as kept:
        losses = [kept.fit_generator(source, epochs=2, verbose=0, **one).history["loss"] for _ in range(2)]
    assert losses == [[1.0, 101.0]] * 2


@shared_trainer
@TRAINERS
def test_after_an_exception_in_the_source_the_kept_trainer_works_again(trainer, make_model):
    with OneCall(make_model(), trainer) as kept:
        for _ in range(2):
            with pytest.raises(OwnError, match="code 17: bad row"):
                kept.fit_generator(Failing(), shuffle=False, verbose=0, **TWO)
            before = producers(2)
            assert kept.fit_generator(Rows(), verbose=0, **TWO).epoch == [0]
            assert producers(2) == before


def test_a_call_counts_its_own_losses_and_has_all_its_restarts(log):
    options = rayfeed.ProducerOptions(max_restarts=1)
    with OneCall(identity(), "driver") as kept:
        for _ in range(3):
            kept.evaluate_generator(Telling(8, log), **TWO, producers=options)
            conductor = kept._runner._keeper._conductor
            lost = conductor.crew.num_lost
            os.kill(producer_pids()[0], signal.SIGKILL)
            wait_until(lambda c=conductor, lost=lost: c.crew.num_lost == lost + 1, "the loss is not noticed")
            wait_until(lambda c=conductor: len(c._pool.working()) == 2, "it is not replaced")
            history = kept.fit_generator(Telling(8, log), verbose=0, **TWO, producers=options)
            assert history.feed_stats.lost_producers == 0
            assert kept._runner._keeper._conductor is conductor


def test_a_pool_that_lost_a_producer_for_good_is_replaced(log):
    options = rayfeed.ProducerOptions(max_restarts=0)
    with OneCall(identity(), "driver") as kept:
        kept.evaluate_generator(Telling(8, log), **TWO, producers=options)
        conductor, before = kept._runner._keeper._conductor, producers(2)
        os.kill(min(before), signal.SIGKILL)
        wait_until(conductor._pool.gone, "the loss is not noticed")
        emptied(log)
        kept.evaluate_generator(Telling(8, log), **TWO, producers=options)
        assert not emptied(log)[0] & before
        producers(2)


def test_a_pool_whose_last_producer_died_is_replaced(log):
    one = {"workers": 1, "producers": rayfeed.ProducerOptions(max_restarts=0)}
    with OneCall(identity(), "driver") as kept:
        kept.evaluate_generator(Telling(4, log), **one)
        conductor = kept._runner._keeper._conductor
        os.kill(producer_pids()[0], signal.SIGKILL)
        wait_until(lambda: not conductor.is_alive(), "the loss is not noticed")
        assert kept.evaluate_generator(Numbers(3), **one) == 1.0


def test_a_producer_that_hangs_in_the_call_before_is_not_waited_for_long(gate, tmp_path, monkeypatch):
    monkeypatch.setattr("rayfeed.queue.keeping.SETTLE_TIMEOUT_S", 0.2)
    entered = Gate(tmp_path / "entered")

    def hang():
        entered.open()
        gate.wait()

    class Fails(Numbered):
        def __getitem__(self, index):
            if index == 0:
                entered.wait()
                raise OwnError(1, detail="while another hangs")
            hang()

    with OneCall(identity(), "driver") as kept:
        with pytest.raises(OwnError, match="while another hangs"):
            kept.evaluate_generator(Fails(4), **TWO)
        before = producers(2)
        assert kept.evaluate_generator(Numbers(3), **TWO) == 1.0
        assert not set(producer_pids()) & before


@TRAINERS
def test_a_trainer_that_is_closed_with_idle_producers_ends_them_first(trainer, log):
    kept = OneCall(identity(), trainer)
    kept.evaluate_generator(Telling(4, log), **TWO)
    producers(2)
    kept.close()
    producers(0)
    kept.close()


def test_a_trainer_that_is_dropped_leaves_nothing(log):
    kept = OneCall(identity(), "driver")
    kept.evaluate_generator(Telling(4, log), **TWO)
    del kept
