"""The contract of results.json and clients.csv."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from reports.client_rows import write_clients_csv
from reports.results import (
    build_results,
    comparable,
    read_results,
    result_sha256,
    to_json_types,
    write_results,
)
from reports.schema import ResultsFile, check_results
from reports.statistics import holm, paired_gain
from tests.helpers import MANY


def test_keys_come_in_the_order_of_the_contract(results):
    assert list(results)[:11] == [
        *("schema", "run", "data", "collective", "criterion", "transfer", "learngene"),
        *("open_world", "clients", "summary", "messages"),
    ]
    assert list(results["messages"])[:2] == ["asked", "answered"]
    first = results["clients"][0]["methods"]["learngene"]
    assert list(first)[:3] == ["accuracy", "accuracy_by_epoch", "seconds"]


def test_summary_is_of_the_clients(results):
    methods = [client["methods"] for client in results["clients"]]
    ours = np.array([m["learngene"]["accuracy"] for m in methods])
    scratch = np.array([m["scratch"]["accuracy"] for m in methods])
    summary = results["summary"]
    assert summary["learngene"]["mean"] == pytest.approx(ours.mean())
    assert summary["learngene"]["std"] == pytest.approx(ours.std(ddof=1))
    assert summary["gain"]["mean"] == pytest.approx((ours - scratch).mean())
    assert (summary["gain"]["wins"], summary["gain"]["n"]) == (20, 20)
    assert 0 < summary["gain"]["p_value"] < 1e-4
    assert "gain_over_scratch" not in summary["scratch"]


def test_the_file_is_valid_json_and_reads_back_equal(results, tmp_path):
    path = write_results(results, tmp_path / "run" / "results.json")
    text = path.read_text()
    assert text.endswith("}\n") and '\n "schema": 1,\n' in text[:20]

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    assert json.loads(text, parse_constant=refuse) == results
    assert read_results(path) == results
    assert [p.name for p in path.parent.iterdir()] == ["results.json"]  # no temporary file


def test_a_write_that_fails_leaves_the_old_file(results, tmp_path, monkeypatch):
    path = write_results(results, tmp_path / "results.json")
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_results({**results, "note": "new"}, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_a_failed_client_is_listed_and_left_out(make):
    results = make(fail=(3,))
    client = results["clients"][3]
    assert client["id"] == 3 and "killed" in client["error"] and "methods" not in client
    assert results["summary"]["learngene"]["n"] == results["summary"]["gain"]["n"] == 19


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ("nan", "scratch: no finite accuracy"),
        ("absent", "scratch: no finite accuracy"),
        ("error", "scratch: ValueError: no such head"),
    ],
)
def test_a_client_without_a_finite_accuracy_counts_as_failed(make, spoil, reason):
    def change(sections):
        methods = sections["clients"][5]["methods"]
        if spoil == "nan":
            methods["scratch"]["accuracy"] = float("nan")
        elif spoil == "absent":
            del methods["scratch"]
        else:
            methods["scratch"] = {"error": "ValueError: no such head"}

    results = make(change=change)
    assert results["clients"][5]["error"] == reason
    assert results["summary"]["learngene"]["n"] == results["summary"]["scratch"]["n"] == 19
    check_results(results)


def test_a_loss_that_diverged_is_null_and_its_cell_empty(make, tmp_path):
    def change(sections):
        sections["clients"][0]["methods"]["scratch"]["loss_by_epoch"][1][1] = float("inf")

    results = make(n=2, change=change)
    assert results["clients"][0]["methods"]["scratch"]["loss_by_epoch"][1] == [1, None]
    path = write_clients_csv(results, tmp_path / "clients.csv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    spoiled = [r for r in rows if (r["client"], r["method"], r["epoch"]) == ("0", "scratch", "1")]
    assert spoiled[0]["loss"] == "" and float(spoiled[0]["accuracy"]) > 0


def test_csv_has_a_row_per_client_method_and_epoch(make, tmp_path):
    results = make(n=3, fail=(1,))
    lines = write_clients_csv(results, tmp_path / "clients.csv").read_text().splitlines()
    assert lines[0] == "client,method,epoch,accuracy,loss"
    assert len(lines) == 1 + 2 * 2 * 8  # clients that answered, methods, recorded epochs
    accuracy, loss = (
        results["clients"][0]["methods"]["learngene"][field][0][1]
        for field in ("accuracy_by_epoch", "loss_by_epoch")
    )
    assert lines[1] == f"0,learngene,0,{accuracy},{loss}"


def test_clients_are_sorted_by_id(make):
    results = make(n=4, change=lambda sections: sections["clients"].reverse())
    assert [client["id"] for client in results["clients"]] == [0, 1, 2, 3]


def test_without_a_collective_its_sections_are_null(make):
    results = make(collective=False)
    assert results["collective"] is results["criterion"] is results["open_world"] is None
    check_results(results)


def test_one_client_has_no_interval(make):
    summary = make(n=1)["summary"]
    assert summary["learngene"]["ci95"] is None and summary["gain"]["p_value"] is None


def test_no_gain_without_scratch(make):
    results = make(methods=("learngene",))
    assert results["summary"]["gain"] is None
    check_results(results)


def test_a_third_method_has_its_own_gain(make):
    summary = make(methods=("learngene", "scratch", "retain_off"))["summary"]
    assert summary["retain_off"]["gain_over_scratch"]["n"] == 20
    assert summary["gain"] == summary["learngene"]["gain_over_scratch"]


def test_a_method_named_gain_is_refused(results):
    sections = {
        name: results[name]
        for name in ("run", "data", "collective", "criterion", "learngene", "open_world")
    }
    with pytest.raises(ValueError, match="cannot be called 'gain'"):
        build_results(**sections, clients=[], messages={}, methods=["gain"])


def _set(path, value):
    def change(results):
        *parents, last = path
        for key in parents:
            results = results[key]
        if value is KeyError:
            del results[last]
        else:
            results[last] = value

    return change


CLIENT = ("clients", 0)
METHOD = (*CLIENT, "methods", "learngene")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("messages",), KeyError, "messages: missing"),
        (("schema",), 2, "schema: must be 1, is 2"),
        (("run", "seed"), "0", r"run\.seed: must be a whole number, 0 or more, is '0'"),
        (("run", "seed"), True, r"run\.seed"),
        (("run", "seconds", "total"), KeyError, r"run\.seconds\.total: missing"),
        (("data", "classes", "novel"), KeyError, r"data\.classes\.novel: missing"),
        (("collective", "stages", 2, "accuracy"), 98.0, r"stages\[2\]\.accuracy: must be a frac"),
        (("open_world", "auroc"), None, r"open_world\.auroc"),
        (("run",), None, "run: must be an object"),
        (("clients",), {}, "clients: must be a list"),
        ((*CLIENT, "shots"), KeyError, r"clients\[0\]\.shots: missing"),
        ((*CLIENT, "error"), "x", "both error and methods"),
        ((*METHOD, "accuracy"), 93.1, r"learngene\.accuracy: must be a fraction in 0\.\.1"),
        ((*METHOD, "accuracy"), 0.123, "must be that of the last epoch"),
        ((*METHOD, "accuracy_by_epoch"), [[1, 0.5], [0, 0.4]], "with rising epochs"),
        ((*METHOD, "bytes_down"), 1.5, "bytes_down: must be a whole number"),
        (("messages", "bytes_up"), -1, r"messages\.bytes_up"),
        (("gradcam", "stages"), {}, r"gradcam\.stages: must be a list"),
        (("gradcam", "images", 0, "maps"), None, r"gradcam\.images\[0\]\.maps: must be a text"),
        (("gradcam", "stages", 1, "layer"), -1, r"gradcam\.stages\[1\]\.layer"),
        (("summary", "gain"), KeyError, r"summary\.gain: missing"),
        (("summary", "gain", "p_value"), KeyError, r"summary\.gain\.p_value"),
        (("open_world", "threshold"), float("nan"), r"open_world\.threshold: must be a number"),
        (("criterion", "rho", 0, 3), float("inf"), r"criterion\.rho\[0\]\[3\]: must be a number"),
        ((*METHOD, "accuracy_by_epoch", 1), [1, float("nan")], "with rising epochs"),
        ((*METHOD, "accuracy_by_epoch", 1), [0, 0.5], "with rising epochs"),
        ((*CLIENT, "methods"), KeyError, r"clients\[0\]\.methods: missing"),
        ((*CLIENT, "methods"), None, r"clients\[0\]\.methods: must be an object, is None"),
        (CLIENT, [], r"clients\[0\]: must be an object, is \[\]"),
        (("messages", "failed"), 1, r"messages\.asked: must be answered \+ failed \+ missing, 21"),
        (("summary", "scratch"), None, r"summary\.scratch: must be an object"),
        (("summary", "scratch", "mean"), "x", r"summary\.scratch\.mean: must be a number or null"),
    ],
)
def test_what_breaks_the_contract_is_named(results, path, value, message):
    check_results(results)
    _set(path, value)(results)
    with pytest.raises(ValueError, match=message):
        check_results(results)


@pytest.mark.parametrize("note", [float("nan"), object()])
def test_what_is_not_json_is_never_written(results, tmp_path, note):
    results["learngene"]["note"] = [note]  # a field that was added freely
    with pytest.raises(ValueError, match="not valid JSON"):
        write_results(results, tmp_path / "results.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [[], None, "x"])
def test_what_is_no_object_is_refused(content):
    with pytest.raises(ValueError, match="the file: must be an object"):
        check_results(content)


def test_fields_may_be_added_anywhere(results, tmp_path):
    more = {"a": [1, {"b": None}]}
    for path in ((), ("run",), ("collective", "stages", 0), CLIENT, METHOD, ("messages",)):
        _set((*path, "added"), more)(results)
    assert check_results(results).model_dump(mode="json", exclude_unset=True) == results
    assert read_results(write_results(results, tmp_path / "results.json")) == results


def test_every_broken_field_is_named(results):
    results["run"]["seed"] = -1
    results["clients"][7]["train_images"] = None
    with pytest.raises(ValueError) as refused:
        check_results(results)
    _, *lines = str(refused.value).splitlines()
    assert lines == [
        "run.seed: must be a whole number, 0 or more, is -1",
        "clients[7].train_images: must be a whole number, 0 or more, is None",
    ]


def test_the_committed_json_schema_is_that_of_the_models():
    path = Path(__file__).parents[2] / "docs" / "results.schema.json"
    assert json.loads(path.read_text()) == ResultsFile.model_json_schema(), (
        "run: python -m reports.schema > docs/results.schema.json"
    )


def test_two_clients_with_one_id_are_refused(results):
    results["clients"][1]["id"] = 0
    with pytest.raises(ValueError, match="id 0 occurs 2 times"):
        check_results(results)


def test_numpy_becomes_python():
    value = to_json_types(
        {"a": np.float32(0.5), 1: (np.int64(2), np.array([True])), "b": float("nan")}
    )
    assert value == {"a": 0.5, "1": [2, [True]], "b": None}
    assert [type(x) for x in (value["a"], value["1"][0], value["1"][1][0])] == [float, int, bool]
    with pytest.raises(TypeError, match="got object"):
        to_json_types([object()])


def test_rounds_are_paired_with_the_scratch_of_the_last(make, tmp_path):
    results = make(n=4, fail=(2,), rounds=True)
    rounds = results["rounds"]
    assert [each["answered"] for each in rounds] == [4, 4, 3]
    assert [each["gain"]["n"] for each in rounds] == [3, 3, 3]
    assert rounds[-1]["gain"] == results["summary"]["gain"]
    early = {c["id"]: c["methods"]["learngene"]["accuracy"] for c in rounds[0]["clients"]}
    last = {
        c["id"]: c["methods"]["scratch"]["accuracy"] for c in results["clients"] if "methods" in c
    }
    expected = np.mean([early[i] - last[i] for i in last])
    assert rounds[0]["gain"]["mean"] == pytest.approx(expected)
    lines = write_clients_csv(results, tmp_path / "clients.csv").read_text().splitlines()
    assert lines[0] == "client,method,epoch,accuracy,loss,round"
    assert {line.rsplit(",", 1)[1] for line in lines[1:]} == {"1", "2", "3"}


def test_circumstances_do_not_change_the_hash(make):
    first, second = make(), make()
    kept = first["run"]["result_sha256"]
    assert kept == result_sha256(first) and len(kept) == 64
    second["run"] = {"seed": 9}
    second["clients"][0]["device"] = "cuda:3"
    second["clients"][0]["methods"]["scratch"]["seconds"] = 1e6
    second["collective"]["stages"][0]["seconds"] = 1e6
    assert first != second and comparable(first) == comparable(second)
    assert result_sha256(second) == kept
    assert "run" in first and "seconds" in first["clients"][0]["methods"]["scratch"]  # untouched


def test_whether_it_was_found_and_the_words_of_a_failure_do_not_change_the_hash(make):
    def of(cached: bool, words: str, failed: str = "maml") -> str:
        results = make(fail=(3,))
        results["clients"][3]["error"] = words
        results["pretraining"] = {
            "methods": {"protonet": {"cached": cached}},
            "failed": {failed: words},
        }
        results["methods_left_out"] = {failed: words}
        return result_sha256(results)

    kept = of(True, "OSError: /a/b")
    assert of(False, "KeyError: x") == kept
    assert of(True, "OSError: /a/b", "finetune") != kept  # who failed counts
    answered = make()
    answered["pretraining"] = {"methods": {"protonet": {"cached": True}}, "failed": {}}
    assert result_sha256(answered) != kept


def test_a_method_may_be_called_as_a_circumstance_is(make):
    kept, other = make(), make()
    for results, mean in ((kept, 0.5), (other, 0.6)):
        results["summary"]["device"] = {**results["summary"]["scratch"], "mean": mean}
    assert result_sha256(other) != result_sha256(kept)


def test_any_number_changes_the_hash(make):
    kept, other = make(), make()
    other["clients"][7]["methods"]["scratch"]["accuracy_by_epoch"][0][1] += 1e-16
    assert result_sha256(other) != result_sha256(kept)


def test_the_learngenes_lead_over_each_method_is_paired_and_corrected(make):
    results = make(methods=MANY)
    accuracy = {n: [c["methods"][n]["accuracy"] for c in results["clients"]] for n in MANY}
    classes = [c["classes"] for c in results["clients"]]
    others = [n for n in MANY if n != "learngene"]
    plain = {n: paired_gain(accuracy["learngene"], accuracy[n], classes) for n in others}
    corrected = holm([gain["p_value"] for gain in plain.values()])
    assert "lead" not in results["summary"]["learngene"]
    for (name, gain), p in zip(plain.items(), corrected, strict=True):
        assert results["summary"][name]["lead"] == {**gain, "p_holm": p}
    assert min(corrected) > min(gain["p_value"] for gain in plain.values())


def test_a_method_that_most_clients_have_no_answer_of_is_left_out(make):
    def change(sections):
        for client in sections["clients"][:15]:
            del client["methods"]["maml"]
            client["error"] = "maml: RuntimeError: planted"
        del sections["clients"][2]["methods"]["protonet"]  # one client's fault is the client's
        sections["clients"][2]["error"] += "; protonet: RuntimeError: another"

    methods = ("learngene", "scratch", "protonet", "maml")
    results = make(methods=methods, change=change, rounds=True)
    assert "maml" not in results["rounds"][-1]["summary"]
    reason = "failed on 15 of 20 clients: maml: RuntimeError: planted"
    assert results["methods_left_out"] == {"maml": reason}
    assert results["summary"]["learngene"]["n"] == 19 and "maml" not in results["summary"]
    assert [c["id"] for c in results["clients"] if "error" in c] == [2]
    assert "protonet" in results["clients"][2]["error"]
    assert all("maml" not in c.get("methods", {}) for c in results["clients"])


def test_scratch_is_never_left_out(make):
    def change(sections):
        for client in sections["clients"]:
            client["methods"]["scratch"]["accuracy"] = None

    results = make(change=change)
    assert results["summary"]["learngene"]["n"] == 0 and "methods_left_out" not in results


def test_what_failed_at_the_factory_is_named(make):
    made = {"budget": 7, "methods": {}, "failed": {"deepemd": "ValueError: no luck"}}
    results = make(change=lambda sections: sections.update(pretraining=made))
    assert results["pretraining"] == made
    assert results["methods_left_out"] == made["failed"]
