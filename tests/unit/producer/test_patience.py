"""What is said of actors that do not start, and when."""

import pytest

from rayfeed.producer import placement
from rayfeed.producer.placement import Claim, Patience


@pytest.fixture(params=[False, True], ids=["fixed", "autoscaled"])
def grows(request, monkeypatch):
    monkeypatch.setattr(placement, "can_grow", lambda: request.param)
    monkeypatch.setattr(placement, "describe_free", lambda claim: f"0 of 4 {claim}")
    return request.param


def test_it_is_said_after_a_while_and_again_when_that_has_doubled(grows):
    patience = Patience(Claim(num_cpus=1), "ProducerOptions", 300)
    told = [second for second in range(100) if patience.look("3 of 8 producers have", second) is not None]
    assert told == [15, 30, 60]
    assert patience.look("1 of 8 producers have", 1) is None, "another one, later"
    assert patience.look("1 of 8 producers have", 16) is not None


def test_a_claim_names_the_labels_that_a_node_must_have():
    claim = Claim(num_cpus=0, label_selector={"rayfeed.io/role": "producer"})
    assert str(claim) == "no resources on a node with rayfeed.io/role=producer"


def test_it_says_who_waits_for_what_and_how_long_it_may(grows):
    text = Patience(Claim(num_cpus=0, num_gpus=1), "TrainerOptions", 300).look("the trainer has", 17.2)
    for_whom = "other jobs, or the autoscaler's nodes" if grows else "other jobs"
    assert text == (
        "rayfeed: the trainer has not started after 17 s: claimed is 1 GPU, and the cluster has 0 of 4 1 GPU free.\n"
        f"  Where that is too little it waits for {for_whom}; in TrainerOptions lower the claim (num_cpus=0: no CPU), "
        "or start_timeout_s (now 300), after which it is an error."
    )
