"""The methods of a run: built-in ones by name, plugins by module, their settings typed.

``methods=[learngene,scratch,my_package.my_method]`` asks for the ``METHOD`` in that module, which
must be importable: installed, or a file in the folder that the run is started from. In tables and
results it is called ``my_method``. Settings of every method are ``method.NAME.FIELD=VALUE``.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from learngene.errors import InputError
from learngene.methods.registry import BUILT_IN, base_of, find
from learngene.utils.settings import check_settings

if TYPE_CHECKING:  # methods bring torch: seconds that a wrong word need not wait for
    from learngene.methods.base import Method

RESERVED = (*BUILT_IN, "gain")  # names that mean something in the summary
A_MODULE = "name a module with a METHOD (docs/tutorials/add_a_method.md)"


@dataclass(frozen=True)
class RunMethods:
    """The methods of a run under the names that tables have, in the order asked for."""

    methods: dict[str, Method]
    settings: dict[str, dict[str, Any]]  # by method, plain values; also scratch's
    plugins: dict[str, dict[str, Any]]  # what workers need to find a plugin


def resolve_methods(methods: Sequence[str], settings: Mapping[str, Any]) -> RunMethods:
    """Find the methods, import plugins, and bring their settings into their types.

    Of ``settings``, by method, those of built-in methods that the run has not are passed over;
    scratch's always count, since the safeguard may train it.

    Raises:
        InputError: there is no such method, or a setting does not fit it.
    """
    if not isinstance(settings, Mapping):
        fix = "Write method.NAME.FIELD=VALUE"
        raise InputError("method", settings, "no settings by method", fix)
    plugins: dict[str, dict[str, Any]] = {}
    names = [name if base_of(name) in BUILT_IN else _add_plugin(name, plugins) for name in methods]
    known = [*BUILT_IN, *plugins]
    for name, values in settings.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            fix = f"method.{near[0]}.FIELD=VALUE" if near else f"methods=[learngene,scratch,{name}]"
            problem = "no built-in method, and methods names no module of that name"
            raise InputError(f"method.{name}", values, problem, f"Write {fix}")
    found = {name: _find(name, plugins) for name in names}
    read = {"scratch": find("scratch")} | {base_of(name): each for name, each in found.items()}
    typed = {
        name: _typed(name, read[name], settings.get(name, {}))
        for name in sorted(read, key=known.index)
    }
    return RunMethods(found, {name: values for name, values in typed.items() if values}, plugins)


def _find(name: str, plugins: Mapping[str, Any]) -> Method:
    try:
        return find(name, plugins.get(name))
    except ValueError as error:
        fix = f"Write {base_of(name)}, or the name of a method that the factory trains"
        raise InputError("methods", name, str(error), fix) from error


def _add_plugin(module: str, plugins: dict[str, dict[str, Any]]) -> str:
    """Describe the method in ``module`` under its short name, which is returned."""
    from learngene.methods.plugins import NoModule, describe, name_of

    try:
        add_cwd_to_path()
        plugin = describe(module)
    except NoModule as error:
        built_in = f"there is no method of that name (there are {', '.join(BUILT_IN)})"
        near = difflib.get_close_matches(module, BUILT_IN, n=1)
        fix = f"Write {near[0] if near else 'methods=[learngene,scratch]'}, or {A_MODULE}"
        raise InputError("methods", module, f"{built_in}, and as a module: {error}", fix) from error
    except ValueError as error:
        raise InputError("methods", module, str(error), f"Mend it, or {A_MODULE}") from error
    name = name_of(module)
    if name in RESERVED or name in plugins:
        fix = "Give the file another name"
        raise InputError("methods", module, f"the name {name} is taken", fix)
    plugins[name] = plugin
    return name


def _typed(name: str, method: Method, values: Any) -> dict[str, Any]:
    """A method's settings as plain values of their types, what is not set from its defaults."""
    where = f"method.{name}"
    if not isinstance(values, Mapping):
        raise InputError(where, values, "no settings with names", f"Write {where}.NAME=VALUE")
    if method.settings is None:
        return dict(values)
    kinds = {each.name: each.type for each in fields(method.settings)}
    node = OmegaConf.structured(method.settings)
    for field, value in values.items():
        if field not in kinds:
            near = difflib.get_close_matches(str(field), kinds, n=1, cutoff=0.5)
            listed = ", ".join(kinds) or "none (learngene's are those of individual and retain)"
            fix = f"Write {where}.{near[0]}={value}" if near else f"It has {listed}"
            problem = f"{name} has no setting of that name"
            raise InputError(f"{where}.{field}", value, problem, fix)
        try:
            node[field] = value
        except (OmegaConfBaseException, OverflowError) as error:  # float(10**400)
            problem = f"not a value of type {kinds[field]}"
            fix = f"Write {where}.{field}=VALUE of that type"
            raise InputError(f"{where}.{field}", value, problem, fix) from error
    for missing in OmegaConf.missing_keys(node):
        raise InputError(f"{where}.{missing}", "???", "it has no value", "Give it one")
    typed: Any = OmegaConf.to_object(node)
    check_settings(typed, f"{where}.")
    return asdict(typed)


def with_methods(config: dict[str, Any], run: RunMethods) -> dict[str, Any]:
    """The configuration with all that its methods are: names, settings and, of plugins, files.

    ``methods`` holds the short names, ``method`` the settings of these methods and of scratch, and
    ``own_methods``, where there are plugins, what workers need to find them.
    """
    plugins = {"own_methods": run.plugins} if run.plugins else {}
    return config | {"methods": [*run.methods], "method": run.settings} | plugins


def add_cwd_to_path() -> None:
    """Let modules in the present folder be found; last, so that they hide nothing.

    Ray's workers are started with the driver's path (``runtime/ray_backend.py``).
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
