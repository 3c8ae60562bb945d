"""Words that settings of an individual may have; a word that is none of them is refused."""

from __future__ import annotations

from learngene.errors import InputError

HEADS = ("prototype", "mlp")
LABELS = ("exact", "true")  # of the Fisher information
SCHEDULES = ("cosine", "constant")


def among(field: str, value: str, words: tuple[str, ...]) -> str:
    """``value``, which must be one of ``words``.

    Raises:
        InputError: it is none of them, so that a misspelt one does not pass for another.
    """
    if value not in words:
        raise InputError(
            field, value, "there is no such choice", f"Write one of {', '.join(words)}"
        )
    return value
