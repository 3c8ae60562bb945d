"""Clients trained one after the other against a cohort that shares kernels (runtime=batched).

    python -m benchmarks.shared_kernels [--width 0.25] [--cohorts 8 20 64] [--epochs 3]

A client's whole work in learngene and scratch on images of noise, ms a client: what comes before
the first epoch (alone either way, the Fisher information among it), training and tests alone, and
together in both forms of a convolution (``learngene.adaptation.together.UNFOLD_ON``). On a CPU it
is processor time on one thread, which a busy machine does not change much; on a GPU wall time.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import torch

from benchmarks.command import above_zero, new_parser, positive
from learngene.adaptation import together
from learngene.adaptation.settings import IndividualSettings, RetainSettings
from learngene.adaptation.together import bytes_of, train_together
from learngene.adaptation.training import Training
from learngene.data.partition import shard_of
from learngene.gene.gene import Learngene, extract
from learngene.methods import ClientContext, find
from learngene.methods.base import generators
from learngene.networks.collective import COLLECTIVE_END, Collective
from learngene.networks.layers import scaled
from learngene.seeding import generator, torch_generator
from learngene.utils.hardware import pin_kernels

WAYS, SHOTS, TESTS, SIDE = 5, 10, 60, 32


def context(name: str, client: int, gene: Learngene, epochs: int, device: str) -> ClientContext:
    """A client of random images, with the settings of a run."""
    chance = generator(0, "noise", client=client)
    train, test = (
        chance.integers(0, 256, (WAYS * count, SIDE, SIDE, 3), dtype=np.uint8)
        for count in (SHOTS, TESTS)
    )
    labels = [np.arange(WAYS).repeat(count) for count in (SHOTS, TESTS)]
    shard = shard_of(train, labels[0], test, labels[1], device=device)
    method = find(name)
    return ClientContext(
        settings=method.settings_from({}),
        payload=gene.arrays,
        card=gene.card.for_client(),
        shard=shard.with_views(mirror=True, moved=False),
        device=torch.device(device),
        client=client,
        round=1,
        seed=0,
        generator=generators(0, name, 1, client),
        individual=IndividualSettings(epochs=epochs),
        retain=RetainSettings(),
        width=gene.card.width,
    )


def main() -> int:
    parser = new_parser(__doc__)
    parser.add_argument("--width", type=above_zero, default=0.25)
    parser.add_argument("--cohorts", type=positive, nargs="+", default=[8, 20, 64])
    parser.add_argument("--epochs", type=positive, default=3)
    parser.add_argument("--alone", type=positive, default=4, help="clients that are trained alone")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pin_kernels(torch.device(device))
    torch.set_num_threads(1)
    clock = time.perf_counter if device == "cuda" else time.process_time

    widths = scaled(COLLECTIVE_END, arguments.width)
    made = Collective(widths, WAYS, width=arguments.width, generator=torch_generator(0, "bench"))
    gene = extract(made, layers=range(1, 8), rho=[], source={}, image_side=SIDE)
    for name in ("learngene", "scratch"):

        def prepared(count: int, method: str = name) -> list[Training]:
            prepare = find(method).prepare
            assert prepare is not None
            clients = (context(method, i, gene, arguments.epochs, device) for i in range(count))
            return [prepare(client) for client in clients]

        prepared(1)[0].run()  # what is done once a process
        started = clock()
        ready = prepared(arguments.alone)
        before = 1000 * (clock() - started) / arguments.alone
        started = clock()
        alone = [training.run() for training in ready]
        each = 1000 * (clock() - started) / arguments.alone
        print(f"{name}, {device}, width {arguments.width:g}, {arguments.epochs} epochs")
        print(f"  before the first epoch {before:8.1f} ms a client")
        print(f"  alone                  {each:8.1f}   about {bytes_of(ready[0]) / 1e6:.0f} MB")
        for count in arguments.cohorts:
            for form, unfolded in (("grouped", False), ("unfolded", True)):
                together.UNFOLD_ON = (device,) if unfolded else ()
                ready = prepared(count)
                started = clock()
                shared = train_together(ready)
                took = 1000 * (clock() - started) / count
                gap = max(
                    abs(a.accuracy[-1] - b.accuracy[-1])
                    for a, b in zip(alone, shared, strict=False)
                )
                said = f"ratio {each / took:.2f}, accuracies within {100 * gap:.1f} points"
                print(f"  {count:4d} together, {form:8} {took:8.1f}   {said}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
