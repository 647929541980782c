"""Files that are whole or not there, on a disk and on an object store."""

import os
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest

from rayfeed.errors import OptionError
from rayfeed.trainer import whole_files
from rayfeed.trainer.whole_files import WholeFiles


class Object:
    """A stream into a bucket: the object has its name when it is closed, however much came."""

    def __init__(self, bucket, path):
        self.bucket = bucket
        self.path = path
        self.parts = []

    def write(self, data):
        self.parts.append(bytes(data))

    def close(self):
        self.bucket.happened.append("closed")
        self.bucket.objects[self.path] = b"".join(self.parts)


class Bucket:
    """An object store as Arrow's file systems show it, without rename. Takes down what is done to it."""

    type_name = "s3"

    def __init__(self, *, leaves_empty=False):
        self.objects = {}
        self.happened = []
        self.leaves_empty = leaves_empty

    def create_dir(self, path, recursive):
        pass

    def open_output_stream(self, path):
        if self.leaves_empty:
            self.objects[path] = b""
        return Object(self, path)

    def open_input_file(self, path):
        return pa.BufferReader(self.objects[path])

    def get_file_info(self, selector):
        return [
            SimpleNamespace(base_name=path.rpartition("/")[2], size=len(data)) for path, data in self.objects.items()
        ]

    def delete_file(self, path):
        self.happened.append("deleted")
        if self.objects.pop(path, None) is None:
            raise FileNotFoundError(path)


@pytest.fixture
def files(tmp_path):
    return WholeFiles("saved", str(tmp_path))


@pytest.fixture
def bucket(monkeypatch):
    bucket = Bucket()
    monkeypatch.setattr(whole_files, "file_system", lambda location: (bucket, "bucket/run"))
    return bucket


def write(files, name="one", data=b"data"):
    with files.writing(name) as put:
        put(data)


def content(files, name):
    with files.opened(name) as file:
        return file.read()


def write_and_fail(files):
    with files.writing("two") as put:
        put(b"begun")
        raise OSError("no space")


def fail(files):
    with pytest.raises(OSError, match="no space"):
        write_and_fail(files)


def test_a_relative_path_is_one_of_the_callers_directory_and_a_url_is_taken(files, tmp_path):
    write(files)
    for location in (f"file://{tmp_path}/saved/", str(tmp_path / "saved")):
        assert content(WholeFiles(location, "/nowhere"), "one") == b"data"


@pytest.mark.parametrize("url", ["fsspec+memory:///whole", "fsspec+file://{}/saved"])
def test_a_file_system_of_fsspec_is_taken(url, tmp_path):
    pytest.importorskip("fsspec")
    files = WholeFiles(url.format(tmp_path), "/nowhere")
    files.check_writable("probe")
    for data in (b"first", b"second"):
        write(files, data.decode(), data)
        assert content(files, data.decode()) == data
    files.remove("first")
    fail(files)
    assert files.names() == ["second"]


def test_a_url_that_nobody_knows_is_refused():
    with pytest.raises(OptionError, match=r"checkpoint_dir='odd://here' is no URL that Arrow takes: .*odd"):
        WholeFiles("odd://here", "/nowhere")


def test_on_a_disk_a_file_is_synced_before_it_gets_its_name_and_its_name_before_anything_is_removed(
    files, tmp_path, monkeypatch
):
    happened = []

    def sync(descriptor):
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        happened.append((path.name, path.read_bytes() if path.is_file() else [one.name for one in path.iterdir()]))

    monkeypatch.setattr(os, "fsync", sync)
    write(files)
    assert happened == [("one.part", b"data"), ("saved", ["one"])]


def test_on_a_disk_an_exception_leaves_no_file(files):
    write(files)
    fail(files)
    assert files.names() == ["one"]


def test_on_an_object_store_a_file_is_written_under_its_name_and_nothing_is_renamed(bucket):
    files = WholeFiles("s3://bucket/run", "/nowhere")
    write(files)
    assert bucket.objects == {"bucket/run/one": b"data"}
    assert files.names() == ["one"]
    assert content(files, "one") == b"data"


def test_on_an_object_store_what_an_exception_has_cut_is_removed_as_closing_completes_it(bucket):
    files = WholeFiles("s3://bucket/run", "/nowhere")
    write(files)
    bucket.happened.clear()
    fail(files)
    assert bucket.happened == ["closed", "deleted"]
    assert files.names() == ["one"]


def test_an_object_that_has_its_name_before_its_bytes_is_not_there(bucket):
    bucket.leaves_empty = True
    files = WholeFiles("abfs://bucket/run", "/nowhere")
    with files.writing("one") as put:
        assert files.names() == []
        put(b"data")
    assert files.names() == ["one"]


def test_removing_what_another_process_has_removed_is_no_error(files):
    write(files)
    for _ in range(2):
        files.remove("one")
    assert files.names() == []


def test_a_directory_that_can_be_written_is_left_as_it_was(files, tmp_path):
    files.check_writable("probe")
    assert list((tmp_path / "saved").iterdir()) == []


def test_a_directory_that_cannot_be_written_or_read_is_refused_by_its_name(tmp_path):
    (tmp_path / "file").touch()
    files = WholeFiles("file/saved", str(tmp_path))
    with pytest.raises(OptionError) as caught:
        files.check_writable("probe")
    first, advice = str(caught.value).split("\n")
    assert first.startswith(f"TrainerOptions.checkpoint_dir='{tmp_path}/file/saved': the trainer cannot write there: ")
    assert "Not a directory" in first
    assert advice.startswith("  Nothing was trained. Give a directory, or a URL, that every node")
    with (
        pytest.raises(OptionError, match="the trainer cannot read there"),
        WholeFiles("file", str(tmp_path)).naming("read"),
    ):
        WholeFiles("file", str(tmp_path)).names()


def test_a_store_that_lets_nobody_remove_is_refused_before_a_training(bucket):
    def denied(path):
        raise PermissionError(f"deleting {path} is denied")

    bucket.delete_file = denied
    with pytest.raises(OptionError, match="cannot write there: deleting bucket/run/probe is denied"):
        WholeFiles("s3://bucket/run", "/nowhere").check_writable("probe")
