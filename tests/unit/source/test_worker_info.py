"""A source can ask which producer it runs in."""

import threading

import pytest

import rayfeed
from rayfeed.source.worker_info import WorkerInfo, running_in

INFO = WorkerInfo(2, 4, 99)


def test_outside_of_a_producer_there_is_none():
    assert rayfeed.get_worker_info() is None


def test_inside_it_tells_number_workers_and_seed():
    with running_in(INFO):
        info = rayfeed.get_worker_info()
    assert (info.id, info.num_workers, info.seed) == (2, 4, 99)
    assert rayfeed.get_worker_info() is None


def test_it_is_told_whether_the_code_asked():
    with running_in(INFO) as place:
        assert not place.asked
        rayfeed.get_worker_info()
        assert place.asked


def test_a_generator_learns_where_it_runs_now():
    def batches():
        while True:
            yield rayfeed.get_worker_info()

    generator = batches()
    with running_in(INFO):
        assert next(generator) is INFO
    assert next(generator) is None


def test_the_place_ends_with_an_exception_too():
    with pytest.raises(KeyError), running_in(INFO):
        {}["label"]
    assert rayfeed.get_worker_info() is None


def test_in_line_there_is_no_worker():
    with running_in(INFO), running_in(None) as place:
        assert place is None
        assert rayfeed.get_worker_info() is None


def test_threads_do_not_see_each_others_worker():
    seen = []
    with running_in(INFO):
        thread = threading.Thread(target=lambda: seen.append(rayfeed.get_worker_info()))
        thread.start()
        thread.join()
    assert seen == [None]
