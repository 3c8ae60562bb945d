"""``python -m learngene COMMAND``: a client's work by hand, without Flower.

Commands only read words and print; what they do is in ``learngene.api`` and ``learngene.export``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from learngene.errors import InputError, say

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="What one does with a learngene without a run: adapt it to images of one's own, name "
    "images with what came of it, take that to another runtime; put a learngene on the hub.",
)
WORDS = {  # a run's words for what is here
    "data.root": "IMAGES",
    "data.test_share": "--test-share",
    "data.value_range": "--value-range",
}
Made = Annotated[
    Path, typer.Argument(metavar="INDIVIDUAL", help="The .safetensors that adapt or a node kept.")
]


@app.command()
def adapt(
    gene: Annotated[Path, typer.Argument(metavar="GENE", help="learngene.safetensors of a run.")],
    images: Annotated[
        Path,
        typer.Argument(metavar="IMAGES", help="Folder of CLASS/*, or of train/CLASS/* and test/."),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SETTING=VALUE...]", help="As of a run: individual.epochs=60."),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="INDIVIDUAL", help="Where to write.")
    ] = Path("individual.safetensors"),
    seed: Annotated[int, typer.Option(help="The run's: of all that is drawn in training.")] = 0,
    client: Annotated[int, typer.Option(help="Which client of the run this stands for.")] = 0,
    split_seed: Annotated[int, typer.Option(help="Of the split, where there is no train/.")] = 0,
    test_share: Annotated[float, typer.Option(help="Of each class, as above.")] = 0.2,
    value_range: Annotated[
        str | None, typer.Option(help="[LOW,HIGH] of images of more than 8 bits: become 0 and 255.")
    ] = None,
    flip: Annotated[bool, typer.Option(help="A mirrored image keeps its class.")] = True,
    threads: Annotated[int, typer.Option(min=1, help="Of torch.")] = 1,
) -> None:
    """Build an individual around a learngene and train it on images of one's own.

    It is what a client does, and gives the numbers of a node with these
    images, settings and seeds.

    \b
    Example:
      python -m learngene adapt outputs/first/learngene.safetensors mine -o me.safetensors
    """
    from learngene.api import adapt_folder, settings_from
    from learngene.data.settings import range_in
    from learngene.gene.gene import load
    from learngene.gene.kept import check_path, save_individual
    from learngene.utils.hardware import torch_threads

    individual, retain = settings_from(settings or ())
    out = check_path(out)
    with torch_threads(threads):
        kept, outcome, notes = adapt_folder(
            load(gene),
            images,
            seed=seed,
            client=client,
            split_seed=split_seed,
            test_share=test_share,
            value_range=range_in(value_range),
            flip=flip,
            individual=individual,
            retain=retain,
        )
    for note in notes:
        print(note)
    card = kept.card
    print(f"{len(card.class_names)} classes, {card.train_images} training images")
    print(f"accuracy on {card.test_images} test images: {outcome.accuracy[-1]:.4f}")
    print(save_individual(kept, out))


@app.command()
def predict(
    individual: Made,
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGES...", help="Image files, or folders of them.")
    ],
) -> None:
    """Name images, one a line: file, class, probability.

    \b
    Example:
      python -m learngene predict me.safetensors mine/test
    """
    from learngene.api import name_files
    from learngene.gene.kept import load_individual

    for file, name, probability in name_files(load_individual(individual), images):
        print(f"{file}\t{name}\t{probability:.4f}")


@app.command()
def export(
    individual: Made,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help=".onnx, or .pt2 of torch.export.")
    ],
    images: Annotated[
        list[Path] | None,
        typer.Option(help="Files or folders to hold both against; none: images of noise."),
    ] = None,
) -> None:
    """Write an individual for another runtime, and hold what was written against it.

    The exported network takes pixel values 0 to 255, (N, channels, side,
    side) float32, and gives probabilities. Its exit code is 1, and there is
    no file, where it names an image otherwise.

    \b
    Example:
      python -m learngene export me.safetensors -o me.onnx --images mine/test
    """
    from learngene.export import export_individual
    from learngene.gene.kept import load_individual

    done = export_individual(load_individual(individual), out, images or ())
    print(f"{done.images} images: same class of all, probabilities differ by {done.difference:.1e}")
    print(f"{done.milliseconds:.2f} ms an image, alone; {done.reference:.2f} ms before")
    print(f"{out} ({done.bytes:,} bytes)")


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


def main(words: Sequence[str]) -> int:
    """The command line; returns the exit code: 2 where something named cannot be used."""
    from learngene.export import ExportError

    try:
        app(list(words), prog_name="python -m learngene")
    except SystemExit as end:
        return int(end.code or 0)
    except InputError as error:
        return say("learngene", _in_our_words(error), 2)
    except (ExportError, ArithmeticError, OSError) as error:
        return say("learngene", _in_our_words(error), 1)
    return 0


def _in_our_words(error: Exception) -> str:
    said = str(error)
    for run, here in WORDS.items():
        said = said.replace(run, here)
    return said
