"""The exceptions whose message is all that the user needs: no traceback is shown of them."""

from __future__ import annotations

import sys


class InputError(ValueError):
    """Configuration or data that cannot be used; the command line exits with code 2.

    Args:
        field: what the user would change, in the command line's own words (``data.root``).
        value: what it is now; None and booleans are shown as they are written there.
        problem: the rule that is broken, with both numbers where there are numbers.
        fix: what to do instead, as an imperative.
    """

    def __init__(self, field: str, value: object, problem: str, fix: str) -> None:
        self.field, self.value, self.problem, self.fix = field, value, problem, fix
        shown = {"None": "null", "True": "true", "False": "false"}.get(repr(value), value)
        super().__init__(f"{field}={shown}: {problem}. {fix}.")

    # Crosses process boundaries: worker pools pickle exceptions.
    def __reduce__(self) -> tuple[type[InputError], tuple[str, object, str, str]]:
        return type(self), (self.field, self.value, self.problem, self.fix)


class Interruption(BaseException):
    """Work is ended from outside. No Exception: ``except Exception`` in that work must not stop it,
    and nobody names it as a mistake of the work."""


class RunError(RuntimeError):
    """A run that cannot go on, for a reason outside the program; the command line exits with 1."""


def say(program: str, message: object, code: int) -> int:
    """Tell the user on one line of stderr what is wrong; gives the exit code back."""
    print(f"{program}: {' '.join(str(message).split())}", file=sys.stderr, flush=True)
    return code
