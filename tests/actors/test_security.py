"""Nothing is opened, and nothing told, that Ray alone would not; and what is data is never run (contract E and F)."""

import contextlib
import io
import os
import pickle
import socket
from pathlib import Path

import keras
import numpy as np
import pytest
import ray

import rayfeed
from rayfeed.batch import flatten
from rayfeed.errors import BatchError
from rayfeed.frame import FrameSchema, encode
from rayfeed.producer.messages import Made, Run
from rayfeed.producer.results import from_result, to_result
from tests.sources import Numbered

LISTENS = "0A"


@ray.remote(num_cpus=0)
class Bare:
    def pid(self):
        return os.getpid()


@pytest.fixture
def bare():
    """An actor that does nothing."""
    actor = Bare.remote()
    yield actor
    ray.kill(actor)


def listening(pid="self"):
    """The sockets on which a process listens."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENS:
                found.add(f"socket:[{fields[9]}]")
    return found & set(links(pid))


def links(pid):
    """What a process has open."""
    for file in list(Path(f"/proc/{pid}/fd").iterdir()):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile, as the list itself
            yield str(file.readlink())


class Where(keras.callbacks.Callback):
    """Notes on how many ports the process that trains listens."""

    def __init__(self):
        super().__init__()
        self.ports = None

    def on_train_end(self, logs=None):
        self.ports = len(listening())


@pytest.mark.usefixtures("shared_trainer")
def test_no_process_listens_where_an_actor_that_does_nothing_would_not(bare):
    usual = len(listening(ray.get(bare.pid.remote())))
    before = listening()
    with rayfeed.Feed(Numbered(50), 2, use_multiprocessing=True) as feed:
        next(iter(feed))
        assert [len(listening(process.pid)) for process in feed.processes()] == [usual] * len(feed.processes())
        assert listening() == before
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    where = Where()
    rayfeed.fit_generator(model, Numbered(3), verbose=0, callbacks=[where])
    assert where.ports == usual
    assert listening() == before


def test_the_check_of_ports_sees_one():
    before = listening()
    with socket.create_server(("127.0.0.1", 0)):
        assert len(listening() - before) == 1


ARROWS = {"pyarrow.lib._restore_array", "pyarrow.lib.type_for_alias", "pyarrow.lib.py_buffer"}
"""What makes an Arrow array of numbers of its buffers."""


class Globals(pickle.Unpickler):
    """Notes what a pickle asks for."""

    def __init__(self, data):
        super().__init__(io.BytesIO(data))
        self.found = set()

    def find_class(self, module, name):
        self.found.add(f"{module}.{name}")
        return super().find_class(module, name)


def test_what_crosses_with_a_call_names_nothing_but_messages_frames_and_arrow():
    structure, arrays = flatten(({"a": np.zeros((3, 2)), "b": np.array(["x", "yz", ""])}, np.arange(3)), where="test")
    result = to_result(Made(Run(encode([arrays], FrameSchema.of(structure, arrays)), 1, 0.0, 0.0, asked=False)))
    assert isinstance(result, bytes)
    unpickler = Globals(result)
    assert unpickler.load().run.frame.num_bytes == from_result(result).run.frame.num_bytes
    assert {name for name in unpickler.found if not name.startswith("rayfeed.")} == ARROWS


class Planted:
    """An object that would run something where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


class Hostile(rayfeed.Sequence):
    def __init__(self, path, kind):
        self.path, self.kind = str(path), kind

    def __len__(self):
        return 2

    def __getitem__(self, index):
        planted = Planted(self.path)
        return (np.array([planted], object) if self.kind == "an array of objects" else [planted]), np.zeros(1)


@pytest.mark.parametrize("kind", ["an array of objects", "a list of objects"])
def test_an_object_in_a_batch_is_refused_where_it_was_made_and_never_unpickled_by_the_reader(kind, tmp_path):
    planted = tmp_path / "planted"
    with pytest.raises(BatchError), rayfeed.Feed(Hostile(planted, kind), use_multiprocessing=True) as feed:
        list(feed)
    assert not planted.exists()


def token():
    """The one with which this session's Ray was started."""
    named = os.environ.get("RAY_AUTH_TOKEN")
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token"
    return named or Path(path).read_text().strip()


def fail():
    raise OSError("the disc is full")


def test_the_clusters_token_is_in_no_log_no_figure_and_no_error():
    from ray._private.worker import global_worker

    secret = token()
    assert len(secret) >= 32
    with rayfeed.Feed(Numbered(9, at={5: fail}), 2, use_multiprocessing=True) as feed:
        with pytest.raises(OSError, match="the disc is full") as raised:
            list(feed)
        told = f"{feed.stats()} {raised.value} {raised.value.__notes__} {feed.state_dict()} {ray.nodes()}"
    assert secret not in told
    logs = [path for path in Path(global_worker.node.get_logs_dir_path()).rglob("*") if path.is_file()]
    assert any(path.name.startswith("worker") for path in logs)
    assert [path.name for path in logs if secret.encode() in path.read_bytes()] == []
