"""D3: what cannot travel stays at home, where that is what was asked for."""

import os
import threading

import pytest

import rayfeed
from tests.conformance.contract import complaint, line
from tests.conformance.echo import trained
from tests.sources import Numbered, batch


def started(places, stop=100):
    """A generator that has given its first batch; notes process and thread of each."""

    def generate():
        for number in range(stop):
            places.add((os.getpid(), threading.get_ident()))
            yield batch(number)

    generator = generate()
    next(generator)
    places.clear()
    return generator


@line("D3 thread")
@complaint(
    "keras-team/keras#5071",
    there="a generator that could not be pickled could not be used beside the trainer at all",
    here="it runs in a thread of the caller's process, and its batches go into the same queue",
)
@pytest.mark.usefixtures("shared_trainer")
@pytest.mark.parametrize("trainer", ["driver", None], ids=["driver", "actor"])
def test_a_started_generator_runs_in_a_thread_of_the_caller_with_one_warning(trainer, echo):
    places = set()
    with pytest.warns(UserWarning, match=r"generator.*already started(.|\n)*thread of this process") as record:
        run = trained(echo, started(places), 3, epochs=2, workers=2, trainer=trainer)
    assert run.epochs == [[1, 2, 3], [4, 5, 6]]
    assert len([one for one in record if "thread of this process" in str(one.message)]) == 1
    ((pid, thread),) = places
    assert pid == os.getpid()
    assert thread != threading.get_ident()


@line("D3 thread")
def test_a_generator_over_an_open_file_runs_at_home_also_for_validation_and_prediction(echo, tmp_path):
    (tmp_path / "numbers").write_text("3\n1\n4\n1\n")

    def rows(file):
        for row in file:
            yield batch(int(row))

    with (tmp_path / "numbers").open() as file, pytest.warns(UserWarning, match="thread of this process"):
        run = trained(echo, Numbered(1), epochs=2, validation_data=rows(file), validation_steps=2)
    assert run.validations == [[3, 1], [4, 1]]
    with (tmp_path / "numbers").open() as file, pytest.warns(UserWarning, match="thread of this process"):
        predictions = rayfeed.predict_generator(echo, rows(file), 4, trainer="driver")
    assert predictions[::4, 0].tolist() == [6, 2, 8, 2]


@line("D3 attribute")
def test_with_use_multiprocessing_it_is_refused_by_the_name_of_what_cannot_travel(echo, tmp_path):
    class Rows:
        def __init__(self, file):
            self.file = file

        def __iter__(self):
            return self

        def __next__(self):
            return batch(int(next(self.file)))

    for source, text in ((started(set()), "already started"), (Rows((tmp_path / "new").open("w")), r"generator\.file")):
        with pytest.raises(rayfeed.errors.SourceError, match=text):
            trained(echo, source, 2, workers=2, use_multiprocessing=True)
    source.file.close()
