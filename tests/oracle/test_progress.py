"""E8: progress is drawn once, in the caller's terminal, as Keras draws it."""

import re

import pytest

import rayfeed

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_trainer")]


def without_times(text):
    """The text without escape sequences, backspaces and durations, which differ from run to run."""
    text = re.sub(r"\x1b\[[0-9;]*m|\x08", "", text)
    return re.sub(r"\d+(s|ms|us)\b", "T", text)


@pytest.mark.parametrize("trainer", ["driver", None], ids=["driver", "actor"])
def test_one_line_per_epoch_is_keras_own(trainer, rows, as_py_dataset, make_model, capfd):
    make_model().fit(as_py_dataset(rows()), epochs=2, shuffle=False, verbose=2, validation_data=as_py_dataset(rows(20)))
    expected = without_times(capfd.readouterr().out)
    rayfeed.fit_generator(
        make_model(), rows(), epochs=2, shuffle=False, verbose=2, validation_data=rows(20), workers=0, trainer=trainer
    )
    assert without_times(capfd.readouterr().out) == expected
    assert "val_loss" in expected


@pytest.mark.parametrize("trainer", ["driver", None], ids=["driver", "actor"])
def test_the_bar_ends_every_epoch_full_and_with_its_logs(trainer, rows, make_model, capfd):
    history = rayfeed.fit_generator(make_model(), rows(), epochs=2, verbose=1, workers=0, trainer=trainer)
    out = without_times(capfd.readouterr().out)
    for epoch, loss in enumerate(history.history["loss"]):
        block = out.split("Epoch ")[epoch + 1]
        assert block.startswith(f"{epoch + 1}/2")
        assert "10/10" in block
        assert f"loss: {loss:.4f}" in block


@pytest.mark.parametrize("trainer", ["driver", None], ids=["driver", "actor"])
def test_silent_is_silent(trainer, rows, make_model, capfd):
    rayfeed.fit_generator(make_model(), rows(), epochs=2, verbose=0, workers=0, trainer=trainer)
    assert capfd.readouterr().out == ""


def test_evaluate_and_predict_draw_as_keras_does(rows, make_model, capfd):
    model = make_model()
    with rayfeed.Trainer(model) as trainer:
        trainer.evaluate_generator(rows(), workers=0, verbose=2)
        out = without_times(capfd.readouterr().out)
        assert out.startswith("10/10 - T - T/step - accuracy: ")
        trainer.predict_generator(rows(), workers=0, verbose=2)
        assert without_times(capfd.readouterr().out).startswith("10/10 - T - T/step")
