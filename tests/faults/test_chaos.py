"""Producers killed at random for some epochs: the ledger holds each batch once, in order, of the same bytes."""

from dataclasses import replace

import pytest

from rayfeed.testing import chaos


def test_epochs_under_fire_are_those_of_a_run_in_line():
    report = chaos.run(epochs=6, workers=3, kill_every_s=0.5, seed=1, length=40, make_s=0.05)
    assert report.difference() is None
    assert len(report.found) == 6 * 40
    assert report.num_kills >= 4
    assert report.num_lost >= report.num_kills - 1, "the last one may not be noticed any more"
    assert "each (pass, index) exactly once, in order, of the same bytes" in str(report)


def test_the_command_prints_what_it_found_and_exits_with_it(capsys):
    assert chaos.main(["--epochs", "1", "--workers", "2", "--kill-every", "0", "--seed", "3"]) == 0
    assert "100 batches in " in capsys.readouterr().out


def entries(*numbers):
    return [chaos.Entry(0, number, f"digest {number}") for number in numbers]


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (entries(0, 1, 2), None),
        (entries(0, 2, 1), "line 1: wanted Entry(pass_index=0, index=1"),
        (entries(0, 1), "wanted 3 batches, found 2"),
        (entries(0, 1, 2, 2), "wanted 3 batches, found 4"),
        ([*entries(0, 1), replace(*entries(2), digest="other")], "line 2: wanted"),
    ],
    ids=["the same", "out of order", "lost", "twice", "other bytes"],
)
def test_any_difference_is_found(found, told):
    report = chaos.Report(entries(0, 1, 2), found, 0, 0, 0, 1.0, 0.1)
    difference = report.difference()
    assert difference is None if told is None else difference.startswith(told)
