"""The trainer's half of `rayfeed.on_driver`: callbacks that stand in for those in the caller's process.

A `StandIn` takes a driver callback's place in Keras' list. It has only the hooks that the callback has, so that others
cost nothing: a callback without batch hooks adds no message to a step, and lets Keras dispatch steps without waiting
for their values (where the backend is thread-safe). All stand-ins of a job post through one `Relay`, which numbers the
hooks; the caller runs them in that order and reports how far it is (`Verdict`). Between the two

    training waits                          for                                      at most
    --------------                          ---                                      -------
    before any hook                         fewer than LEAD hooks to be outstanding  until the caller is that far
    at an epoch's end, and at begin and     all hooks so far to have run             VERDICT_WAIT_S
    end of training, test and prediction

so that what a quick callback decides at an epoch's end holds for the next epoch, and a slow one lets training go on
beside it. A caller that is late is not waited for again before it has caught up.
"""

from __future__ import annotations

import functools
import threading
from typing import Any

import keras

from rayfeed.errors import RayfeedError
from rayfeed.trainer.messages import DriverSlot, HookCall, Verdict
from rayfeed.trainer.outbox import Outbox

LEAD = 50
"""Hooks that training may be ahead of the caller; the outbox holds no more, whatever they carry."""

VERDICT_WAIT_S = 1.0
"""How long an epoch's end waits for the caller's callbacks; quick ones have answered long before."""

BOUNDARIES = frozenset(
    {"on_epoch_end", *(f"on_{kind}_{end}" for kind in ("train", "test", "predict") for end in ("begin", "end"))}
)
"""Hooks at which training waits for the caller's verdict."""


class GivenUp(RayfeedError):  # noqa: N818 - it ends a job whose caller knows why
    """Ends a job that its caller has given up. Not seen by the user, who gets the caller's reason."""


class Relay:
    """Numbers one job's hooks, posts them, and heeds what comes back.

    `post` and `settle` run in the training thread, `accept` and `give_up` in the actor's control threads.

    Args:
        outbox: The job's.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._model: Any = None
        self._changed = threading.Condition()
        self._num_posted = 0
        self._num_done = 0
        self._is_late = False
        self._is_given_up = False

    def stand_ins(
        self, callbacks: list[keras.callbacks.Callback], slots: list[DriverSlot], model: Any
    ) -> list[keras.callbacks.Callback]:
        """The job's callbacks, with a stand-in in the place of each that stayed with the caller."""
        self._model = model
        model.stop_training = (
            False  # an earlier job's; Keras does this too, but only after the first message was posted
        )
        members = list(callbacks)
        for number, slot in enumerate(slots):  # in the order of their places, so that each index is right when used
            members.insert(slot.place, StandIn(number, slot.hooks, self))
        return members

    def post(self, callback: int, hook: str, args: tuple[Any, ...], kwargs: dict[str, Any], params: Any) -> None:
        """Post a hook; waits while the caller is too far behind.

        Raises:
            GivenUp: The caller wants no more of this job.
        """
        with self._changed:
            if self._num_posted - self._num_done >= LEAD:
                self._outbox.flush()
            # No deadline: a callback may take its time. The wait ends with the caller, whose end is this process'.
            self._changed.wait_for(lambda: self._num_posted - self._num_done < LEAD or self._is_given_up)
            self.check()
            self._num_posted += 1
            has_stopped = bool(self._model.stop_training)
            self._outbox.put(HookCall(self._num_posted, callback, hook, args, kwargs, params, has_stopped))

    def settle(self) -> None:
        """Wait for the caller to have run every hook so far, unless it is late.

        Raises:
            GivenUp: The caller wants no more of this job.
        """
        with self._changed:
            if not self._is_late and self._num_done < self._num_posted:
                self._outbox.flush()
                is_settled = self._changed.wait_for(
                    lambda: self._num_done == self._num_posted or self._is_given_up, VERDICT_WAIT_S
                )
                self._is_late = not is_settled
            self.check()

    def check(self) -> None:
        """Raise `GivenUp` where the caller wants no more of this job."""
        if self._is_given_up:
            raise GivenUp("the caller has given this job up: a callback of its own raised, or it was interrupted.")

    def accept(self, verdict: Verdict) -> None:
        """Heed how far the caller is, and what its callbacks decided; verdicts may overtake each other."""
        if verdict.job != self._outbox.number:
            return
        with self._changed:
            self._num_done = max(self._num_done, verdict.num_done)
            self._is_late = self._is_late and self._num_done < self._num_posted
            if verdict.stop_training:
                self._model.stop_training = True
            self._changed.notify_all()
        if verdict.has_failed:
            self.give_up()

    def give_up(self) -> None:
        """End the job: Keras' loops stop after the step they are in, and the next hook raises."""
        with self._changed:
            self._is_given_up = True
            if self._model is not None:
                self._model.stop_training = self._model.stop_evaluating = self._model.stop_predicting = True
            self._changed.notify_all()


class StandIn(keras.callbacks.Callback):
    """Posts the hooks of one driver callback.

    Not `async_safe`: Keras' dispatch threads would change the order of batch hooks.

    Args:
        number: The callback's, among the caller's driver callbacks.
        hooks: Those that it has.
        relay: Takes them.
    """

    def __init__(self, number: int, hooks: frozenset[str], relay: Relay) -> None:
        super().__init__()
        self._number = number
        self._hooks = hooks
        self._relay = relay
        self._sent: dict[str, Any] = {}
        # Keras looks at the object, not at the class: a hook that is not set is Keras' own and does nothing.
        for hook in hooks | BOUNDARIES:
            setattr(self, hook, functools.partial(self._on, hook))

    def set_params(self, params: Any) -> None:
        super().set_params(params)
        self._post("set_params", (), {})

    def _on(self, hook: str, *args: Any, **kwargs: Any) -> None:
        self._relay.check()
        if hook in self._hooks:
            self._post(hook, args, kwargs)
        if hook in BOUNDARIES:
            self._relay.settle()

    def _post(self, hook: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        params: Any = self.params
        if params != self._sent:  # hooks between two changes share one dict, also on their way
            self._sent = dict(params)
        args = tuple(_with_arrays(value) for value in args)
        kwargs = {name: _with_arrays(value) for name, value in kwargs.items()}
        self._relay.post(self._number, hook, args, kwargs, self._sent)


def _with_arrays(logs: Any) -> Any:
    """An argument of a hook with arrays in the place of tensors: predictions in ``logs`` are such."""
    return keras.tree.map_structure(
        lambda leaf: keras.ops.convert_to_numpy(leaf) if keras.ops.is_tensor(leaf) else leaf, logs
    )
