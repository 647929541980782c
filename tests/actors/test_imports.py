"""A producer has imported what its source needs and what makes batches of it, and nothing of who trains on them."""

import sys
import types

import ray

import rayfeed

ROOMS = ("rayfeed.batch", "rayfeed.errors", "rayfeed.options", "rayfeed.stats", "rayfeed.source", "rayfeed.frame")
"""Rooms that a producer runs, whole; of its own it runs what is named in `PRODUCER`."""

PRODUCER = {
    *(
        "actor",
        "answers",
        "compressor",
        "failed_call",
        "heap",
        "loading",
        "maker",
        "messages",
        "node_memory",
        "results",
        "twins",
    ),
}

PACKAGES = {"rayfeed", "numpy", "pyarrow"}
"""What rayfeed brings into a producer. NumPy and Arrow are what batches are made of and travel in."""

OF_THESE = {
    "cloudpickle",  # by pyarrow, where it is installed
    "pydantic",  # by Ray's own serialization, when it first gets or puts anything, and all the following
    "pydantic_core",
    "annotated_types",
    "typing_inspection",
}
"""What these and Ray import where it is installed."""


SOURCE = """
import sys
import numpy as np
import rayfeed

class Modules(rayfeed.Sequence):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return np.array([sorted(sys.modules)]), np.zeros(1)
"""


@ray.remote(num_cpus=0)
class Bare:
    def modules(self):
        return set(sys.modules)


def imported(source):
    bare = Bare.remote()
    before = ray.get(bare.modules.remote())
    ray.kill(bare)
    with rayfeed.Feed(source, 1, use_multiprocessing=True) as feed:
        (names, _), _ = feed
    return set(names[0].tolist()) - before


def test_a_producer_of_a_plain_source_has_imported_no_framework_and_nothing_of_its_consumers(monkeypatch):
    # As a script's own class: this file's, by its name, would import what tests need.
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    exec(SOURCE, module.__dict__)  # noqa: S102 - as above
    found = imported(module.Modules())
    own = {name for name in found if name.startswith("rayfeed.")}
    rest = {name for name in own if not name.startswith(ROOMS)}
    assert rest == {"rayfeed.producer", *(f"rayfeed.producer.{name}" for name in PRODUCER)}
    packages = {name.partition(".")[0] for name in found}
    others = {name for name in packages if name not in sys.stdlib_module_names and not name.startswith("_")}
    assert others - OF_THESE <= PACKAGES | {"ray"}
