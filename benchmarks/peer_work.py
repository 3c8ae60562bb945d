"""One work, done here and by two peers: clients that train seven layers on 50 images each.

What is trained is the same everywhere and imported from here: images, network, optimiser, batches,
epochs and the two tests. Around it stands what each library's own quickstart has: messages, one
round, the average of the weights. ``benchmarks.peers`` runs and times these as processes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from learngene.adaptation.settings import IndividualSettings
from learngene.adaptation.training import decay_groups, measure
from learngene.data.dataset import load
from learngene.data.partition import ShardData, draw_shard, read_shard
from learngene.data.settings import ShardSettings
from learngene.networks.individual import Individual

if TYPE_CHECKING:
    from flwr.app import Context, Message
    from flwr.serverapp import Grid

SEED, WAYS, SHOTS, WIDTH, LR, MOST_NORM = 0, 5, 10, 0.25, 0.01, 5.0
# Nothing that a peer's quickstart has not: no augmentation, no schedule, no learngene.
TRAINING = IndividualSettings(
    epochs=30, batch_size=25, eval_every=30, augment=False, mirror_test=False, lr=LR,
    schedule="constant", head="mlp",
)  # fmt: skip
VARIABLE = "PEER_WORK"


@dataclass(frozen=True)
class Asked:
    """How much of it; all processes of a run read it from their environment."""

    world: str  # the dataset's folder in the cache
    clients: int
    processes: int

    @classmethod
    def read(cls) -> Asked:
        return cls(**json.loads(os.environ[VARIABLE]))

    def variable(self) -> dict[str, str]:
        return {VARIABLE: json.dumps(asdict(self))}


# -- what is trained -------------------------------------------------------------------------------


def shard(client: int) -> ShardData:
    """50 training images and the test images of their classes."""
    dataset = load(Asked.read().world)
    drawn = draw_shard(dataset, ShardSettings(WAYS, SHOTS, seed=SEED), client)
    return read_shard(dataset, drawn, torch.device("cpu"))


def network() -> Individual:
    """The seven layers with the paper's classifier, from one seed."""
    channels = load(Asked.read().world).image_shape[0]
    generator = torch.Generator().manual_seed(SEED)
    made = Individual(ways=WAYS, width=WIDTH, head="mlp", generator=generator, channels=channels)
    return made.to(memory_format=torch.channels_last)


def optimiser(parameters: Any, lr: float = LR) -> torch.optim.SGD:
    """SGD as clients have it."""
    groups = decay_groups(parameters, TRAINING.weight_decay)
    return torch.optim.SGD(groups, lr=lr, momentum=TRAINING.momentum)


def tested(net: torch.nn.Module, data: ShardData) -> float:
    """Accuracy on the test images."""
    net.eval()
    return measure(net, data.test_x, data.test_y)[0]


def train_plainly(net: Individual, data: ShardData) -> float:
    """The loop of a quickstart; gives the accuracy of the trained network."""
    tested(net, data)
    steps = optimiser(net.parameters())
    for _ in range(TRAINING.epochs):
        net.train()
        for batch in torch.randperm(len(data.train_x)).split(TRAINING.batch_size):
            loss = F.cross_entropy(net(data.train_x[batch]), data.train_y[batch])
            steps.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), MOST_NORM)
            steps.step()
    return tested(net, data)


# -- here ------------------------------------------------------------------------------------------


def here(runtime: str) -> list[float]:
    """``runtime`` of this project, the method scratch: messages, guard and accounts as in a run."""
    from protocol.guard import MessageSchema
    from protocol.reply_schema import reply_schema
    from protocol.rounds import RoundPlan
    from protocol.task import ClientTask
    from runtime.ray_backend import simulate
    from runtime.resources import RuntimeSettings
    from strategies.learngene import LearngeneStrategy

    asked = Asked.read()
    settings = {"scratch": {"lr": LR, "schedule": "constant", "head": "mlp"}}
    task = ClientTask(
        world=asked.world, methods=("scratch",), seed=SEED, shard_seed=SEED, ways=WAYS, shots=SHOTS,
        classes_from="novel", threads=1, width=WIDTH, individual=TRAINING, method=settings,
    )  # fmt: skip
    plan = RoundPlan(task, schema=MessageSchema({}, reply_schema(task)))
    strategy = LearngeneStrategy(asked.clients, lambda _: [plan])
    workers = asked.processes if runtime == "ray" else None
    simulate(strategy, 1, RuntimeSettings(runtime, total_cpus=workers), asked.clients)
    answers = strategy.rounds[0].clients
    if failed := [each.error for each in answers if each.error]:
        raise RuntimeError(f"{len(failed)} clients failed: {failed[0]}")
    return [each.methods["scratch"]["accuracy"][-1] for each in answers]  # type: ignore[index]


