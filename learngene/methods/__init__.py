"""The methods that a run can compare: one file a method, with both halves and its settings.

The interface is ``base.py``, the list of names ``registry.py``; ``common/`` holds what several
methods share, ``plugins.py`` finds those that lie elsewhere. Classes are looked up when they are
asked for: ``import learngene.methods`` alone does not bring torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from learngene.methods.registry import BUILT_IN, find

__all__ = [
    "BUILT_IN",
    "ClientContext",
    "Factory",
    "Method",
    "Payload",
    "ReplyForm",
    "Update",
    "find",
]

if TYPE_CHECKING:
    from learngene.methods.base import ClientContext, Factory, Method, Payload, ReplyForm, Update
else:

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from learngene.methods import base

        return getattr(base, name)
