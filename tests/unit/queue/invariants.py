"""What holds for every window after every event."""


def check(window):
    """Fail unless every invariant holds. Cheap enough for every event of a test."""
    waiting = sum(state.num_batches - state.num_taken for state in window.issued.values() if state.done)
    assert window.num_made == window.num_handed_over + waiting + window.num_discarded
    out = sum(len(state.ticket.indices) for state in window.issued.values() if not state.done)
    unconsumed = window.num_handed_over - window.num_consumed
    assert window.outstanding == out + waiting + unconsumed
    for number, state in window.issued.items():
        assert state.done or bool(state.holders) != (number in window.lost), f"ticket {number}: {state}"
    assert all(number in window.issued for number in window.lost | window.suspected)
