"""D: what can be sent to a producer, in which forms, and what is said of the rest."""

import functools
import os

import keras
import pytest

import rayfeed
from tests.conformance.contract import complaint, line
from tests.conformance.echo import kept, trained
from tests.conformance.sources import Factory, arrays_from_file, count_to, locked
from tests.sources import Numbered, batch


@line("D1")
@complaint(
    "keras-team/keras#12885",
    there="a generator object with use_multiprocessing died of 'can't pickle generator objects'",
    here="a fresh generator object is sent to a producer as it is",
)
@complaint(
    "keras-team/keras#3962",
    there="four ways to hand a generator to several processes were tried, and each ended in a PicklingError",
    here="a fresh generator object is sent to a producer as it is",
)
@pytest.mark.parametrize("feed", [{"workers": 1}, {"use_multiprocessing": True}], ids=["thread", "process"])
def test_the_generator_object_of_keras_documentation_runs_elsewhere_unchanged(feed, echo, tmp_path, monkeypatch):
    (tmp_path / "data.csv").write_text("4\n0\n7\n")
    monkeypatch.chdir(tmp_path)
    run = trained(echo, arrays_from_file("data.csv", str(tmp_path / "pid")), 4, epochs=2, **feed)
    assert run.epochs == [[4, 0, 7, 4], [0, 7, 4, 0]]
    assert int((tmp_path / "pid").read_text()) != os.getpid()


@line("D1")
@pytest.mark.parametrize("feed", [{"workers": 4}, {"use_multiprocessing": True}], ids=["threads", "process"])
def test_the_usual_wrapper_around_a_generator_travels(feed, echo):
    assert trained(echo, locked(count_to)(6), 3, epochs=2, **feed).epochs == [[0, 1, 2], [3, 4, 5]]


FORMS = {
    "generator function": lambda: (batch(number) for number in range(6)),
    "partial": functools.partial(count_to, 6),
    "callable object": Factory(),
    "function of an iterator": lambda: map(batch, range(6)),
}


@line("D2")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("workers", [0, 2])
def test_any_callable_that_returns_an_iterator_serves(form, workers, echo):
    assert trained(echo, FORMS[form], 3, epochs=2, workers=workers).epochs == [[0, 1, 2], [3, 4, 5]]


@line("D3 attribute")
@complaint(
    "pytorch/pytorch#11928",
    there="a dataset that held an open HDF5 file gave wrong data, or a pickling error that did not name the file",
    here="an open file is refused before anything starts, by the attribute that holds it and what to do",
)
@complaint(
    "galilai-group/stable-worldmodel#194",
    there="code with open handles had worked only because processes were forked",
    here="no process is forked: the handle is named, and a class that leaves it out of its state travels",
)
def test_what_cannot_travel_is_named_by_its_attribute_and_what_leaves_it_out_travels(echo, tmp_path):
    class Reads(Numbered):
        def __init__(self, length, path):
            super().__init__(length)
            self.disk = {"rows": path.open()}

    class Reopens(Reads):
        def __getstate__(self):
            return {name: value for name, value in vars(self).items() if name != "disk"}

    (tmp_path / "rows").write_text("1")
    refused, travels = Reads(3, tmp_path / "rows"), Reopens(3, tmp_path / "rows")
    with pytest.raises(rayfeed.errors.SourceError, match=r"generator\.disk\['rows'\] is a TextIOWrapper"):
        trained(echo, refused, use_multiprocessing=True)
    assert trained(echo, travels, shuffle=False, use_multiprocessing=True).epochs == [[0, 1, 2]]
    for source in (refused, travels):
        source.disk["rows"].close()


@line("D4", "A Sequence")
@complaint(
    "keras-team/keras#9434",
    there="a Sequence that several forked processes could read was an error where processes are spawned",
    here="no process is forked, and every kind of Sequence is read by several",
)
def test_sequences_of_every_kind_are_sequences(echo):
    class Own(rayfeed.Sequence):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return batch(index)

    class OfKeras(keras.utils.PyDataset):
        __len__, __getitem__ = Own.__len__, Own.__getitem__

    class AsInTorch:
        """A map dataset whose items are whole batches."""

        __len__, __getitem__ = Own.__len__, Own.__getitem__

    class OfBatchesToBeCounted(keras.utils.PyDataset):
        num_batches = 3
        __getitem__ = Own.__getitem__

    with kept(echo) as trainer:
        for source in (Own(), OfKeras(), AsInTorch(), OfBatchesToBeCounted()):
            run = trained(trainer, source, epochs=2, shuffle=False, workers=2, use_multiprocessing=True)
            assert run.epochs == [[0, 1, 2], [0, 1, 2]], type(source)


@line("D4")
def test_an_iterator_that_is_no_generator_travels_with_its_place(echo):
    started = map(batch, range(9))
    next(started)
    assert trained(echo, started, 4, epochs=2, workers=2).epochs == [[1, 2, 3, 4], [5, 6, 7, 8]]
