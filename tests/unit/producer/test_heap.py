"""A producer's heap keeps what user code gave back."""

import subprocess
import sys

import pytest

MEASURE = """
import resource, sys
import numpy as np
from rayfeed.producer.heap import keep_freed_memory

if {kept}:
    assert keep_freed_memory()
def batches():
    for _ in range(30):
        made = [np.ones(600_000, "uint8") for _ in range(8)]
        del made
batches()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
batches()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other C libraries have no such setting")
def test_batches_are_made_on_pages_that_were_touched_before():
    def faults(*, kept):
        done = subprocess.run(  # noqa: S603 - this file's own script
            [sys.executable, "-c", MEASURE.format(kept=kept)], capture_output=True, text=True, check=True, timeout=60
        )
        return int(done.stdout)

    # 30 times 8 arrays of 147 pages each.
    assert faults(kept=False) > 10_000
    assert faults(kept=True) < 1_000
