"""E8: what is drawn, where, and how often."""

import re

import pytest

import rayfeed
from tests.conformance.contract import complaint, line
from tests.conformance.sources import count_to
from tests.sources import Numbered


def without_times(text):
    """The text without colours, backspaces and durations."""
    return re.sub(r"\d+(s|ms|us)\b", "T", re.sub(r"\x1b\[[0-9;]*m|\x08", "", text))


@line("E8")
@complaint(
    "kr-colab/locator#14",
    there="a batch system's log held 200 000 lines of progress bar",
    here="verbose=2 is one line for each epoch, verbose=0 is nothing",
)
@complaint(
    "ray-project/ray#13930",
    there="a bar drawn in a remote process lost its carriage returns and came out as a heap of lines",
    here="the caller's process draws, from numbers: the lines are Keras' own",
)
@complaint(
    "ray-project/ray#9233",
    there="bars of several processes piled up into a pyramid",
    here="progress is drawn once, whatever the number of processes",
)
@pytest.mark.usefixtures("shared_trainer")
@pytest.mark.parametrize("trainer", ["driver", None], ids=["driver", "actor"])
def test_two_is_a_line_for_each_epoch_one_is_keras_bar_and_zero_is_nothing(trainer, echo, capfd):
    if trainer is None:
        with rayfeed.Trainer(echo) as kept:
            _draws(kept.fit_generator, capfd)
    else:
        _draws(lambda *arguments, **options: rayfeed.fit_generator(echo, *arguments, trainer=trainer, **options), capfd)


def _draws(fit, capfd):
    options = {"epochs": 2, "shuffle": False, "workers": 2, "use_multiprocessing": True}
    capfd.readouterr()
    fit(Numbered(4), verbose=2, validation_data=Numbered(3), **options)
    end = "T - T/step - loss: 1.5000 - val_loss: 1.0000"
    assert without_times(capfd.readouterr().out).splitlines() == [
        "Epoch 1/2",
        f"4/4 - {end}",
        "Epoch 2/2",
        f"4/4 - {end}",
    ]
    fit(Numbered(4), verbose=0, **options)
    assert capfd.readouterr().out == ""
    fit(Numbered(4), verbose=1, **options)
    out = without_times(capfd.readouterr().out)
    assert [out.count(words) for words in ("Epoch 1/2", "Epoch 2/2")] == [1, 1]
    assert len(re.findall(r"4/4 .*loss: 1\.5000", out)) == 2


@complaint(
    "keras-team/keras#22490",
    there="the bar had no total where the number of batches was unknown",
    here="the steps of a generator's epoch are known, and the bar says them from the first",
)
def test_the_bar_of_a_generator_knows_its_total(echo, capfd):
    capfd.readouterr()
    rayfeed.fit_generator(echo, count_to(6), 3, epochs=2, trainer="driver")
    out = without_times(capfd.readouterr().out)
    assert set(re.findall(r"\d+/(\S+) .*loss", out)) == {"3"}
    assert "Unknown" not in out
