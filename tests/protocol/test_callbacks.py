"""Several callbacks as one: all are told, in the order of the list."""

from __future__ import annotations

import inspect
from typing import Any

from protocol.callbacks import SILENT, CallbackList, RunCallback
from tests.helpers import hooked

HOOKS = {name: hook for name, hook in vars(RunCallback).items() if name.startswith("on_")}


def test_every_hook_reaches_every_callback_in_order():
    told: list[tuple[str, str, tuple[Any, ...]]] = []

    def recorder(who: str) -> RunCallback:
        return hooked(**{n: lambda *v, n=n: told.append((who, n, v)) for n in HOOKS})

    both = CallbackList([recorder("first"), SILENT, recorder("second")])
    assert len(HOOKS) == 10
    for name, hook in HOOKS.items():
        values = tuple(inspect.signature(hook).parameters)[1:]
        assert getattr(both, name)(*values) is None
        assert told[-2:] == [("first", name, values), ("second", name, values)]
    assert len(told) == 2 * len(HOOKS)
