"""``python -m runtime.federation COMMAND --help``: real nodes, on this machine or on many."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from learngene.errors import InputError, RunError, say
from learngene.utils.files import NO_ROOM, no_room, sweep_temporary, temporary_name
from runtime.federation import ENDED
from runtime.federation.credentials import make_credentials
from runtime.federation.gate import run_superlink, run_supernode
from runtime.signals import Terminated, catch_signals, exit_code
from runtime.streams import steady_streams

if TYPE_CHECKING:
    from flwr.app.user_config import UserConfig

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A federation of real nodes over TLS: see it run on this machine (up), or start each of "
    "its parts where it belongs (docs/tutorials/federation.md).",
)
INTERRUPTED = "interrupted; every process of the federation is ended"
# What Flower's logger says in between, and the line before the exception of a run that failed.
FLOWERS = re.compile(r"(\x1b\[\d+m)?(DEBUG|INFO) *(\x1b\[0m)? *:|Successfully installed ")
RAISED = "ServerApp raised an exception"
THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@app.command()
def credentials(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the files go.")],
    supernodes: Annotated[int, typer.Option(min=1, help="How many nodes have a key.")] = 2,
    host: Annotated[
        list[str] | None,
        typer.Option(help="Name or address of the server, as nodes call it. May be repeated."),
    ] = None,
) -> None:
    """Make a federation's authority, server certificate and node keys.

    What is there stays, except for the server's certificate, which is made
    anew for a year: so nodes and names can be added later.

    \b
    Example:
      python -m runtime.federation credentials keys --supernodes 2 --host factory.example.org
    """
    made = make_credentials(folder.expanduser(), supernodes, host or ())
    print(made.folder)


@app.command(context_settings=THROUGH)
def superlink(context: typer.Context) -> None:
    """flower-superlink, its options, and a gate: only nodes reach it from other machines."""
    run_superlink(context.args)


@app.command(context_settings=THROUGH)
def supernode(context: typer.Context) -> None:
    """flower-supernode, its options, and a gate: only this user may ask for its tasks."""
    run_supernode(context.args)


@app.command()
def up(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- OVERRIDES...]", help="Settings of the run, as of sim.py."),
    ] = None,
    supernodes: Annotated[
        int | None, typer.Option(min=1, help="Nodes to start; default: one a --data-root, or 2.")
    ] = None,
    data_root: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIR",
            help="Class folders of the first node, second node, ... May be repeated; a node "
            "without one draws the shard that it has in a simulation.",
        ),
    ] = None,
    gpus: Annotated[
        str | None,
        typer.Option(metavar="0,1,...", help="GPUs, one a node in turn; default: each sees all."),
    ] = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Of results and logs; default: outputs/DATE/TIME."),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Keep keys and the SuperLink's database here, so that the same command goes on "
            "with the same nodes; default: they go with the run.",
        ),
    ] = None,
) -> None:
    """Run a federation of real nodes on this machine, and end with its exit code.

    A SuperLink and each node are processes of their own, over TLS and with
    registered keys. 0 all nodes answered, 1 failed, 2 wrong settings, 3 too
    few answers, 130 Ctrl-C, 143 SIGTERM.

    \b
    Example:
      python -m runtime.federation up --supernodes 2 -- scale=tiny shots=5
    """
    roots = [str(Path(each).expanduser().absolute()) for each in data_root or ()]
    nodes = supernodes or len(roots) or 2
    if len(roots) > nodes:
        raise InputError(
            "--supernodes", nodes, f"there are {len(roots)} of --data-root", "Raise it"
        )
    if missing := [each for each in roots if not Path(each).is_dir()]:
        raise InputError("--data-root", missing[0], "there is no such folder", "Name one")
    devices = [each.strip() for each in gpus.split(",")] if gpus is not None else []
    if "" in devices:
        raise InputError("--gpus", gpus, "a number is missing", "Give numbers, as 0,1")
    folder = run_dir or Path("outputs") / datetime.now().strftime("%Y-%m-%d/%H-%M-%S")
    work = _temporary() if state is None else state.expanduser()
    catch_signals("federation")
    try:
        code = _up(
            overrides or [], nodes, roots, devices, folder.expanduser().absolute(),
            work.absolute(), lasting=state is not None,
        )  # fmt: skip
    except KeyboardInterrupt as error:  # here: the library around it would make 1 of it
        which = signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT
        code = _say(INTERRUPTED, exit_code(which))
    finally:
        if state is None:
            shutil.rmtree(work, ignore_errors=True)
    raise typer.Exit(code)


def _temporary() -> Path:
    """A folder for this user alone; those of runs that were killed go, with their keys."""
    folder = temporary_name(Path(tempfile.gettempdir()) / "federation")
    sweep_temporary(folder.parent, depth=0)
    folder.mkdir(mode=0o700)
    return folder


def _up(
    overrides: list[str], nodes: int, roots: list[str], gpus: list[str], run_dir: Path, work: Path,
    *, lasting: bool,
) -> int:  # fmt: skip
    from runtime.federation.deployment import Deployment

    caches = [word.removeprefix("cache=") for word in overrides if word.startswith("cache=")]
    made, logs = make_credentials(work / "credentials", nodes), run_dir / "logs"
    print(f"  federation: {nodes} nodes, run folder {run_dir}", flush=True)
    with Deployment(made, work / "flower", logs, lasting=lasting) as federation:
        federation.start_superlink()
        for number in range(1, nodes + 1):
            federation.register(number)
            config: UserConfig = {"partition-id": number - 1, "num-partitions": nodes}
            if number <= len(roots):
                config["data-root"] = roots[number - 1]
            elif caches:  # what the run makes for these nodes lies there
                config["cache"] = caches[-1]
            federation.start_node(number, config, gpus[(number - 1) % len(gpus)] if gpus else None)
        for number in range(1, nodes + 1):
            federation.wait_online(number)
        (run_dir / ENDED).unlink(missing_ok=True)  # of an earlier run
        words = shlex.join(overrides)
        run = federation.run({"num-clients": nodes, "overrides": words, "run-dir": str(run_dir)})
        _show(federation.follow(run), logs / "server.log")
        return _code(federation.wait(run).details, run_dir)


def _show(lines: Iterator[str], log: Path) -> None:
    """Print what is the run's own; all of it goes to ``log``."""
    shown = True
    with log.open("w") as file:
        for line in lines:
            file.write(line)
            file.flush()
            shown = shown and RAISED not in line  # its exception follows, and is said below
            if shown and not FLOWERS.match(line):
                print(line, end="", flush=True)


def _code(details: str, run_dir: Path) -> int:
    """The exit code that the run wrote down; why it is not 0 is said here."""
    ended = run_dir / ENDED
    if not ended.exists():
        raise RunError(f"the run ended before it began: {details or 'no reason given'}")
    said = json.loads(ended.read_text())
    return _say(said["problem"], said["code"]) if said["problem"] else int(said["code"])


def main() -> int:
    """The command line; returns the exit code."""
    try:
        app(prog_name="python -m runtime.federation")
    except SystemExit as end:
        return int(end.code or 0)
    except InputError as error:
        return _say(str(error), 2)
    except RunError as error:
        return _say(str(error), 1)
    except OSError as error:
        if error.errno in NO_ROOM:
            return _say(no_room(error), 1)
        if error.filename is None:  # of the network: no setting is at fault
            return _say(f"{type(error).__name__}: {error}", 1)
        return _say(f"cannot use {error.filename}: {error.strerror}. Name another path", 2)
    return 0


def _say(message: str, code: int) -> int:
    return say("federation", message, code)


if __name__ == "__main__":
    steady_streams()
    sys.exit(main())