# -- Flower ----------------------------------------------------------------------------------------


def flower_client(message: Message, context: Context) -> Message:
    """``@app.train`` of Flower's PyTorch quickstart."""
    from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

    net = network()
    net.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    data = shard(int(context.node_config["partition-id"]))
    accuracy = train_plainly(net, data)
    metrics = MetricRecord({"accuracy": accuracy, "num-examples": len(data.train_x)})
    arrays = ArrayRecord(net.state_dict())
    content = RecordDict({"arrays": arrays, "metrics": metrics})
    return Message(content, reply_to=message)


def flower() -> list[float]:
    """Flower's simulation by itself: FedAvg, one round, every client."""
    from flwr.app import ArrayRecord, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    asked, found = Asked.read(), list[float]()
    client_app, server_app = ClientApp(), ServerApp()
    client_app.train()(flower_client)

    def aggregate(replies: list[RecordDict], weight: str) -> MetricRecord:
        found.extend(float(each.metric_records["metrics"]["accuracy"]) for each in replies)  # type: ignore[arg-type]
        return MetricRecord({"accuracy": fmean(found)})

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        strategy = FedAvg(
            fraction_evaluate=0.0,
            min_train_nodes=asked.clients,
            min_available_nodes=asked.clients,
            train_metrics_aggr_fn=aggregate,
        )
        strategy.start(grid, ArrayRecord(network().state_dict()), num_rounds=1)

    run_simulation(
        server_app, client_app, asked.clients,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"num_cpus": asked.processes, "address": "local", "log_to_driver": False},
        },
    )  # fmt: skip
    return found


# -- pfl-research ----------------------------------------------------------------------------------


def pfl() -> list[float]:
    """pfl's ``FederatedAveraging`` on its simulated backend, one iteration, every client.

    Statistics of norms run on from one client to the next there: it resets parameters alone.
    """
    import numpy as np
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.sampling import get_user_sampler
    from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
    from pfl.metrics import Weighted
    from pfl.model.pytorch import PyTorchModel

    asked, found = Asked.read(), []

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            self.train()
            return F.cross_entropy(self.net(x), y)

        def metrics(self, x: torch.Tensor, y: torch.Tensor, data: ShardData) -> dict[str, Weighted]:
            found.append(tested(self.net, data))
            return {"accuracy": Weighted(found[-1], 1)}

    def user(client: int) -> Dataset:
        data = shard(client)
        return Dataset((data.train_x, data.train_y), eval_kwargs={"data": data})

    np.random.seed(SEED)
    model = Model()
    users = FederatedDataset(user, get_user_sampler("minimize_reuse", range(asked.clients)))
    central = torch.optim.SGD(model.parameters(), 1.0)
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=1, evaluation_frequency=1, train_cohort_size=asked.clients,
            val_cohort_size=None,
        ),
        SimulatedBackend(training_data=users, val_data=users),
        PyTorchModel(model, local_optimizer_create=optimiser, central_optimizer=central),
        NNTrainHyperParams(
            local_batch_size=TRAINING.batch_size, local_num_epochs=TRAINING.epochs,
            local_learning_rate=LR, local_max_grad_norm=MOST_NORM,
        ),
        NNEvalHyperParams(local_batch_size=None),
        send_metrics_to_platform=False,
    )  # fmt: skip
    return found[1::2]  # before and after


CONTENDERS: dict[str, Callable[[], list[float]]] = {
    **{name: partial(here, name) for name in ("serial", "ray", "batched")},
    "flower": flower,
    "pfl": pfl,
}
