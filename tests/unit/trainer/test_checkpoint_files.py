"""Checkpoints as files: the newest whole one counts, nothing else is taken for one, others' are not removed."""

import re
import signal

import pytest

from rayfeed.errors import CheckpointError
from rayfeed.trainer.checkpoint_files import CheckpointFiles, Found, Label
from tests.conftest import start_script

LABEL = Label(run="one", epoch=2, step=37, is_stopped=False, saved_at=12.5)


@pytest.fixture
def files(tmp_path):
    return CheckpointFiles("saved", str(tmp_path))


def names(tmp_path):
    return sorted(path.name for path in (tmp_path / "saved").iterdir())


def test_what_is_written_is_found_and_read(files):
    assert files.newest() is None
    records = [b"first", bytes(range(256)) * 1000, b"last"]
    name = files.write(LABEL, iter(records))
    found = files.newest()
    assert (found.name, found.label) == (name, LABEL)
    assert str(found.label) == "epoch 2, batch 37"
    files.check(name)
    assert list(files.read(name)) == records


def test_a_file_replaces_the_one_before(files, tmp_path):
    for number in range(3):
        files.write(Label("one", number, 0, False, 0.0), [b"x"])
        assert names(tmp_path) == [f"checkpoint-{number:08}-one-1.rayfeed"]
    assert files.newest().label.epoch == 2


KILLED = """
import os, signal, sys
from rayfeed.trainer.checkpoint_files import CheckpointFiles, Label

def records():
    yield bytes(10_000_000)
    os.kill(os.getpid(), signal.SIGKILL)

files = CheckpointFiles("saved", sys.argv[1])
files.write(Label("one", 1, 0, False, 0.0), [b"whole"])
files.write(Label("one", 2, 0, False, 0.0), records())
"""


def test_a_process_killed_while_it_writes_leaves_the_checkpoint_before(files, tmp_path):
    with start_script(KILLED, str(tmp_path)) as process:
        process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert names(tmp_path) == ["checkpoint-00000000-one-1.rayfeed", "checkpoint-00000001-one-1.rayfeed.part"]
    found = files.newest()
    files.check(found.name)
    assert (found.label.epoch, list(files.read(found.name))) == (1, [b"whole"])
    files.write(LABEL, [b"next"])
    assert names(tmp_path) == ["checkpoint-00000001-one-1.rayfeed"]


def test_one_killed_before_it_removes_the_older_leaves_both_and_the_newer_counts(files, tmp_path):
    files.write(LABEL, [b"older"])
    older = (tmp_path / "saved" / "checkpoint-00000000-one-1.rayfeed").read_bytes()
    files.write(Label("one", 3, 0, False, 0.0), [b"newer"])
    (tmp_path / "saved" / "checkpoint-00000000-one-1.rayfeed").write_bytes(older)
    assert files.newest().label.epoch == 3
    files.write(Label("one", 4, 0, False, 0.0), [b"newest"])
    assert names(tmp_path) == ["checkpoint-00000002-one-1.rayfeed"]


def test_of_two_of_which_the_newer_was_cut_the_older_counts(files, tmp_path):
    older = files.write(LABEL, [b"older" * 50])
    kept = (tmp_path / "saved" / older).read_bytes()
    newer = files.write(Label("one", 3, 0, False, 0.0), [b"newer" * 50])
    (tmp_path / "saved" / older).write_bytes(kept)
    whole = (tmp_path / "saved" / newer).read_bytes()
    for length in (len(whole) - 1, 200, 30):
        (tmp_path / "saved" / newer).write_bytes(whole[:length])
        assert files.newest() == Found(older, LABEL)
    files.write(Label("one", 4, 0, False, 0.0), [b"newest"])
    assert names(tmp_path) == ["checkpoint-00000002-one-1.rayfeed"]


def test_what_a_call_killed_in_its_first_save_left_goes_when_another_has_saved_twice(files, tmp_path):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "checkpoint-00000000-killed-1.rayfeed.part").touch()
    files.write(LABEL, [b"x"])
    assert len(names(tmp_path)) == 2  # as far as it knows, the other may be writing still
    files.write(LABEL, [b"x"])
    assert names(tmp_path) == ["checkpoint-00000001-one-1.rayfeed"]


