"""Which sources are sent away, which stay with a warning, and which are refused (D3)."""

import os
import socket
import sqlite3

import pytest

import rayfeed
from rayfeed.errors import SourceError
from rayfeed.options import StreamOptions
from rayfeed.queue.opening import specify
from rayfeed.queue.travel import pack_or_keep
from rayfeed.source.packed import Packed
from rayfeed.source.stream import describe
from tests.sources import Numbered, batch


def reading(resource):
    yield batch(0)
    del resource


class Holder(rayfeed.Sequence):
    def __init__(self, resource):
        self.resource = resource

    def __len__(self):
        return 3


class Iterating:
    def __init__(self, resource):
        self.resource = resource

    def __next__(self):
        return batch(0)


def decided(source, **options):
    info = describe(source, name="generator")
    return pack_or_keep(source, name="generator", info=info, options=StreamOptions(**options))


@pytest.fixture
def resources(tmp_path):
    with (tmp_path / "open").open("w") as file, socket.socket() as connection:
        database = sqlite3.connect(":memory:")
        yield {"file": file, "socket": connection, "database": database}
        database.close()


@pytest.mark.parametrize(
    ("kind", "type_name"), [("file", "TextIOWrapper"), ("socket", "socket"), ("database", "Connection")]
)
def test_a_generator_on_something_open_stays_and_the_warning_names_it(kind, type_name, resources):
    resource = resources[kind]
    for source in (reading(resource), lambda: reading(resource), Iterating(resource)):
        with pytest.warns(UserWarning, match="cannot be sent to another process") as caught:
            assert decided(source) is None
        (warning,) = caught
        text = str(warning.message)
        assert text.startswith("rayfeed: generator (")
        assert f"is a {type_name} (" in text
        assert f"it runs in a thread of this process (pid {os.getpid()})" in text
        assert warning.filename == __file__


def test_what_can_travel_does_so_in_silence():
    assert isinstance(decided(reading(None)), Packed)
    assert isinstance(decided(Numbered(3)), Packed)


def test_where_processes_are_asked_for_the_error_names_the_member_and_the_way_out(resources):
    with pytest.raises(SourceError, match=r"generator\.resource is a TextIOWrapper") as caught:
        decided(Iterating(resources["file"]), use_multiprocessing=True)
    assert "\n  With use_multiprocessing=False it runs as it is, in a thread of this process." in str(caught.value)
    assert isinstance(caught.value.__cause__, TypeError)


@pytest.mark.parametrize("use_multiprocessing", [False, True])
def test_a_sequence_never_stays(use_multiprocessing, resources):
    with pytest.raises(SourceError, match=r"generator\.resource is a TextIOWrapper") as caught:
        decided(Holder(resources["file"]), use_multiprocessing=use_multiprocessing)
    assert "use_multiprocessing" not in str(caught.value)


@pytest.mark.parametrize("make", [reading, Holder])
def test_without_workers_the_way_out_is_the_driver(make, resources):
    with pytest.raises(SourceError, match='With trainer="driver" and workers=0 it runs in this process as it is'):
        decided(make(resources["file"]), workers=0)


def test_of_a_stream_at_home_nothing_is_pickled_and_the_source_is_the_users_own(resources):
    mine = reading(resources["file"])
    with pytest.warns(UserWarning, match="thread of this process"):
        spec = specify(mine, name="generator", options=StreamOptions(), ships=True)
    assert spec.is_home
    assert spec.packed is None
    assert spec.source is mine
    in_line = specify(mine, name="generator", options=StreamOptions(workers=0), ships=False)
    assert not in_line.is_home
