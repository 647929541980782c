"""Trainings that go on with other arguments for the validation, and those that the caller has given up."""

from functools import partial
from pathlib import Path

import keras
import pytest

from rayfeed.errors import OptionError
from rayfeed.options import StreamOptions
from rayfeed.queue.keeping import Keeper
from rayfeed.trainer.core import run_job
from rayfeed.trainer.messages import CheckpointPlan
from rayfeed.trainer.outbox import Outbox
from rayfeed.trainer.planning import plan_fit
from rayfeed.trainer.relay import GivenUp, Relay
from rayfeed.trainer.saving import Recorder
from tests.oracle.resumed import IN_LINE, Steps
from tests.oracle.sources import Logged, Numbers, Rows, count
from tests.oracle.test_epochs import identity


def interrupted(parts, at, **options):
    """Train until an exception after this step."""
    parts.fit(partial(Numbers, 4), at=at, model=identity(), **({"trainer": parts.options()} | IN_LINE | options))


def gone_on(parts, at=None, **options):
    """Go on with it; its history."""
    options = {"trainer": parts.options(resume=True, save_every=1), **IN_LINE, **options}
    return parts.fit(partial(Numbers, 4), at=at, model=identity(), **options)[1]


@pytest.mark.usefixtures("shared_trainer")
def test_validations_that_are_fewer_from_here_on_have_the_next_batches_of_their_generator(parts):
    options = {"validation_data": count, "validation_steps": 3, "epochs": 6}
    interrupted(parts, (3, 0), **options)
    history = gone_on(parts, validation_freq=3, **options)
    assert history["val_loss"] == [1.0, 4.0, 7.0, 10.0]


@pytest.mark.usefixtures("shared_trainer")
@pytest.mark.parametrize(
    ("before", "num_passes"), [({}, 3), ({"validation_freq": 2}, 4)], ids=["none before", "fewer before"]
)
def test_validations_that_are_new_or_more_from_here_on_read_no_pass_besides(before, num_passes, parts, tmp_path):
    log = tmp_path / "log"
    validating = {"validation_data": partial(Logged, 2, log)}
    interrupted(parts, (3, 0), epochs=6, **((validating | before) if before else {}))
    assert not log.exists()  # the end of a pass is read with the next
    history = gone_on(parts, epochs=6, **validating)
    assert log.read_text() == "".join(f"{number}\n" for number in range(1, num_passes + 1))
    assert len(history["val_loss"]) == num_passes


@pytest.mark.usefixtures("shared_trainer")
def test_another_number_of_validation_steps_is_refused_by_its_name(parts):
    interrupted(parts, (1, 0), validation_data=count, validation_steps=3)
    with pytest.raises(OptionError, match="its validation_steps is 3; this call's is 2"):
        gone_on(parts, validation_data=count, validation_steps=2)


@pytest.mark.usefixtures("shared_trainer")
def test_a_training_interrupted_again_before_its_next_validation_loses_no_batch_of_it(parts):
    options = {"validation_data": count, "validation_steps": 3}
    interrupted(parts, (1, 0), **options)
    assert gone_on(parts, at=(1, 2), **options) is None
    assert gone_on(parts, **options)["val_loss"] == [1.0, 4.0, 7.0]


@pytest.mark.usefixtures("shared_trainer")
def test_a_training_is_saved_through_the_url_of_a_file_system_of_fsspec(parts, tmp_path):
    pytest.importorskip("fsspec")
    parts.directory = f"fsspec+file://{tmp_path}/saved"
    parts.check(Rows, (1, 3), 4)
    assert len(list((tmp_path / "saved").iterdir())) == 1


@pytest.mark.usefixtures("shared_trainer")
def test_a_directory_that_cannot_be_written_is_refused_before_the_first_batch(parts, tmp_path):
    (tmp_path / "file").touch()
    parts.directory = f"{tmp_path}/file/saved"
    log = tmp_path / "made"
    steps = Steps()

    class Made(Rows):
        def __getitem__(self, index):
            Path(log).touch()
            return super().__getitem__(index)

    with pytest.raises(OptionError, match=f"checkpoint_dir='{parts.directory}': the trainer cannot .* there"):
        parts.fit(Made, trainer=parts.options(), callbacks=[steps], **IN_LINE)
    assert (steps.seen, log.exists()) == ([], False)


class GivesUp(keras.callbacks.Callback):
    """Does at the end of the second epoch what another thread does when the caller gives the job up."""

    def __init__(self, relay):
        super().__init__()
        self.relay = relay

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            self.relay.give_up()


def test_a_training_that_is_given_up_at_the_end_of_an_epoch_is_not_saved_as_stopped(tmp_path, make_model):
    model, relay = make_model(), Relay(Outbox(1))
    callbacks = relay.stand_ins([GivesUp(relay)], [], model)
    options = StreamOptions(workers=0, shuffle=False)
    job = plan_fit(
        Rows(),
        options=options,
        producers=None,
        ships=False,
        steps_per_epoch=None,
        epochs=3,
        initial_epoch=0,
        verbose=0,
        class_weight=None,
        outputs=None,
        validation_data=None,
        validation_steps=None,
        validation_freq=1,
    )
    saved = []
    plan = CheckpointPlan(str(tmp_path), None, "run", None, None)
    with pytest.raises(GivenUp):
        run_job(
            job,
            model,
            callbacks,
            progress=None,
            watch=lambda _: None,
            tell_inputs=lambda _: None,
            keeper=Keeper(),
            check_wanted=relay.check,
            recorder=Recorder(plan, "", job, model, callbacks, tell=saved.append),
        )
    assert model.stop_training
    assert [str(label) for label in saved] == ["epoch 1, batch 0"]
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-00000000-run-1.rayfeed"]
