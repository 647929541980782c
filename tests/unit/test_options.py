"""Options are checked when they are built, and say what is wrong."""

import dataclasses
import pickle

import numpy as np
import pytest

from rayfeed.errors import OptionError
from rayfeed.options import ProducerOptions, StreamOptions, TrainerOptions, check_bool, check_integer, check_number

RECORDS = [ProducerOptions, TrainerOptions, StreamOptions]


def refusal(record, **values):
    with pytest.raises(OptionError) as caught:
        record(**values)
    return str(caught.value)


@pytest.mark.parametrize("record", RECORDS)
def test_the_defaults_hold(record):
    assert record() == record()


@pytest.mark.parametrize("record", RECORDS)
def test_options_are_frozen_and_travel(record):
    with pytest.raises(dataclasses.FrozenInstanceError):
        record().memory = 1
    assert pickle.loads(pickle.dumps(record())) == record()


WHOLE = [
    (ProducerOptions, "memory", 1, True),
    (ProducerOptions, "max_restarts", 0, False),
    (TrainerOptions, "memory", 1, True),
    (TrainerOptions, "max_failures", 0, False),
    (StreamOptions, "workers", 0, False),
    (StreamOptions, "max_queue_size", 1, False),
    (StreamOptions, "max_queue_bytes", 1, True),
    (StreamOptions, "seed", 0, True),
]
NUMBERS = [
    (ProducerOptions, "num_cpus"),
    (ProducerOptions, "start_timeout_s"),
    (TrainerOptions, "num_gpus"),
    (TrainerOptions, "num_cpus"),
    (TrainerOptions, "start_timeout_s"),
]


def test_a_compression_is_one_that_is_known():
    for compression in ("auto", "lz4", "zstd", None):
        assert ProducerOptions(compression=compression).compression == compression
    for value in ("gzip", True, ""):
        assert refusal(ProducerOptions, compression=value) == (
            f'ProducerOptions.compression must be "auto", "lz4", "zstd" or None, got {value!r}.'
        )


def called(record, name):
    """What a field is called in messages: those of `StreamOptions` are arguments of the public functions."""
    return name if record is StreamOptions else f"{record.__name__}.{name}"


@pytest.mark.parametrize(
    ("record", "name", "least", "or_none"), WHOLE, ids=lambda value: getattr(value, "__name__", None)
)
def test_a_whole_number_is_checked(record, name, least, or_none):
    assert getattr(record(**{name: least}), name) == least
    assert getattr(record(**{name: np.int64(least + 2)}), name) == least + 2
    full = called(record, name)
    assert refusal(record, **{name: least - 1}) == f"{full} must be at least {least}, got {least - 1}."
    wanted = "a whole number or None" if or_none else "a whole number"
    assert refusal(record, **{name: 1.5}) == f"{full} must be {wanted}, got 1.5 (float)."
    assert refusal(record, **{name: True}) == f"{full} must be {wanted}, got True (bool)."
    assert refusal(record, **{name: "2"}) == f"{full} must be {wanted}, got '2' (str)."
    if or_none:
        assert getattr(record(**{name: None}), name) is None
    else:
        assert refusal(record, **{name: None}) == f"{full} must be {wanted}, got None (NoneType)."


@pytest.mark.parametrize(("record", "name"), NUMBERS, ids=lambda value: getattr(value, "__name__", None))
def test_a_number_is_checked(record, name):
    for value in (0, 0.5, 3, np.float64(0.25), None):
        assert getattr(record(**{name: value}), name) == value
    full = called(record, name)
    assert refusal(record, **{name: -0.5}) == f"{full} must be at least 0, got -0.5."
    assert refusal(record, **{name: float("nan")}) == f"{full} must be at least 0, got nan."
    assert refusal(record, **{name: "2"}) == f"{full} must be a number or None, got '2' (str)."
    assert refusal(record, **{name: False}) == f"{full} must be a number or None, got False (bool)."


@pytest.mark.parametrize("name", ["use_multiprocessing", "shuffle", "ordered", "copy"])
def test_a_flag_is_true_or_false(name):
    assert refusal(StreamOptions, **{name: 1}) == f"{name} must be True or False, got 1 (int)."
    assert refusal(StreamOptions, **{name: "batch"}) == f"{name} must be True or False, got 'batch' (str)."
    assert refusal(StreamOptions, **{name: None}) == f"{name} must be True or False, got None (NoneType)."


