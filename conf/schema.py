"""The whole configuration: one typed, documented line per field, with its range or its choices.

Groups lie with their owners (``learngene/*/settings.py``, ``runtime/resources.py``); this module
composes them, and ``conf.validate`` checks what several fields say together. The YAML files beside
this one only override what is written here. Fields are named as on the command line:
``python sim.py num_clients=20 collective.width=0.5``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from omegaconf import MISSING, OmegaConf

from learngene.adaptation.settings import IndividualSettings, RetainSettings
from learngene.collective.settings import CollectiveSettings
from learngene.data.settings import DataSettings, SeededDataSettings, ShardSettings
from learngene.gene.settings import LearngeneSettings
from learngene.open_world.settings import LabelledSettings, OpenWorldSettings
from learngene.utils.settings import setting
from runtime.resources import RuntimeSettings


@dataclass
class Scratch:
    lr: float = setting(0.01, gt=0, le=10)
    schedule: str = setting("cosine", choices=("cosine", "constant"))  # cosine | constant
    head: str = setting("prototype", choices=("prototype", "mlp"))  # prototype | mlp
    stem: str = setting("whole", choices=("separable", "whole"))  # whole | separable


@dataclass
class Maml:
    lr: float = setting(0.0005, gt=0, le=10)  # peak learning rate of the start (Adam)
    # of a step on a task's support, at the factory and at the client
    inner_lr: float = setting(0.01, gt=0, le=10)
    steps: int = setting(1, ge=1, le=100)  # on a task's support, at the factory
    tasks: int = setting(4, ge=1, le=1000)  # tasks of a step of the start
    shots: int = setting(2, ge=1, le=1000)  # support images of a class, at the factory
    queries: int = setting(10, ge=1, le=1000)  # query images of a class
    client_steps: int = setting(20, ge=0, le=10_000)  # on the whole shard


@dataclass
class Fomaml(Maml):
    lr: float = setting(0.001, gt=0, le=10)
    # these as Maml's, with values of its own from its own trials
    inner_lr: float = setting(0.02, gt=0, le=10)
    tasks: int = setting(1, ge=1, le=1000)  # tasks of a step of the start
    shots: int = setting(3, ge=1, le=1000)  # support images of a class, at the factory
    queries: int = setting(5, ge=1, le=1000)  # query images of a class


@dataclass
class ProtoMaml(Maml):
    steps: int = setting(2, ge=1, le=100)  # on a task's support, at the factory
    tasks: int = setting(2, ge=1, le=1000)  # tasks of a step of the start
    client_steps: int = setting(50, ge=0, le=10_000)  # on the whole shard


@dataclass
class ProtoNet:
    lr: float = setting(0.001, gt=0, le=10)  # peak learning rate (Adam)
    ways: int = setting(16, ge=2, le=1000)  # base classes of an episode
    shots: int = setting(10, ge=1, le=1000)  # support images of a class
    queries: int = setting(5, ge=1, le=1000)  # query images of a class


@dataclass
class MatchingNet(ProtoNet):
    lr: float = setting(0.002, gt=0, le=10)
    shots: int = setting(2, ge=1, le=1000)  # support images of a class
    scale: float = setting(50.0, gt=0, le=1000)  # of the cosines before the softmax


@dataclass
class Finetune:
    lr: float = setting(0.001, gt=0, le=10)  # peak learning rate at the factory (Adam)
    batch_size: int = setting(32, ge=2, le=65_536)  # images
    weight_decay: float = setting(0.0, ge=0, le=1)
    client_lr: float = setting(0.05, gt=0, le=10)  # of the new classifier
    # of the seven layers; 0 = frozen, as in the paper
    client_body_lr: float = setting(0.002, ge=0, le=10)


@dataclass
class FinetunePp(Finetune):
    lr: float = setting(0.002, gt=0, le=10)  # peak learning rate at the factory (Adam)
    weight_decay: float = setting(1e-4, ge=0, le=1)
    client_lr: float = setting(0.05, gt=0, le=10)  # of the new cosine classifier
    client_body_lr: float = setting(0.0, ge=0, le=10)  # frozen


@dataclass
class DeepEmd:
    # peak learning rate of the first phase (Adam): all base classes
    lr: float = setting(0.001, gt=0, le=10)
    batch_size: int = setting(32, ge=2, le=65_536)  # images
    weight_decay: float = setting(0.0, ge=0, le=1)
    class_share: float = setting(0.8, ge=0, le=1)  # of the budget that the first phase takes
    # peak learning rate of the second phase (Adam): 1-shot episodes
    episode_lr: float = setting(1e-4, gt=0, le=10)
    ways: int = setting(5, ge=2, le=1000)  # base classes of an episode
    queries: int = setting(5, ge=1, le=1000)  # query images of a class
    side: int = setting(4, ge=1, le=16)  # parts of an image: side x side at most
    temperature: float = setting(25.0, gt=0, le=1000)  # factor from similarity to logit
    client_lr: float = setting(0.1, gt=0, le=100)  # of the structured classifier
    # of the structured classifier; 0 = the class means as they are
    client_steps: int = setting(0, ge=0, le=10_000)
    client_batch: int = setting(10, ge=1, le=65_536)  # images of such a step


@dataclass
class Full:
    client_lr: float = setting(0.0005, gt=0, le=10)  # of the classifier
    client_body_lr: float = setting(0.0005, ge=0, le=10)  # of the 13 layers


@dataclass
class LinearProbe:
    client_lr: float = setting(0.01, gt=0, le=10)  # of the classifier


@dataclass
class FedAvg:
    # of federated training, before a client makes the model its own
    rounds: int = setting(10, ge=1, le=10_000)
    local_epochs: int = setting(3, ge=1, le=1000)  # passes over the shard in a round
    # at the clients, in the first round; half a cosine over the rounds
    lr: float = setting(0.02, gt=0, le=10)
    # of the new classifier, when a client makes the model its own
    client_lr: float = setting(0.002, gt=0, le=10)
    client_body_lr: float = setting(0.002, ge=0, le=10)  # of the seven layers, then; 0 = frozen


@dataclass
class FedProx(FedAvg):
    local_epochs: int = setting(5, ge=1, le=1000)  # passes over the shard in a round
    client_body_lr: float = setting(0.0005, ge=0, le=10)  # of the seven layers, then; 0 = frozen
    mu: float = setting(0.01, ge=0, le=1000)  # of the proximal term mu/2 ||w - w_global||^2


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
class ReportSettings:
    """What the report shows."""

    # test images of unknown classes in figures/gradcam.png; 0 = none
    gradcam_images: int = setting(6, ge=0, le=12)


@dataclass
class Config:
    num_clients: int = setting(20, ge=1, le=100_000)  # micro-institutions
    seed: int = setting(0, ge=0, le=2**63 - 1)  # everything is drawn from it
    shard_seed: int | None = setting(None, ge=0, le=2**63 - 1)  # clients' shards; null = seed
    shots: int = setting(10, ge=1)  # images of a class in a client's shard
    ways: int = setting(5, ge=2)  # classes of a client's shard
    # points of the collective's evolution at which clients reconstruct
    rounds: int = setting(1, ge=1, le=10_000)
    scale: str = "cpu"  # which conf/scale file set the sizes
    # Names of learngene/methods/, or modules of your own with a METHOD: [..., my_package.my_method]
    methods: list[str] = field(default_factory=lambda: ["learngene", "scratch"])
    # To see what a run makes of failures: [CLIENT:KIND, ...], as in faults=[3:raise,5:kill_once].
    # After an epoch of training (the first, or faults=[5:kill_once@2]): kill_once (the process
    # dies, and its work is repeated), kill_always, raise, hang (never ends). In the answer: none
    # (there is none), nan, inf, shape (curves of unequal length), other_client (another's id).
    # runtime=serial has one process, the driver's: there a kill is a death that is only raised.
    faults: list[str] = field(default_factory=list)  # CLIENT:KIND or CLIENT:KIND@EPOCH
    # factory image passes of each other method; null = the light path's
    budget: int | None = setting(None, ge=1, le=1_000_000_000_000)
    # fp32 | fp16 | int8: how the other methods' payloads travel
    payload_precision: str = setting("fp32", choices=("fp32", "fp16", "int8"))
    resume: bool = True  # go on from what an earlier run with the same settings finished
    # TensorBoard in the run folder (pip install tensorboard), or a class of your own with scalars()
    # and close(), made as MyLogger(run_dir, config): see reports/loggers.py.
    logger: str | None = None  # null | tensorboard | my_package.MyLogger
    cache: str = MISSING  # folder for worlds, collectives and clients' answers
    data: DataSettings = field(default_factory=DataSettings)
    collective: CollectiveSettings = field(default_factory=CollectiveSettings)
    learngene: LearngeneSettings = field(default_factory=LearngeneSettings)
    individual: IndividualSettings = field(default_factory=IndividualSettings)
    retain: RetainSettings = field(default_factory=RetainSettings)
    open_world: OpenWorldSettings = field(default_factory=OpenWorldSettings)
    labelled: LabelledSettings = field(default_factory=LabelledSettings)
    method: Methods = field(default_factory=Methods)
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)
    report: ReportSettings = field(default_factory=ReportSettings)
    experiment: Any = None

    @property
    def partition_seed(self) -> int:
        """What the clients' shards are drawn from."""
        return self.seed if self.shard_seed is None else self.shard_seed

    @property
    def shards(self) -> ShardSettings:
        """What determines the clients' shards."""
        return ShardSettings(
            self.ways, self.shots, self.partition_seed, self.data.clients_from, self.labelled.draws
        )

    @property
    def dataset(self) -> SeededDataSettings:
        """What determines the dataset."""
        return SeededDataSettings(**asdict(self.data), seed=self.seed)

    @property
    def least_answers(self) -> int:
        """``runtime.min_answered``; all clients where it is not set."""
        least = self.runtime.min_answered
        return self.num_clients if least is None else least


def read_config(plain: Mapping[str, Any]) -> Config:
    """The configuration that ``run.config`` of a ``results.json`` holds."""
    known = {name: value for name, value in plain.items() if name != "own_methods"}
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), known))
    assert isinstance(config, Config)
    return config
