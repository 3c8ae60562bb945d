"""``python -m learngene COMMAND``: what one does with a learngene without a run.

Commands only read words and print; what they do is elsewhere in this package.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from learngene.errors import InputError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="What one does with a learngene without a run.",
)
OK, FAILED, WRONG_INPUT = 0, 1, 2


@app.callback()
def _commands() -> None:
    """Without it typer takes an app of one command for that command."""


@app.command()
def push(
    gene: Annotated[Path, typer.Argument(metavar="GENE", help="learngene.safetensors of a run.")],
    hub_name: Annotated[str, typer.Argument(metavar="HUB_NAME", help="OWNER/NAME on the hub.")],
    results: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="results.json of that run; default: beside GENE."),
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--license", help="As the hub calls it: apache-2.0.")
    ] = None,
    private: Annotated[bool, typer.Option(help="Of a repository that is made.")] = False,
) -> None:
    """Put a learngene on the Hugging Face hub, with a model card of the run's numbers.

    Prints the name under which learngene.load finds this very commit. The
    hub asks who you are: hf auth login, or HF_TOKEN.

    \b
    Example:
      python -m learngene push outputs/first/learngene.safetensors me/letters --license apache-2.0
    """
    from learngene.gene import hub

    print(hub.push(gene, hub_name, results=results, licence=licence, private=private))


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    try:
        answer: Any = app(args=words, prog_name="python -m learngene")
        return int(answer or OK)
    except SystemExit as end:
        return int(end.code or OK)
    except InputError as error:
        return _say(str(error), WRONG_INPUT)
    except OSError as error:
        return _say(str(error), FAILED)


def _say(message: str, code: int) -> int:
    print(f"learngene: {' '.join(message.split())}", file=sys.stderr)
    return code