@pytest.mark.parametrize("record", [ProducerOptions, TrainerOptions])
@pytest.mark.parametrize(
    ("name", "good", "bad", "wanted"),
    [
        ("resources", {"disk": 1, "ssd": 0.5}, {"disk": "1"}, "a number"),
        ("label_selector", {"zone": "a"}, {"zone": 1}, "a string"),
        ("env_vars", {"A": "1"}, {"A": 1}, "a string"),
    ],
)
def test_a_mapping_is_checked_member_by_member(record, name, good, bad, wanted):
    assert getattr(record(**{name: good}), name) == good
    full = f"{record.__name__}.{name}"
    ((key, member),) = bad.items()
    assert refusal(record, **{name: bad}) == f"{full}[{key!r}] must be {wanted}, got {member!r}."
    assert refusal(record, **{name: {7: next(iter(good.values()))}}) == (
        f"{full} must have strings as keys, got 7 (int)."
    )
    assert refusal(record, **{name: [1]}) == f"{full} must be a dict, got [1] (list)."
    assert refusal(record, **{name: None}) == f"{full} must be a dict, got None (NoneType)."


@pytest.mark.parametrize(
    ("workers", "use_multiprocessing", "num_producers", "num_threads"),
    [(0, False, 0, 1), (0, True, 0, 1), (1, False, 1, 1), (1, True, 1, 1), (4, False, 1, 4), (4, True, 4, 1)],
)
def test_workers_are_processes_or_threads_of_one(workers, use_multiprocessing, num_producers, num_threads):
    options = StreamOptions(workers=workers, use_multiprocessing=use_multiprocessing)
    assert (options.num_producers, options.num_threads) == (num_producers, num_threads)


def test_the_checks_can_be_used_alone():
    check_integer("steps", 3, least=1)
    check_number("rate", 0.5, least=0)
    check_bool("flag", True)
    with pytest.raises(OptionError, match=r"^steps must be at least 1, got 0\.$"):
        check_integer("steps", 0, least=1)
    with pytest.raises(OptionError, match=r"^rate must be at least 0, got -1\.$"):
        check_number("rate", -1, least=0)


def test_workers_may_be_found_out_between_bounds():
    assert StreamOptions(workers="auto").least == 1
    options = StreamOptions(workers=(2, np.int64(5)))
    assert (options.least, options.most, options.num_producers, options.num_threads) == (2, 5, 5, 1)
    assert StreamOptions(workers=3).least is None
    assert refusal(StreamOptions, workers=(0, 2)) == "workers[0] must be at least 1, got 0."
    assert refusal(StreamOptions, workers=(3, 2)) == "workers[1] must be at least 3, got 2."
    text = 'workers must be a whole number, "auto", or the least and the most as a tuple; got (1, 2, 3).'
    assert refusal(StreamOptions, workers=(1, 2, 3)) == text


def test_checkpoints_are_saved_somewhere(tmp_path):
    options = TrainerOptions(checkpoint_dir=tmp_path, save_every=np.int64(5), resume=True, max_failures=2)
    assert options.checkpoint_dir == str(tmp_path)
    assert TrainerOptions(max_failures=3).checkpoint_dir is None
    for wrong, shown in ((3, "3 (int)"), ("", "'' (str)")):
        text = f"TrainerOptions.checkpoint_dir must be a path or URL as a string, got {shown}."
        assert refusal(TrainerOptions, checkpoint_dir=wrong) == text
    for name, value in (("save_every", 4), ("resume", True)):
        assert refusal(TrainerOptions, **{name: value}) == (
            f"TrainerOptions.{name}={value} needs checkpoint_dir: without it nothing is saved.\n"
            "  Give the directory, or the URL, of the checkpoints."
        )
    assert (
        refusal(TrainerOptions, checkpoint_dir="x", save_every=0)
        == "TrainerOptions.save_every must be at least 1, got 0."
    )
    assert (
        refusal(TrainerOptions, checkpoint_dir="x", resume=1)
        == "TrainerOptions.resume must be True or False, got 1 (int)."
    )
