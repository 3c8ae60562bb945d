"""Flower's SuperLink and SuperNode behind a gate: who may ask them for what.

A SuperLink answers everybody on one port. What nodes ask for (``/v1/fleet/``) is signed with a key
that was registered. The rest is not: whoever reaches the port may register a key, and start a run,
which is code for the server and for every node; accounts are no part of flwr's package. A SuperNode
hands its tasks to whoever asks on its own port. Behind the gate other machines reach what is
signed, and on this machine one user and root reach the rest.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

from learngene.errors import InputError
from learngene.utils.files import expand_user, is_folder

FLEET, HEALTH = "/v1/fleet/", "/health"
SIGNED = "--enable-supernode-auth"  # nodes have a key, and sign what they ask for
WITHOUT_NODES = ("--simulation", "--help", "-h", "--version")
SOCKETS = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))  # of this network namespace
ESTABLISHED = "01"
ROOT = 0
NO_CALLS_HOME = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",  # else ``uv sync`` at each run
}
PROJECT = Path(__file__).resolve().parents[2]
PARENT = "LEARNGENE_FEDERATION_PARENT"  # the process without which this one is not to go on


class Gate:
    """ASGI middleware: a request of another machine or user is answered with 403, but for ``open``.

    Args:
        app: what is behind it.
        open: paths that begin so are for everybody; they have an authentication of their own.
        user: the user besides root that may ask for all; default: the one that runs this.
    """

    def __init__(self, app: Any, open: tuple[str, ...], user: int | None = None) -> None:
        self._app, self._open = app, open
        self._users = {ROOT, os.getuid() if user is None else user}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan" or self._may(scope):
            await self._app(scope, receive, send)
            return
        from starlette.responses import PlainTextResponse

        said = "only for the user of this process, on its own machine"
        await PlainTextResponse(said, status_code=403)(scope, receive, send)

    def _may(self, scope: Any) -> bool:
        if scope["path"].startswith(self._open):
            return True
        client, server = scope["client"], scope["server"]
        host, here = _address(client[0]), _address(server[0])
        if not host.is_loopback and host != here:
            return False
        if not SOCKETS[0].exists():  # not Linux: said at the start
            return True
        return owner((host, client[1]), (here, server[1])) in self._users


def _address(host: str) -> IPv4Address | IPv6Address:
    address = ip_address(host)
    return getattr(address, "ipv4_mapped", None) or address


def owner(
    local: tuple[IPv4Address | IPv6Address, int], remote: tuple[IPv4Address | IPv6Address, int]
) -> int | None:
    """The user whose open socket is connected from ``local`` to ``remote``, as the kernel has it.

    None where no such socket is open any more: of one that is closed the kernel says 0.
    """
    wanted = (_as_kernel(*local), _as_kernel(*remote), ESTABLISHED)
    for table in SOCKETS:
        if table.exists():
            for line in table.read_text().splitlines()[1:]:
                fields = line.split()
                if (fields[1], fields[2], fields[3]) == wanted:
                    return int(fields[7])
    return None


def _as_kernel(address: IPv4Address | IPv6Address, port: int) -> str:
    """``0100007F:1F90`` for 127.0.0.1:8080: words of 32 bits in the machine's byte order."""
    words = (address.packed[at : at + 4] for at in range(0, len(address.packed), 4))
    return "".join(f"{int.from_bytes(w, sys.byteorder):08X}" for w in words) + f":{port:04X}"


def run_superlink(arguments: Sequence[str]) -> None:
    """``flower-superlink`` with these options, behind the gate.

    Raises:
        InputError: nodes would need no key, and what the gate leaves open would be anybody's.
    """
    if not {SIGNED, *WITHOUT_NODES} & set(arguments):
        problem = "whoever reaches the port could be a node"
        raise InputError(SIGNED, "off", problem, f"Add {SIGNED}")
    os.environ |= NO_CALLS_HOME  # read when flwr is imported
    import flwr.superlink.main as made
    from flwr.superlink.cli.flower_superlink import flower_superlink

    made.create_app = _behind_gate(made.create_app, (FLEET, HEALTH))
    _run("flower-superlink", flower_superlink, arguments)


def run_supernode(arguments: Sequence[str]) -> None:
    """``flower-supernode`` with these options, behind the gate.

    Raises:
        InputError: its ``--node-config`` is none that a client could work with, which otherwise its
            first task would show.
    """
    os.environ |= NO_CALLS_HOME
    import flwr.supernode.main as made
    from click import ClickException
    from flwr.common.config import parse_config_args
    from flwr.supernode.cli.flower_supernode import flower_supernode

    from clients.node import NodeSettings

    words = ArgumentParser(add_help=False)
    words.add_argument("--node-config")
    config = words.parse_known_args(arguments)[0].node_config
    try:
        root = NodeSettings.read(parse_config_args(config and [config])).data_root
    except ClickException as error:
        fix = 'Write words in quotes, with spaces between: partition-id=0 data-root="/their/images"'
        raise InputError("node-config", config, "Flower cannot read this", fix) from error
    if root is not None and not is_folder(expand_user(root)):
        raise InputError("data-root", root, "there is no such folder", "Name one")
    made.create_app = _behind_gate(made.create_app, (HEALTH,))
    _run("flower-supernode", flower_supernode, arguments)


def _behind_gate(create: Callable[..., Any], open: tuple[str, ...]) -> Callable[..., Any]:
    def create_app(*args: Any, **kwargs: Any) -> Any:
        app = create(*args, **kwargs)
        app.add_middleware(Gate, open=open)
        return app

    return create_app


def _first(variable: str, folder: str) -> None:
    rest = os.environ.get(variable)
    os.environ[variable] = folder if not rest else os.pathsep.join([folder, rest])


def _run(name: str, main: Callable[[], None], arguments: Sequence[str]) -> None:
    from flwr.supercore.app_utils import start_parent_process_monitor

    # Uvicorn would take the peer's address from a header that any process here can write.
    os.environ["FORWARDED_ALLOW_IPS"] = ""
    if not SOCKETS[0].exists():
        said = "users of this machine cannot be told apart here; any of them can start a run"
        print(f"{name}: {said}", file=sys.stderr)
    if (parent := os.environ.pop(PARENT, None)) is not None:
        start_parent_process_monitor(int(parent))
    # It starts its other programs by their names. What an app's bundle leaves out (reports/, with
    # its templates) is this project's, not another's that is installed.
    _first("PATH", sysconfig.get_path("scripts"))
    _first("PYTHONPATH", str(PROJECT))
    sys.argv = [name, *arguments]
    os.umask(0o077)  # a database of messages, what a client keeps to itself: for this user alone
    main()
