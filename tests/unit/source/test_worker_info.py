"""A source can ask which producer it runs in."""

import threading

import pytest

import rayfeed
from rayfeed.source.worker_info import Place, WorkerInfo, running_in

INFO = WorkerInfo(2, 4, 99)


def at_work(*seeds):
    return running_in(Place(INFO, seeds or None))


def test_outside_of_a_producer_there_is_none():
    assert rayfeed.get_worker_info() is None


def test_inside_it_tells_number_workers_and_seed():
    with at_work():
        info = rayfeed.get_worker_info()
    assert (info.id, info.num_workers, info.seed) == (2, 4, 99)
    assert rayfeed.get_worker_info() is None


def test_it_is_told_whether_the_code_asked():
    place = Place(INFO, None)
    with running_in(place):
        assert not place.asked
        rayfeed.get_worker_info()
        assert place.asked


def test_a_generator_learns_where_it_runs_now():
    def batches():
        while True:
            yield rayfeed.get_worker_info()

    generator = batches()
    with at_work():
        assert next(generator) is INFO
    assert next(generator) is None


def test_the_place_ends_with_an_exception_too():
    with pytest.raises(KeyError), at_work():
        {}["label"]
    assert rayfeed.get_worker_info() is None


def test_in_line_there_is_no_worker():
    with at_work(), running_in(Place(None, None)):
        assert rayfeed.get_worker_info() is None


def test_threads_do_not_see_each_others_worker():
    seen = []
    with at_work():
        thread = threading.Thread(target=lambda: seen.append(rayfeed.get_worker_info()))
        thread.start()
        thread.join()
    assert seen == [None]


def drawn(count=3):
    return [rayfeed.rng().integers(1 << 60) for _ in range(count)]


def test_random_numbers_follow_from_their_seeds_and_go_on_while_a_batch_is_made():
    with at_work(1, 2, 3):
        first = drawn()
        assert rayfeed.rng() is rayfeed.rng()
    with at_work(1, 2, 3):
        assert drawn() == first
    with at_work(1, 2, 4):
        assert not set(drawn()) & set(first)
    assert len(set(first)) == 3


def test_random_numbers_begin_anew_with_the_next_batch():
    place = Place(INFO, (1,))
    with running_in(place):
        first = drawn()
        place.draw_from((2,))
        assert drawn() != first
        place.draw_from((1,))
        assert drawn() == first


def test_outside_of_a_feed_random_numbers_follow_from_nothing():
    assert rayfeed.rng() is not rayfeed.rng()
    assert drawn() != drawn()


def test_threads_of_one_process_share_no_random_numbers():
    seen = []

    def draw():
        with at_work(7):
            seen.append(drawn(1000))

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(numbers == seen[0] for numbers in seen)