def test_a_trainer_that_was_cut_off_ends_where_another_of_its_call_goes_on(files, tmp_path):
    for attempt in (1, 2):
        files.write(Label("one", 1, attempt, False, 0.0, attempt), [b"x"])
    text = (
        f"{tmp_path}/saved has a file of attempt 2 at this training (checkpoint-00000001-one-2.rayfeed), while attempt "
        "1 ran up to epoch 1, batch 9: the caller lost sight of this trainer and started another, which goes on in its "
        "place.\n"
        "  This one ends, and saves nothing more; nothing is to be done."
    )
    with pytest.raises(CheckpointError) as caught:
        files.write(Label("one", 1, 9, False, 0.0, 1), [b"x"])
    assert str(caught.value) == text
    begun = tmp_path / "saved" / "checkpoint-00000002-one-3.rayfeed.part"
    begun.touch()
    with pytest.raises(CheckpointError, match="has a file of attempt 3 at this training"):
        files.write(Label("one", 1, 9, False, 0.0, 2), [b"x"])
    assert begun.exists()
    files.write(Label("one", 1, 9, False, 0.0, 4), [b"x"])  # those before it were given up
    assert names(tmp_path) == ["checkpoint-00000002-one-4.rayfeed"]


def test_of_two_trainers_of_one_call_that_save_at_once_the_earlier_one_ends(files, tmp_path):
    def records():
        files.write(Label("one", 2, 0, False, 0.0, 2), [b"other"])  # which takes the file that is being written away
        yield b"own"

    with pytest.raises(CheckpointError, match="has a file of attempt 2 at this training"):
        files.write(Label("one", 1, 0, False, 0.0, 1), records())
    assert names(tmp_path) == ["checkpoint-00000000-one-2.rayfeed"]


def test_a_checkpoint_of_a_training_that_runs_as_well_is_not_replaced_and_its_unfinished_one_not_removed(
    files, tmp_path
):
    files.write(Label("one", 0, 3, False, 0.0), [b"x"])
    with pytest.raises(CheckpointError) as caught:
        files.write(Label("two", 0, 5, False, 0.0), [b"y"])
    assert str(caught.value) == (
        f"{tmp_path}/saved got the checkpoint of another training, at epoch 0, batch 3 "
        "(checkpoint-00000000-one-1.rayfeed), while this one ran up to epoch 0, batch 5: they would replace each "
        "other's.\n"
        "  Give each training a checkpoint_dir of its own."
    )
    for run in ("one", "two", "three"):
        (tmp_path / "saved" / f"checkpoint-00000001-{run}-1.rayfeed.part").touch()
    files.write(Label("two", 0, 5, False, 0.0), [b"y"], replaces="one")  # the one it began with
    assert names(tmp_path) == ["checkpoint-00000001-three-1.rayfeed.part", "checkpoint-00000001-two-1.rayfeed"]
    with pytest.raises(CheckpointError, match="at epoch 0, batch 5"):
        files.write(Label("one", 0, 6, False, 0.0), [b"z"])


def test_an_error_while_records_are_made_leaves_the_checkpoint_before(files, tmp_path):
    files.write(LABEL, [b"whole"])

    def failing():
        yield b"begun"
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        files.write(LABEL, failing())
    files.check(files.newest().name)
    assert names(tmp_path) == ["checkpoint-00000000-one-1.rayfeed"]


def test_a_file_that_was_cut_or_changed_anywhere_is_refused_by_its_name(files, tmp_path):
    name = files.write(LABEL, [b"record" * 50])
    path = tmp_path / "saved" / name
    whole = path.read_bytes()
    first_line = whole.index(b"\n") + 1
    for damaged in (*(whole[:length] for length in range(first_line, len(whole), 7)), whole + b"x", whole[:-1] + b"\0"):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=f"{re.escape(str(path))} was cut or changed after it was written"):
            files.check(name)
    path.write_bytes(whole)
    files.check(name)


@pytest.mark.parametrize("content", [b"rayfeed", b"rayfeed checkpoint 9\n{}", b"\x89HDF\r\n" * 40])
def test_a_foreign_file_is_refused_by_its_name(content, files, tmp_path):
    files.write(LABEL, [b"x"])
    path = tmp_path / "saved" / "checkpoint-00000007-one-1.rayfeed"
    path.write_bytes(content)
    text = f"{re.escape(str(path))} is no checkpoint that this rayfeed reads: it does not begin with b'rayfeed check"
    with pytest.raises(CheckpointError, match=text):
        files.newest()
    with pytest.raises(CheckpointError, match=text):
        files.check(path.name)


def test_other_files_of_the_directory_are_left_alone(files, tmp_path):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "best.keras").touch()
    files.write(LABEL, [b"x"])
    files.write(LABEL, [b"x"])
    assert names(tmp_path) == ["best.keras", "checkpoint-00000001-one-1.rayfeed"]


def test_files_need_no_framework():
    code = "import sys\nimport rayfeed.trainer.checkpoint_files\nsys.exit('keras' in sys.modules)"
    with start_script(code) as process:
        process.communicate(timeout=60)
    assert process.returncode == 0
