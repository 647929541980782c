"""Checkpoints as files: whole or not there, and nothing else is taken for one."""

import re
import signal

import pytest

from rayfeed.errors import CheckpointError, OptionError
from rayfeed.trainer.checkpoint_files import CheckpointFiles, Label
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
        assert names(tmp_path) == [f"checkpoint-{number:08}.rayfeed"]
    assert files.newest().label.epoch == 2


def test_a_relative_path_is_one_of_the_callers_directory_and_a_url_is_taken(files, tmp_path):
    files.write(LABEL, [b"x"])
    assert CheckpointFiles(f"file://{tmp_path}/saved/", "/nowhere").newest().label == LABEL
    assert CheckpointFiles(str(tmp_path / "saved"), "/nowhere").newest().label == LABEL


def test_a_file_system_of_fsspec_is_taken():
    pytest.importorskip("fsspec")
    files = CheckpointFiles("fsspec+memory:///checkpoints/one", "/nowhere")
    for _ in range(2):
        name = files.write(LABEL, [b"x", b"y"])
        files.check(name)
        assert list(files.read(name)) == [b"x", b"y"]
    assert files.newest().name == "checkpoint-00000001.rayfeed"


def test_a_url_that_nobody_knows_is_refused():
    with pytest.raises(OptionError, match=r"checkpoint_dir='odd://here' is no URL that Arrow takes: .*odd"):
        CheckpointFiles("odd://here", "/nowhere")


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
    assert names(tmp_path) == ["checkpoint-00000000.rayfeed", "checkpoint-00000001-one.part"]
    found = files.newest()
    files.check(found.name)
    assert (found.label.epoch, list(files.read(found.name))) == (1, [b"whole"])
    files.write(LABEL, [b"next"])
    assert names(tmp_path) == ["checkpoint-00000001.rayfeed"]


def test_one_killed_before_it_removes_the_older_leaves_both_and_the_newer_counts(files, tmp_path):
    files.write(LABEL, [b"older"])
    older = (tmp_path / "saved" / "checkpoint-00000000.rayfeed").read_bytes()
    files.write(Label("one", 3, 0, False, 0.0), [b"newer"])
    (tmp_path / "saved" / "checkpoint-00000000.rayfeed").write_bytes(older)
    assert files.newest().label.epoch == 3
    files.write(Label("one", 4, 0, False, 0.0), [b"newest"])
    assert names(tmp_path) == ["checkpoint-00000002.rayfeed"]


def test_a_checkpoint_of_a_training_that_runs_as_well_is_not_replaced_and_its_unfinished_one_not_removed(
    files, tmp_path
):
    files.write(Label("one", 0, 3, False, 0.0), [b"x"])
    with pytest.raises(CheckpointError) as caught:
        files.write(Label("two", 0, 5, False, 0.0), [b"y"])
    assert str(caught.value) == (
        f"{tmp_path}/saved got the checkpoint of another training, at epoch 0, batch 3 (checkpoint-00000000.rayfeed), "
        "while this one ran up to epoch 0, batch 5: they would replace each other's.\n"
        "  Give each training a checkpoint_dir of its own."
    )
    for run in ("one", "two", "three"):
        (tmp_path / "saved" / f"checkpoint-00000001-{run}.part").touch()
    files.write(Label("two", 0, 5, False, 0.0), [b"y"], replaces="one")  # the one it began with
    assert names(tmp_path) == ["checkpoint-00000001-three.part", "checkpoint-00000001.rayfeed"]
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
    assert files.newest().name == "checkpoint-00000000.rayfeed"


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


@pytest.mark.parametrize("content", [b"", b"rayfeed", b"rayfeed checkpoint 9\n{}", b"\x89HDF\r\n" * 40])
def test_a_foreign_file_is_refused_by_its_name(content, files, tmp_path):
    files.write(LABEL, [b"x"])
    path = tmp_path / "saved" / "checkpoint-00000007.rayfeed"
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
    assert names(tmp_path) == ["best.keras", "checkpoint-00000001.rayfeed"]


def test_files_need_no_framework():
    code = "import sys\nimport rayfeed.trainer.checkpoint_files\nsys.exit('keras' in sys.modules)"
    with start_script(code) as process:
        process.communicate(timeout=60)
    assert process.returncode == 0
