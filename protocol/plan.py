"""Plan a round: the task, the arrays that go with it, and what may cross."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from learngene.gene.gene import Learngene
from learngene.gene.quantize import at_precision, pack
from learngene.methods import Payload, find
from learngene.methods.registry import base_of
from protocol.guard import MessageSchema
from protocol.reply_schema import Shapes, reply_schema
from protocol.rounds import RoundPlan
from protocol.task import TASK_FIELDS, ClientTask

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
) -> RoundPlan:
    """The message of round ``number``. It names the dataset's folder and holds none of its images.

    In a simulation all clients read the same cache folder, each its own shard; on real nodes the
    folder is each node's own. Before the last round only the methods that build on the collective
    are asked for: for the others nothing has changed since.

    Args:
        task: what all rounds have in common, with every method of the run.
        payloads: what methods besides the learngene send, by name.
        precision, payload_precision: of the learngene and of ``payloads``: fp32 | fp16 | int8.
    """
    gene, arrays = at_precision(gene, precision)
    methods = task.methods
    heirs = [name for name in methods if find(name, task.own_methods.get(name)).inherits]
    if number < rounds:
        methods = tuple(heirs)
    read = {"scratch", *map(base_of, methods)}
    made = {name: each for name, each in (payloads or {}).items() if name in methods}
    task = replace(
        task,
        methods=methods,
        width=gene.card.width,
        # Scratch's group goes along in every message, the others' only where they are asked for.
        method={k: v for k, v in task.method.items() if k in read},
        card=gene.card.for_client(),
        own_methods={k: v for k, v in task.own_methods.items() if k in methods},
        cards={name: each.card for name, each in made.items()},
    )
    sent = {name: pack(each.arrays, payload_precision) for name, each in made.items()}
    sent = dict.fromkeys(heirs, arrays) | sent
    shapes = {name: shapes_of(each) for name, each in sent.items()}
    if precision == "fp32":
        # From the card, not from the arrays: what is sent is held against what was promised.
        promised = {name: ("float32", tuple(shape)) for name, shape in gene.card.shapes.items()}
        shapes |= dict.fromkeys(heirs, promised)
    return RoundPlan(task, sent, schema=message_schema(task, shapes))


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
    sent = {name: state.arrays}
    return RoundPlan(task, sent, schema=message_schema(task, {name: shapes_of(state.arrays)}))


def shapes_of(arrays: Mapping[str, np.ndarray]) -> Shapes:
    """Types and shapes of arrays, by name."""
    return {name: (array.dtype.name, array.shape) for name, array in arrays.items()}


def message_schema(task: ClientTask, payloads: Mapping[str, Shapes]) -> MessageSchema:
    """All that may cross in a round with this task and these arrays, by method."""
    return MessageSchema(TASK_FIELDS, payloads, reply_schema(task))
