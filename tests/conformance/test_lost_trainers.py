"""F3 and G3 of a training: a lost trainer is started again, a lost caller's training goes on in another process."""

import re

import pytest
import ray

import rayfeed
from rayfeed import TrainerOptions
from tests.conformance.contract import line
from tests.conformance.echo import Seen, make_echo
from tests.conformance.sources import count_to
from tests.conftest import start_script, wait_until
from tests.dying import Dies, Stays
from tests.oracle.conftest import assert_same_state, classifier
from tests.oracle.sources import Drawing
from tests.sources import Numbered, Once


def seen_numbers(seen):
    """The logs of the echo are running means: a batch's number is the difference of the totals."""
    totals = [[round(mean * count) for count, mean in enumerate(means, 1)] for means in seen]
    return [[now - before for before, now in zip([0, *total], total, strict=False)] for total in totals]


@line("F3")
def test_a_killed_trainer_goes_on_with_the_very_next_batch_and_trains_none_twice(tmp_path):
    seen = Seen()
    options = TrainerOptions(checkpoint_dir=str(tmp_path / "saved"), save_every=3, max_failures=1)
    with pytest.warns(UserWarning, match="was lost") as told:
        rayfeed.fit_generator(
            make_echo(),
            count_to(99),
            steps_per_epoch=5,
            epochs=3,
            validation_data=Numbered(4),
            callbacks=[seen, Dies([(1, 3)], Once(tmp_path))],
            verbose=0,
            trainer=options,
        )
    assert seen_numbers(seen.epochs) == [list(range(5)), list(range(5, 10)), list(range(10, 15))]
    assert seen_numbers(seen.validations) == [[0, 1, 2, 3]] * 3
    assert re.fullmatch(
        r"rayfeed: the trainer \(node [\d.]+, pid \d+\) was lost during fit: going on from epoch 1, batch 1, saved \d+ "
        r"s before\. Failure 1 of 1 \(TrainerOptions\.max_failures\)\.",
        str(told[0].message),
    )


def train(model, **options):
    """A training whose batches are shuffled and drawn from every random stream that the seed reaches."""
    data = {"validation_data": Drawing(seed=5), "epochs": 3, "seed": 3, "verbose": 0}
    return rayfeed.fit_generator(model, Drawing(), **data, **options)


def train_with_checkpoints(model, folder, *, workers, resume=False):
    """The same, which stays in its second epoch while the folder's gate is shut."""
    return train(
        model,
        callbacks=[Stays((1, 4), folder)],
        workers=workers,
        use_multiprocessing=True,
        trainer=TrainerOptions(checkpoint_dir=f"{folder}/saved", save_every=3, resume=resume),
    )


def train_in_cluster(address, folder):
    """What a caller does in a process of its own."""
    ray.init(address, log_to_driver=False)
    train_with_checkpoints(classifier(), folder, workers=2)


@line("G3 training")
@pytest.mark.usefixtures("shared_trainer")
def test_a_new_process_goes_on_in_mid_epoch_with_other_workers_where_the_caller_was_killed(tmp_path, gate):
    module = "tests.conformance.test_lost_trainers"
    code = f"import sys\nfrom {module} import train_in_cluster\ntrain_in_cluster(*sys.argv[1:])"
    there = tmp_path / "there"
    with start_script(code, ray.get_runtime_context().gcs_address, str(tmp_path)) as process:
        try:
            wait_until(lambda: there.exists() or process.poll() is not None, "nothing is trained", seconds=90)
            assert process.poll() is None, process.communicate()[1]
        finally:
            process.kill()
    gate.open()
    model = classifier()
    ours = train_with_checkpoints(model, str(tmp_path), workers=0, resume=True)
    theirs = classifier()
    history = train(theirs, workers=0, trainer="driver")
    assert ours.history == history.history
    assert_same_state(model, theirs)
