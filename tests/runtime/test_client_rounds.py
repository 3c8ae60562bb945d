"""The clients' phase of a run: what it is asked for reaches the messages."""

from __future__ import annotations

from learngene.methods import find
from runtime.client_rounds import run_client_rounds
from runtime.resources import Federation, RuntimeSettings
from tests.clients.helpers import make_task
from tests.helpers import gene_of
from tests.learngene.methods.helpers import make_factory


def test_the_learngene_and_payloads_are_sent_in_precisions_of_their_own(
    tmp_path, tiny_dataset, evolved
):
    gene = gene_of(evolved.collective)
    payload = find("protonet").pretrain(make_factory("protonet", tiny_dataset))
    names = ["learngene", "protonet"]
    task = make_task(tiny_dataset, gene, individual__epochs=0, methods=names)
    (found,) = run_client_rounds(
        task,
        "sha",
        lambda number: gene,
        {"protonet": payload},
        Federation(RuntimeSettings("serial"), 1, tmp_path),
        precision="fp16",
        payload_precision="int8",
    )
    (client,) = found.clients
    assert client.error is None
    weights = [each for each in client.received if each.name.endswith("conv.weight")]
    kinds = {(each.record.rpartition(".")[2], each.dtype) for each in weights}
    assert kinds == {("learngene", "float16"), ("protonet", "int8")}
