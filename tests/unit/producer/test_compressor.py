"""Which frames a producer compresses, and by which codec."""

from collections import Counter

import numpy as np
import pytest

from rayfeed.batch import flatten
from rayfeed.frame import FrameSchema, encode
from rayfeed.producer import compressor
from rayfeed.producer.compressor import RETRY_FRAMES, Compressor

MB = 1_000_000
NOISE = np.random.default_rng(0).integers(0, 256, MB, np.uint8)
STEPS = NOISE.repeat(8)[:MB]  # lz4 and zstd make it an eighth, or less
COUNTS = NOISE % 16  # half of its bits: zstd makes it about a half, lz4 does not


def frame_of(array):
    structure, arrays = flatten((array, None), where="test")
    return encode([arrays], FrameSchema.of(structure, arrays))


class Clock:
    """Tells what each codec took: its time passes when it is used."""

    def __init__(self, monkeypatch, lz4=0.001, zstd=0.004):
        self.now = 0.0
        costs = {"lz4": lz4, "zstd": zstd}
        real = compressor.compress

        def timed(frame, codec):
            self.now += costs[codec]
            return real(frame, codec)

        monkeypatch.setattr(compressor, "compress", timed)

    def __call__(self):
        return self.now


def codecs(packing, frame, count, make_s=0.0):
    """By which codec each of so many frames went."""
    return [packing.pack(frame, make_s).codec for _ in range(count)]


@pytest.mark.parametrize("asked", ["lz4", "zstd"])
def test_a_codec_that_is_asked_for_is_used_where_it_makes_frames_smaller(asked):
    assert set(codecs(Compressor(asked), frame_of(STEPS), 70)) == {asked}
    assert set(codecs(Compressor(asked), frame_of(NOISE), 70)) == {""}


def test_what_did_not_help_is_tried_again_but_seldom(monkeypatch):
    tried = Counter()
    real = compressor.compress
    monkeypatch.setattr(compressor, "compress", lambda frame, codec: (tried.update([codec]), real(frame, codec))[1])
    packing = Compressor("lz4")
    codecs(packing, frame_of(NOISE), 3 * RETRY_FRAMES)
    assert tried == {"lz4": 3}
    # Once the batches have become others: the mean takes a few trials to follow.
    assert "lz4" in codecs(packing, frame_of(STEPS), RETRY_FRAMES)


def test_auto_waits_for_the_link_to_be_measured(monkeypatch):
    packing = Compressor("auto", clock=Clock(monkeypatch))
    assert set(codecs(packing, frame_of(STEPS), 5)) == {""}
    packing.link = 10 * MB
    assert set(codecs(packing, frame_of(STEPS), 5)) == {"lz4", "zstd"}


@pytest.mark.parametrize(
    ("link", "make_s", "content", "used"),
    [
        (100 * MB, 0.001, STEPS, "lz4"),  # 10 ms on its way; made and compressed in 2
        (10_000 * MB, 0.001, STEPS, ""),  # 0.1 ms on its way
        (100 * MB, 0.1, STEPS, ""),  # the link is idle most of the time: compressing would make batches slower
        (100 * MB, 0.001, COUNTS, "zstd"),
        (100 * MB, 0.001, NOISE, ""),
        (400 * MB, 0.001, COUNTS, ""),  # zstd takes 4 ms for what would save 1.2
    ],
    ids=["slow link", "fast link", "slow source", "zstd alone helps", "noise", "zstd costs more than it saves"],
)
def test_auto_takes_what_brings_more_batches(monkeypatch, link, make_s, content, used):
    packing = Compressor("auto", clock=Clock(monkeypatch))
    packing.link = link
    found = codecs(packing, frame_of(content), 40, make_s)
    assert set(found[2:]) == {used}


def test_several_threads_share_the_work(monkeypatch):
    """Four threads make four times as many bytes: then it is the link that they wait for."""
    for threads, used in ((1, ""), (4, "lz4")):
        packing = Compressor("auto", threads, clock=Clock(monkeypatch, lz4=0.004, zstd=0.04))
        packing.link = 200 * MB  # 5 ms on its way
        assert codecs(packing, frame_of(STEPS), 20, make_s=0.008)[-1] == used


def test_an_empty_frame_goes_as_it_is(monkeypatch):
    packing = Compressor("lz4")
    empty = frame_of(np.zeros((0, 3)))
    monkeypatch.setattr(type(empty), "num_bytes", 0)
    assert packing.pack(empty, 1.0) is empty
