"""Plan a round: the task, the arrays that go with it, and what may cross."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from learngene.adaptation.settings import IndividualSettings
from learngene.errors import InputError
from learngene.gene.gene import Learngene, at_precision
from learngene.gene.quantize import pack
from learngene.methods import Payload, find
from learngene.methods.registry import base_of
from learngene.utils.settings import by_client
from protocol.guard import MessageSchema
from protocol.keys import PAYLOAD
from protocol.messages import array_record, record_bytes
from protocol.reply_schema import Shapes, reply_schema
from protocol.rounds import RoundPlan
from protocol.task import ClientTask

LAST_STEP = "client_"  # how the names of settings begin that a federated round does not read


def plan_round(
    task: ClientTask,
    gene: Learngene,
    number: int = 1,
    payloads: Mapping[str, Payload] | None = None,
    *,
    rounds: int = 1,
    precision: str = "fp32",
    payload_precision: str = "fp32",
) -> list[RoundPlan]:
    """The messages of round ``number``; client i is sent entry i modulo their number.

    Clients that take the same prefix of the learngene (``individual.depth``, ``individual.bytes``)
    have one plan. A message names the dataset's folder and holds none of its images.

    In a simulation all clients read the same cache folder, each its own shard; on real nodes the
    folder is each node's own. Before the last round only the methods that build on the collective
    are asked for: for the others nothing has changed since.

    Args:
        task: what all rounds have in common, with every method of the run.
        payloads: what methods besides the learngene send, by name.
        precision, payload_precision: of the learngene and of ``payloads``: fp32 | fp16 | int8.

    Raises:
        InputError: there is no prefix as a client asks for it.
    """
    individual, methods = task.individual, task.methods
    heirs = [name for name in methods if find(name, task.own_methods.get(name)).inherits]
    if number < rounds:
        methods = tuple(heirs)
    read = {"scratch", *map(base_of, methods)}
    made = {name: each for name, each in (payloads or {}).items() if name in methods}
    task = replace(
        task,
        methods=methods,
        # A client sees by the card what it was sent, and is not told what others take.
        individual=replace(individual, depth=None, bytes=None),
        width=gene.card.width,
        block=gene.card.block,
        # Scratch's group goes along in every message, the others' only where they are asked for.
        method={k: v for k, v in task.method.items() if k in read},
        own_methods={k: v for k, v in task.own_methods.items() if k in methods},
        cards={name: each.card for name, each in made.items()},
    )
    others = {name: pack(each.arrays, payload_precision) for name, each in made.items()}

    def plan(depth: int) -> RoundPlan:
        prefix, arrays = at_precision(gene.prefix(depth), precision)
        card = prefix.card
        own = replace(task, card=card.for_client(), image_side=card.image_side)
        sent = dict.fromkeys(heirs, arrays) | others
        shapes = {name: shapes_of(each) for name, each in sent.items()}
        if precision == "fp32":
            # From the card, not the arrays: what is sent is held against what was promised.
            said = prefix.card.shapes
            promised: Shapes = {name: ("float32", tuple(shape)) for name, shape in said.items()}
            shapes |= dict.fromkeys(heirs, promised)
        return RoundPlan(own, sent, schema=MessageSchema(shapes, reply_schema(own)))

    taken = depths_taken(gene, individual, precision) if heirs else [gene.inherited]
    plans = {depth: plan(depth) for depth in set(taken)}
    return [plans[depth] for depth in taken]


def bytes_by_depth(gene: Learngene, precision: str) -> dict[int, int]:
    """What each prefix that ``gene`` offers adds to a message, by its depth: arrays as they travel,
    with their names and framing. Settings and the card, which every method is sent, are left out.
    """
    return {
        depth: record_bytes(PAYLOAD + "learngene", array_record(pack(arrays, precision)))
        for depth in gene.card.depths
        for arrays in [gene.prefix(depth).arrays]
    }


def depths_taken(gene: Learngene, individual: IndividualSettings, precision: str) -> list[int]:
    """How many layers clients take; client i entry i modulo their number.

    Raises:
        InputError: ``individual.depth`` is none that ``gene`` offers, or no prefix is as small as
            ``individual.bytes``.
    """
    if individual.bytes is None:
        asked = by_client(individual.depth) or [gene.inherited]
        for depth in set(asked):
            gene.prefix(depth)  # which there may not be
        return asked
    sizes = bytes_by_depth(gene, precision)
    taken = []
    for most in by_client(individual.bytes):
        fitting = [depth for depth, size in sizes.items() if size <= most]
        if not fitting:
            least = min(sizes.values())
            problem = f"the smallest prefix of the learngene takes {least:,} bytes in {precision}"
            fix = f"Write individual.bytes={least} or more"
            fix += ", or learngene.precision=int8" * (precision != "int8")
            raise InputError("individual.bytes", most, problem, fix)
        taken.append(max(fitting))
    return taken


def plan_federated_round(task: ClientTask, name: str, number: int, state: Payload) -> RoundPlan:
    """The message of a federated training's round ``number``: settings and the global model."""
    own = {k: v for k, v in task.method[name].items() if not k.startswith(LAST_STEP)}
    task = replace(
        task,
        methods=(name,),
        retain=None,
        method={name: own},
        own_methods={},
        cards={name: state.card},
        federated=number,
    )
    schema = MessageSchema({name: shapes_of(state.arrays)}, reply_schema(task))
    return RoundPlan(task, {name: state.arrays}, schema=schema)


def shapes_of(arrays: Mapping[str, np.ndarray]) -> Shapes:
    """Types and shapes of arrays, by name."""
    return {name: (array.dtype.name, array.shape) for name, array in arrays.items()}
