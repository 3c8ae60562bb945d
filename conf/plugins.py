"""Methods that are named by their module: checked, and brought into the form of the others.

``methods=[learngene,scratch,my_package.my_method]`` asks for the ``METHOD`` in that module, which
must be importable: installed, or a file in the folder that the run is started from. In tables and
results it is called ``my_method``; its settings are ``+method.own.my_method.NAME=VALUE``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from conf.schema import Methods
from learngene.errors import InputError

BUILT_IN = (  # those of learngene.methods, which would bring torch: seconds that other runs save
    *("learngene", "scratch"),
    *("maml", "fomaml", "protonet", "proto_maml", "matchingnet"),
    *("finetune", "finetune_pp", "deepemd", "full", "linear_probe"),
    *("fedavg", "fedprox"),
)
# Names with a meaning of their own where methods are listed: in the summary, under ``method``.
TAKEN = {*BUILT_IN, "gain", *(field.name for field in fields(Methods))}


def modules_of(methods: Sequence[str]) -> list[str]:
    """The methods that are named by a module."""
    return [name for name in methods if name not in BUILT_IN]


def check_own(methods: Sequence[str], settings: Mapping[str, Any]) -> None:
    """Raise InputError unless every module has a method, and every setting a method.

    Args:
        settings: ``method.own`` of the configuration.
    """
    from learngene.methods.plugins import describe, name_of

    names: list[str] = []
    for module in modules_of(methods):
        try:
            from_here()
            describe(module)
        except ValueError as error:
            raise InputError("methods", module,
                             f"there is no method of that name (there are {', '.join(BUILT_IN)}), "
                             f"and as a module: {error}",
                             "Write methods=[learngene,scratch], or name a module with a METHOD "
                             "(docs/tutorials/add_a_method.md)") from error  # fmt: skip
        name = name_of(module)
        if name in TAKEN or name in names:
            raise InputError("methods", module, f"the name {name} is taken",
                             "Give the file another name")  # fmt: skip
        names.append(name)
    for name, own in settings.items():
        where = f"method.own.{name}"
        if name not in names:
            raise InputError(where, own, "methods names no module of that name",
                             f"Write methods=[learngene,scratch,{name}]")  # fmt: skip
        if not isinstance(own, Mapping):
            raise InputError(where, own, "no settings with names",
                             f"Write, for instance, +{where}.lr=0.01")  # fmt: skip


def factory_halves(methods: Sequence[str]) -> tuple[list[str], list[str]]:
    """The modules whose method is read off the collective, and those trained at the factory."""
    modules = modules_of(methods)
    if not modules:
        return [], []
    from learngene.methods.plugins import describe, load

    found = {module: load(describe(module)) for module in modules}
    return (
        [module for module, method in found.items() if method.take is not None],
        [module for module, method in found.items() if method.pretrain is not None],
    )


def with_own(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with its modules' methods under short names.

    ``methods`` holds the short names, ``method`` their settings, and ``own_methods`` what workers
    need to find them. Without such a method the configuration stays as it is.
    """
    modules = modules_of(config["methods"])
    if not modules:
        return config
    from learngene.methods.plugins import describe, name_of

    from_here()
    settings = config["method"]["own"]
    short = {module: name_of(module) for module in modules}
    return {
        **config,
        "methods": [short.get(name, name) for name in config["methods"]],
        "method": {
            **config["method"],
            **{name: dict(settings.get(name, {})) for name in short.values()},
        },
        "own_methods": {name: describe(module) for module, name in short.items()},
    }


def from_here() -> None:
    """Let modules in the present folder be found; last, so that they hide nothing.

    Ray's workers are started with the driver's path (``runtime/ray_backend.py``).
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
