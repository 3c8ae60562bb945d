"""The whole configuration: one typed, documented line per field, with its range or its choices.

Groups lie with their owners (``learngene/*/settings.py``, ``runtime/resources.py``); this module
composes them, and ``conf.validate`` checks what several fields say together. The YAML files beside
this one only override what is written here. Fields are named as on the command line:
``python sim.py num_clients=20 collective.width=0.5``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from learngene.adaptation.settings import IndividualSettings, RetainSettings
from learngene.collective.settings import CollectiveSettings
from learngene.data.settings import (
    DataSettings,
    DirichletPartition,
    SeededDataSettings,
    ShardSettings,
)
from learngene.gene.settings import PRECISIONS, LearngeneSettings
from learngene.open_world.settings import LabelledSettings, OpenWorldSettings
from learngene.utils.settings import setting
from runtime.resources import RuntimeSettings


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
    # images of a class in a client's shard; [2,5,20]: client i has entry i modulo their number
    shots: Any = setting(10, ge=1, by_client=True)
    ways: Any = setting(5, ge=2, by_client=True)  # classes of a client's shard; a list as above
    # test images of a class, which are then drawn, as the shots are, from all images of the class;
    # null = shots are training images of the data set, and all its test images are tests
    queries: int | None = setting(None, ge=1)
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
    # factory image passes of each other method; null = the collective's
    budget: int | None = setting(None, ge=1, le=1_000_000_000_000)
    # budget=null: passes (as many as the collective had) | compute (as its multiply-adds come to,
    # which in seven layers are some 1.8 times as many passes)
    budget_in: str = setting("passes", choices=("passes", "compute"))
    # fp32 | fp16 | int8: how the other methods' payloads travel
    payload_precision: str = setting("fp32", choices=PRECISIONS)
    resume: bool = True  # go on from what an earlier run with the same settings finished
    # Whom the run tells its numbers, into its folder; all but csv need the extra of that name. A
    # class of your own, or lightning's, is made as MyLogger(save_dir=...): see reports/loggers.py.
    logger: str | None = None  # null | csv | tensorboard | wandb | mlflow | my_package.MyLogger
    # folder for datasets, collectives and clients' answers; not set: LEARNGENE_CACHE, or
    # ~/.cache/learngene where that is empty, too
    cache: str = setting(MISSING, path=True)
    data: DataSettings = field(default_factory=DataSettings)
    collective: CollectiveSettings = field(default_factory=CollectiveSettings)
    learngene: LearngeneSettings = field(default_factory=LearngeneSettings)
    individual: IndividualSettings = field(default_factory=IndividualSettings)
    retain: RetainSettings = field(default_factory=RetainSettings)
    open_world: OpenWorldSettings = field(default_factory=OpenWorldSettings)
    labelled: LabelledSettings = field(default_factory=LabelledSettings)
    # Settings of methods, method.NAME.FIELD: those of NAME.py in learngene/methods/ or in its
    # federated/ (class Settings), or of a module of your own. Typed and checked when the methods
    # are known (conf/methods.py).
    method: dict[str, Any] = field(default_factory=dict)
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)
    report: ReportSettings = field(default_factory=ReportSettings)
    # a file of conf/experiment: its settings, and the rows and figure of its report; null = none
    experiment: Any = None

    @property
    def partition_seed(self) -> int:
        """What the clients' shards are drawn from."""
        return self.seed if self.shard_seed is None else self.shard_seed

    @property
    def shards(self) -> ShardSettings:
        """What determines the clients' shards."""
        data, divided = self.data, None
        if data.partition == "dirichlet":
            divided = DirichletPartition(data.alpha, self.num_clients, data.min_images)
        drawn = self.ways, self.shots, self.partition_seed
        return ShardSettings(*drawn, data.clients_from, self.labelled.draws, self.queries, divided)

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


@cache  # Hydra's store is one a process
def register_schema() -> None:
    """Make this schema the first of Hydra's defaults (``conf/config.yaml``).

    Under ``method`` any name may be set without a ``+``: which ones there are say the methods.
    """
    node = OmegaConf.structured(Config)
    node.method._set_flag("struct", False)
    ConfigStore.instance().store(name="schema", node=node)
