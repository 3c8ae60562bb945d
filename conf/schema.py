"""The whole configuration: one typed, documented line per field; ``conf.validate`` checks it.

The YAML files beside this one only override what is written here. Fields are named as on the
command line: ``python sim.py num_clients=20 collective.width=0.5``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class Data:
    name: str = MISSING  # glyphs | cifar100 | imagenet100 | imagefolder
    root: str | None = None  # folder with the images; not used by glyphs
    download: bool = False  # ask the Hugging Face hub when root is not given
    image_size: int | None = None  # side in pixels; null keeps the source's (imagefolder needs one)
    classes: int = 100  # glyphs: number of classes
    train_per_class: int = 100  # glyphs: training images of a class
    test_per_class: int = 60  # glyphs: test images of a class
    base: float = 0.64  # glyphs, imagefolder: share of the classes that are base
    open_world: float = 0.16  # glyphs, imagefolder: share that is open-world
    novel: float = 0.20  # glyphs, imagefolder: share that is novel
    test_share: float = 0.2  # imagefolder without train/ and test/: share of images that is test
    clients_from: str = "novel"  # novel | open_world: the classes that clients hold


@dataclass
class Collective:
    width: float = 0.25  # scale of every width of the paper's networks (1 = 64..512 channels)
    classes_per_task: int = 8  # base classes that a task brings (the paper: 5)
    epochs: int = 4  # passes over a task's images, each with a share of the memory
    batch_size: int = 64  # images
    light_steps: int = 3  # batches of the light path for each one that all 13 layers see, too
    lr: float = 0.05  # peak learning rate of a task's schedule
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0  # 0..1
    memory: str = "rehearsal"  # rehearsal | ewc | lwf | none: what keeps classes that have gone by
    exemplars: str = "random"  # random | herding (iCaRL's): which images rehearsal keeps
    ewc_lambda: float = 1.0  # stiffness that each task adds under memory=ewc (Fisher of mean 1)
    memory_per_class: int = 300  # exemplars kept of a class that has gone by, images
    rehearse_per_class: int = 100  # of these, seen in an epoch of a later task, images
    consolidate_epochs: int = 16  # passes over all exemplars after the last task
    distill: float = 1.0  # weight of distillation from the previous stage, 0 = none
    temperature: float = 2.0  # of the distillation
    # schedule (the paper's 20 widenings) | none (final widths at once) | equal (one width for all
    # layers, as many weights as the final widths have) | FILE.yaml (a plan of widenings and
    # deepenings, as conf/growth/deepen.yaml)
    growth: str = "schedule"  # schedule | none | equal | path of a plan
    growth_noise: float = 0.01  # of a copied filter, in units of its standard deviation
    train_size: int | None = None  # side of the training crops in pixels; null = image_size
    zoom: float = 1.0  # smallest side of a training crop as a share of the image; 1 = shifts only
    precision: str = "auto"  # auto (bf16 where the processor has it) | fp32 | bf16
    device: str = "auto"  # auto (cuda where there is one) | cpu | cuda
    threads: int = 0  # CPU threads; 0 = all cores that this process may use


@dataclass
class Learngene:
    layers: Any = 3  # inherited: 3 (the top three) | [5,6,7] (these, counted from 1) | auto (rule)
    path: str | None = None  # start clients from this learngene.safetensors, without any collective
    precision: str = "fp32"  # fp32 | fp16 | int8 (a scale a channel): how it is sent to clients
    sigma: float = 1e-3  # Eq. 5: a gradient above this is large
    auto_layers: int = 3  # rule (learngene.collective.criterion.TrendRule): layers at most
    auto_bar: float = 0.5  # rule: fall less unsteadiness of rho above which a layer is wanted
    auto_large: float = 0.1  # rule: an early rho below this is not large


@dataclass
class Individual:
    stem: str = "separable"  # separable | seeded | whole | fresh (the paper to the letter)
    head: str = "prototype"  # prototype | mlp (the paper's fully connected layers)
    epochs: int = 30  # passes over the shard, for every method
    batch_size: int = 32  # images
    lr: float = 0.002  # of stem and head (the paper: 0.005)
    inherited_lr: float = 0.002  # of the inherited layers
    schedule: str = "cosine"  # cosine | constant
    momentum: float = 0.9
    weight_decay: float = 5e-4
    augment: bool = True  # shifted crops, and flips where the world allows them
    eval_every: int = 10  # epochs between tests; the first and the last are always tested
    safeguard: bool = False  # cross-validate the learngene against scratch; fall back if it hurts
    safeguard_folds: int = 3  # of that cross-validation; each class needs as many images
    safeguard_epochs: int | None = None  # passes in each fold, for both; null = epochs


@dataclass
class Retain:
    ewc_lambda: float = 1.0  # Eq. 9's lambda, on the scale that normalise gives (the paper: 1000)
    normalise: bool = True  # scale the Fisher diagonal to mean 1, which gives ewc_lambda a scale
    fisher_samples: int = 128  # images of the shard, at most
    labels: str = "exact"  # exact (Eq. 7: expectation over the model's labels) | true (the shard's)


@dataclass
class OpenWorld:
    score: str = "max_softmax"  # (Eq. 2) | max_logit | energy | mahalanobis | relative_mahalanobis
    path: str = "collective"  # which answers: collective (13 layers) | light | both (their mean)
    mirror: bool = False  # mean answers of an image and its mirror image (where they are one class)
    threshold: Any = "calibrated"  # (by accept) | paper_cifar100 | paper_imagenet100 | a number
    accept: float = 0.95  # share of known images that the calibrated threshold accepts
    calibration_per_class: int = 10  # base images of a class held out for it, never trained on
    cycles: int = 0  # streams that the finished collective meets and learns new classes from
    labels_per_cycle: int = 400  # budget of the labeller, images
    classes_per_cycle: int = 8  # M: new classes that a cycle takes in, at most
    images_to_add: int = 10  # labelled images that a class needs to be taken in
    known_share: float = 0.5  # of a stream's images that are of base classes
    cycle_consolidate_epochs: int = 4  # passes over all exemplars after each cycle


@dataclass
class Labelled:
    # Draws of ``ways`` open-world classes (table 2): clients hold images that the collective called
    # unknown and a labeller named, and client i belongs to draw i modulo draws. 0 = shards are
    # drawn from all images.
    draws: int = 0  # at most num_clients


@dataclass
class Scratch:
    lr: float = 0.01
    schedule: str = "cosine"  # cosine | constant
    head: str = "prototype"  # prototype | mlp
    stem: str = "whole"  # whole | separable


@dataclass
class Maml:
    lr: float = 0.0005  # peak learning rate of the start (Adam)
    inner_lr: float = 0.01  # of a step on a task's support, at the factory and at the client
    steps: int = 1  # on a task's support, at the factory
    tasks: int = 4  # tasks of a step of the start
    shots: int = 2  # support images of a class, at the factory
    queries: int = 10  # query images of a class
    client_steps: int = 20  # on the whole shard


@dataclass
class Fomaml(Maml):
    lr: float = 0.001
    inner_lr: float = 0.02  # these as Maml's, with values of its own from its own trials
    tasks: int = 1  # tasks of a step of the start
    shots: int = 3  # support images of a class, at the factory
    queries: int = 5  # query images of a class


@dataclass
class ProtoMaml(Maml):
    steps: int = 2  # on a task's support, at the factory
    tasks: int = 2  # tasks of a step of the start
    client_steps: int = 50  # on the whole shard


@dataclass
class ProtoNet:
    lr: float = 0.001  # peak learning rate (Adam)
    ways: int = 16  # base classes of an episode
    shots: int = 10  # support images of a class
    queries: int = 5  # query images of a class


@dataclass
class MatchingNet(ProtoNet):
    lr: float = 0.002
    shots: int = 2  # support images of a class
    scale: float = 50.0  # of the cosines before the softmax


@dataclass
class Finetune:
    lr: float = 0.001  # peak learning rate at the factory (Adam)
    batch_size: int = 32  # images
    weight_decay: float = 0.0
    client_lr: float = 0.05  # of the new classifier
    client_body_lr: float = 0.002  # of the seven layers; 0 = frozen, as in the paper


@dataclass
class FinetunePp(Finetune):
    lr: float = 0.002  # peak learning rate at the factory (Adam)
    weight_decay: float = 1e-4
    client_lr: float = 0.05  # of the new cosine classifier
    client_body_lr: float = 0.0  # frozen


@dataclass
class DeepEmd:
    lr: float = 0.001  # peak learning rate of the first phase (Adam): all base classes
    batch_size: int = 32  # images
    weight_decay: float = 0.0
    class_share: float = 0.8  # of the budget that the first phase takes
    episode_lr: float = 1e-4  # peak learning rate of the second phase (Adam): 1-shot episodes
    ways: int = 5  # base classes of an episode
    queries: int = 5  # query images of a class
    side: int = 4  # parts of an image: side x side at most
    temperature: float = 25.0  # factor from similarity to logit
    client_lr: float = 0.1  # of the structured classifier
    client_steps: int = 0  # of the structured classifier; 0 = the class means as they are
    client_batch: int = 10  # images of such a step


@dataclass
class Full:
    client_lr: float = 0.0005  # of the classifier
    client_body_lr: float = 0.0005  # of the 13 layers


@dataclass
class LinearProbe:
    client_lr: float = 0.01  # of the classifier


@dataclass
class FedAvg:
    rounds: int = 10  # of federated training, before a client makes the model its own
    local_epochs: int = 3  # passes over the shard in a round
    lr: float = 0.02  # at the clients, in the first round; half a cosine over the rounds
    client_lr: float = 0.002  # of the new classifier, when a client makes the model its own
    client_body_lr: float = 0.002  # of the seven layers, then; 0 = frozen


@dataclass
class FedProx(FedAvg):
    local_epochs: int = 5  # passes over the shard in a round
    client_body_lr: float = 0.0005  # of the seven layers, then; 0 = frozen
    mu: float = 0.01  # of the proximal term mu/2 ||w - w_global||^2


@dataclass
class Methods:
    scratch: Scratch = field(default_factory=Scratch)
    maml: Maml = field(default_factory=Maml)
    fomaml: Fomaml = field(default_factory=Fomaml)
    protonet: ProtoNet = field(default_factory=ProtoNet)
    proto_maml: ProtoMaml = field(default_factory=ProtoMaml)
    matchingnet: MatchingNet = field(default_factory=MatchingNet)
    finetune: Finetune = field(default_factory=Finetune)
    finetune_pp: FinetunePp = field(default_factory=FinetunePp)
    deepemd: DeepEmd = field(default_factory=DeepEmd)
    full: Full = field(default_factory=Full)
    linear_probe: LinearProbe = field(default_factory=LinearProbe)
    fedavg: FedAvg = field(default_factory=FedAvg)
    fedprox: FedProx = field(default_factory=FedProx)
    # Settings of methods of your own, as +method.own.my_method.lr=0.1 (conf/plugins.py)
    own: dict[str, Any] = field(default_factory=dict)  # of each, by the last part of its module


@dataclass
class Runtime:
    name: str = MISSING  # ray | serial
    timeout_s: float = 3600.0  # a round's deadline for answers, seconds
    # One client's own time: a longer one has failed, and its worker is free for the next. Without
    # it a client that hangs keeps its worker until the round's deadline.
    client_timeout_s: float | None = None  # seconds; null = only the round's deadline
    min_answered: int | None = None  # fewer clients than this is exit code 3; null = all
    num_cpus: float = 1.0  # cores of one client, fractions allowed; also its threads
    num_gpus: float | None = None  # GPUs that a client holds; null = 1 where there is one, else 0
    total_cpus: int | None = None  # cores that Ray may use; null = all
    total_gpus: int | None = None  # GPUs that Ray may use; null = all
    address: str | None = None  # join this Ray cluster; null = a new one on this machine


@dataclass
class Report:
    gradcam_images: int = 6  # test images of unknown classes in figures/gradcam.png; 0 = none


@dataclass
class Config:
    num_clients: int = 20  # micro-institutions
    seed: int = 0  # everything is drawn from it
    shard_seed: int | None = None  # clients' shards; null = seed
    shots: int = 10  # images of a class in a client's shard
    ways: int = 5  # classes of a client's shard
    rounds: int = 1  # points of the collective's evolution at which clients reconstruct
    scale: str = "cpu"  # which conf/scale file set the sizes
    # Names of learngene/methods/, or modules of your own with a METHOD: [..., my_package.my_method]
    methods: list[str] = field(default_factory=lambda: ["learngene", "scratch"])
    # To see what a run makes of failures: [CLIENT:KIND, ...], as in faults=[3:raise,5:kill_once].
    # After an epoch of training (the first, or faults=[5:kill_once@2]): kill_once (the process
    # dies, and its work is repeated), kill_always, raise, hang (never ends). In the answer: none
    # (there is none), nan, inf, shape (curves of unequal length), other_client (another's id).
    # runtime=serial has one process, the driver's: there a kill is a death that is only raised.
    faults: list[str] = field(default_factory=list)  # CLIENT:KIND or CLIENT:KIND@EPOCH
    budget: int | None = None  # factory image passes of each other method; null = the light path's
    payload_precision: str = "fp32"  # fp32 | fp16 | int8: how the other methods' payloads travel
    resume: bool = True  # go on from what an earlier run with the same settings finished
    # TensorBoard in the run folder (pip install tensorboard), or a class of your own with scalars()
    # and close(), made as MyLogger(run_dir, config): see reports/loggers.py.
    logger: str | None = None  # null | tensorboard | my_package.MyLogger
    cache: str = MISSING  # folder for worlds, collectives and clients' answers
    data: Data = field(default_factory=Data)
    collective: Collective = field(default_factory=Collective)
    learngene: Learngene = field(default_factory=Learngene)
    individual: Individual = field(default_factory=Individual)
    retain: Retain = field(default_factory=Retain)
    open_world: OpenWorld = field(default_factory=OpenWorld)
    labelled: Labelled = field(default_factory=Labelled)
    method: Methods = field(default_factory=Methods)
    runtime: Runtime = field(default_factory=Runtime)
    report: Report = field(default_factory=Report)
    experiment: Any = None
