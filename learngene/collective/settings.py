"""Settings of the collective (``collective``)."""

from __future__ import annotations

from dataclasses import dataclass

from learngene.utils.settings import setting

GROWTHS = ("none", "schedule", "equal")  # of ``growth``, which may name a file, too


@dataclass
class CollectiveSettings:
    """How the collective is trained over its sequence of tasks."""

    # scale of every width of the paper's networks (1 = 64..512 channels)
    width: float = setting(0.25, ge=0.05, le=4)
    # base classes that a task brings (the paper: 5)
    classes_per_task: int = setting(8, ge=1, le=100_000)
    # passes over a task's images, each with a share of the memory
    epochs: int = setting(10, ge=1, le=10_000)
    batch_size: int = setting(64, ge=2, le=65_536)  # images
    lr: float = setting(0.1, gt=0, le=10)  # peak learning rate of a task's schedule
    weight_decay: float = setting(5e-4, ge=0, le=1)
    label_smoothing: float = setting(0.0, ge=0, le=0.9)  # 0..1
    # rehearsal | ewc | lwf | none: what keeps classes that have gone by
    memory: str = setting("rehearsal", choices=("rehearsal", "ewc", "lwf", "none"))
    # random | herding (iCaRL's): which images rehearsal keeps
    exemplars: str = setting("random", choices=("random", "herding"))
    # stiffness that each task adds under memory=ewc (Fisher of mean 1)
    ewc_lambda: float = setting(1.0, ge=0)
    # exemplars kept of a class that has gone by, images; definition 1 has few, 100 here at most
    memory_per_class: int = setting(100, ge=0)
    # of these, seen in an epoch of a later task, images
    rehearse_per_class: int = setting(100, ge=0)
    # passes over all exemplars after the last task
    consolidate_epochs: int = setting(0, ge=0, le=10_000)
    # weight of distillation from the previous stage, 0 = none
    distill: float = setting(0.3, ge=0, le=1000)
    temperature: float = setting(2.0, ge=0.01, le=100)  # of the distillation
    # none (final widths at once) | schedule (the paper's 20 widenings) | equal (one width for all
    # layers, as many weights as the final widths have) | FILE.yaml (a plan of widenings and
    # deepenings, as conf/growth/deepen.yaml)
    growth: str = setting("none", path=True)  # none | schedule | equal | path of a plan
    # plain | residual: a layer of as many channels in as out adds its input to its output
    block: str = setting("plain", choices=("plain", "residual"))
    # of the copies of a layer or of a channel: how far from equal they begin, in sizes of the
    # weights; a copied channel's keeps the function. 1.5 is best for accuracy, but moves rho
    growth_noise: float = setting(0.01, ge=0, le=10)
    # side of the training crops in pixels; null = image_size
    train_size: int | None = setting(None, ge=32, le=512)
    # smallest side of a training crop as a share of the image; 1 = shifts only
    zoom: float = setting(1.0, ge=0.1, le=1)
    # auto (bf16 where the processor has it) | fp32 | bf16
    precision: str = setting("auto", choices=("auto", "fp32", "bf16"))
    # auto (on a GPU a step is recorded once a task and replayed) | off (as they come)
    capture: str = setting("auto", choices=("auto", "off"))
    # auto (cuda where there is one) | cpu | cuda
    device: str = setting("auto", choices=("auto", "cpu", "cuda"))
    threads: int = setting(0, ge=0, le=1024)  # CPU threads; 0 = all cores that this process may use
