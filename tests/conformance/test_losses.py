"""F2 and F6: producers that are killed, and producers that do not answer."""

import os
import signal

import pytest

import rayfeed
from tests.conformance.contract import line
from tests.conformance.echo import trained
from tests.sources import Gate, Once, batch, number_of


@line("F2 generators")
@pytest.mark.parametrize(("on_loss", "told"), [("restart", "its copy begins anew"), ("drop", "goes on without that c")])
def test_training_goes_on_when_a_generators_producer_is_killed(on_loss, told, tmp_path, echo):
    once = Once(tmp_path)

    def generate():
        for place in range(1000):
            if rayfeed.get_worker_info().id == 1 and place == 5 and once("death"):
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch(100 * rayfeed.get_worker_info().id + place)

    options = rayfeed.ProducerOptions(on_generator_loss=on_loss)
    with pytest.warns(UserWarning, match=told):
        run = trained(
            echo, generate, 20, epochs=2, workers=2, use_multiprocessing=True, max_queue_size=4, producers=options
        )
    numbers = [number for epoch in run.epochs for number in epoch]
    assert len(numbers) == 40
    of_the_other = [number for number in numbers if number < 100]
    assert of_the_other == list(range(len(of_the_other)))
    of_the_lost = [number - 100 for number in numbers if number >= 100]
    seen = next((place for place, number in enumerate(of_the_lost) if number != place), len(of_the_lost))
    assert of_the_lost[:seen] + of_the_lost[seen:] == [*range(seen), *range(len(of_the_lost) - seen)]
    assert seen <= 5
    assert (len(of_the_lost) == seen) == (on_loss == "drop")


@line("F6")
def test_a_batch_that_does_not_come_is_told_and_made_elsewhere(tmp_path):
    once, gate = Once(tmp_path), Gate(tmp_path / "gate")

    class Stuck(rayfeed.Sequence):
        def __len__(self):
            return 12

        def __getitem__(self, index):
            if index == 4 and once("stuck"):
                gate.wait()
            return batch(index)

    options = rayfeed.ProducerOptions(batch_timeout_s=1)
    with rayfeed.Feed(Stuck(), 2, use_multiprocessing=True, max_queue_size=2, producers=options) as feed:
        with pytest.warns(
            UserWarning, match=r"waiting [1-9] s for batch(es 4 to \d)? ?4? ?of pass 0 of source \(Stuck\)"
        ):
            numbers = [number_of(one) for one in feed]
        gate.open()
    assert numbers == list(range(12))
