"""Images a second of the collective's training, as the factory does it, for several batch sizes.

    python -m benchmarks.collective_throughput [--batch 64 256 1024] [--width 1.0] [--steps 600]

On a GPU each batch size is trained with steps as they come and with steps that are recorded
(``collective.capture=off|auto``), on a CPU as they come alone. The images are noise of 32 x 32
pixels in memory: a step costs what it costs with CIFAR-100. Seconds are taken between two looks at
the loss, each of which waits for the device; the first stretch, with the recording in it, does not
count. Equal mean losses say that both ways are one training. ``--fast`` is
``runtime.deterministic=false``.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.command import above_zero, new_parser, positive
from learngene.collective.records import TrainerSettings
from learngene.collective.settings import CollectiveSettings
from learngene.collective.trainer import CollectiveTrainer
from learngene.data.dataset import HASH, ClassSplit, ImageDataset
from learngene.seeding import generator
from learngene.utils.hardware import pin_kernels
from server.factory import choose_device, choose_precision

CLASSES, IMAGES, TESTED = 8, 1280, 16  # a task; training and test images of a class
LEAST = 300  # steps


def noise() -> ImageDataset:
    """Images of one task, in memory."""
    chance = generator(0, "noise")

    def images(each: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        count = CLASSES * each
        pixels = chance.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        return pixels, np.repeat(np.arange(CLASSES), each), np.zeros(count, HASH)

    train, test = images(IMAGES), images(TESTED)
    names, split = tuple(str(c) for c in range(CLASSES)), ClassSplit(tuple(range(CLASSES)), (), ())
    return ImageDataset(
        "noise", Path(), (3, 32, 32), names, split, "", 0, 0, True, *train, *test
    )  # fmt: skip


def images_a_second(
    dataset: ImageDataset, settings: CollectiveSettings, device: torch.device
) -> tuple[float, float]:
    """Images a second behind the first look at the loss, and the mean loss at the last."""
    looks: list[tuple[float, int, float]] = []

    def watch(done: int, steps: int, loss: float) -> None:
        looks.append((time.perf_counter(), done, loss))

    asked = TrainerSettings(settings, "invariant", 1.0, calibration_per_class=0, seed=0)
    CollectiveTrainer(dataset, asked, device).run_task(watch)
    (began, before, _), (ended, done, loss) = looks[0], looks[-1]
    return (done - before) * settings.batch_size / (ended - began), loss


def main() -> int:
    parser = new_parser(__doc__)
    parser.add_argument("--batch", type=positive, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--width", type=above_zero, default=1.0)
    parser.add_argument(
        "--steps", type=int, default=600, help=f"of each training, {LEAST} at least"
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--threads", type=positive, default=torch.get_num_threads())
    asked = parser.parse_args()
    if asked.steps < LEAST:
        parser.error(f"--steps: at least {LEAST}, three looks at the loss on a GPU")

    torch.set_num_threads(asked.threads)
    device, dataset = choose_device(asked.device), noise()
    pin_kernels(device, not asked.fast)
    precision = choose_precision(asked.precision, device)
    name, ways = f"cpu, {asked.threads} threads", ["off"]
    if device.type == "cuda":
        name, ways = torch.cuda.get_device_name(device), ["off", "auto"]
    kernels = "fast" if asked.fast else "deterministic"
    print(f"{name}, torch {torch.__version__}, width {asked.width:g}, {precision}, {kernels}\n")
    print("| batch | capture | images a second | mean loss |\n|---|---|---|---|")
    for batch in asked.batch:
        settings = CollectiveSettings(
            width=asked.width,
            classes_per_task=CLASSES,
            epochs=math.ceil(asked.steps * batch / (CLASSES * IMAGES)),
            batch_size=batch,
            lr=0.01,
            precision=precision,
            device=device.type,
        )
        for capture in ways:
            rate, loss = images_a_second(dataset, replace(settings, capture=capture), device)
            print(f"| {batch} | {capture} | {rate:,.0f} | {loss:.6f} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
