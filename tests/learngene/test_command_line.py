"""``python -m learngene``: adapt, predict and export by hand, and what each refuses."""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from learngene.api import name_files, probabilities, read_images, settings_from
from learngene.command_line import main
from learngene.errors import InputError
from learngene.export import WholeIndividual, export_individual
from learngene.gene.gene import save
from learngene.gene.kept import load_individual
from tests.clients.pictures import draw_folders
from tests.helpers import DIVERGING, gene_of

SHORT = ("individual.epochs=1", "retain.ewc_lambda=0")


@pytest.fixture(scope="module")
def made(evolved, tmp_path_factory) -> Path:
    """A folder with a learngene, pictures, and the individual that ``adapt`` made of both."""
    folder = tmp_path_factory.mktemp("hand")
    gene = gene_of(evolved.collective)
    save(replace(gene, card=replace(gene.card, image_side=32)), folder)
    draw_folders(folder / "mine", {"cat": 6, "dog": 5, "owl": 7})
    words = (str(folder / "learngene.safetensors"), str(folder / "mine"), *SHORT)
    assert main(["adapt", *words, "-o", str(folder / "me.safetensors"), "--seed", "3"]) == 0
    return folder


def test_an_individual_names_files_and_folders_of_them(made, capsys):
    individual, mine = str(made / "me.safetensors"), made / "mine"
    assert main(["predict", individual, str(mine / "owl" / "00.png"), str(mine / "cat")]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [Path(file).name for file, _, _ in rows] == [
        "00.png",
        *(f"{n:02}.png" for n in range(6)),
    ]
    assert {name for _, name, _ in rows} <= {"cat", "dog", "owl"}
    assert all(1 / 3 <= float(probability) <= 1 for _, _, probability in rows)


def test_moved_views_are_remembered_and_looked_at_wherever_it_answers(made, tmp_path):
    """What ``adapt`` measured with them is what ``predict`` and an export see."""
    gene, out = str(made / "learngene.safetensors"), tmp_path / "me.safetensors"
    words = (*SHORT, "individual.moved_views=true")
    assert main(["adapt", gene, str(made / "mine"), *words, "-o", str(out)]) == 0
    kept = load_individual(out)
    assert kept.card.moved and not load_individual(made / "me.safetensors").card.moved
    images = read_images(kept, sorted((made / "mine").rglob("*.png")))
    plain, moved = (
        probabilities(kept.individual, images, mirror=True, moved=each) for each in (False, True)
    )
    assert np.abs(plain - moved).max() > 1e-4
    named = [float(p) for _, _, p in name_files(kept, [made / "mine"])]
    assert np.allclose(np.sort(named), np.sort(moved.max(1)), atol=1e-5)
    assert export_individual(kept, tmp_path / "me.pt2", [made / "mine"]).difference < 1e-4
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32))
    found = torch.export.load(tmp_path / "me.pt2").module()(x).detach().numpy()
    assert np.allclose(found, moved, atol=1e-4)


@pytest.mark.parametrize("suffix", ["pt2", "onnx"])
def test_an_export_agrees_and_stands_alone(made, capsys, suffix):
    if suffix == "onnx":
        pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
        pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    individual, out = made / "me.safetensors", made / f"me.{suffix}"
    images = str(made / "mine")
    assert main(["export", str(individual), "-o", str(out), "--images", images]) == 0
    said = capsys.readouterr().out
    assert "18 images: same class of all" in said and "ms an image" in said
    assert f"{out} ({out.stat().st_size:,} bytes)" in said
    kept = load_individual(individual)
    x = read_images(kept, sorted((made / "mine").rglob("*.png"))).transpose(0, 3, 1, 2)
    x = np.ascontiguousarray(x, dtype=np.float32)
    with torch.no_grad():
        due = WholeIndividual(kept.individual, mirror=kept.card.mirror, moved=kept.card.moved)(
            torch.from_numpy(x)
        ).numpy()
    if suffix == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(out)
        (found,) = session.run(["probabilities"], {"pixels": x})
        card = session.get_modelmeta().custom_metadata_map["card.json"]
    else:
        extra = {"card.json": ""}
        found = torch.export.load(out, extra_files=extra).module()(torch.from_numpy(x))
        found, card = found.detach().numpy(), extra["card.json"]
    assert np.array_equal(found.argmax(1), due.argmax(1)) and np.allclose(found, due, atol=1e-5)
    assert json.loads(card)["class_names"] == ["cat", "dog", "owl"]


def test_an_export_shown_one_image_takes_any_number(made):
    kept, one = load_individual(made / "me.safetensors"), made / "mine" / "cat" / "00.png"
    assert export_individual(kept, made / "one.pt2", [one]).images == 1
    network, x = torch.export.load(made / "one.pt2").module(), torch.zeros(5, 3, 32, 32)
    assert network(x).shape == (5, 3)


def test_an_export_that_answers_otherwise_leaves_no_file(made, monkeypatch, capsys):
    other = np.eye(3)
    monkeypatch.setattr("learngene.export._pt2", lambda *_: lambda x: other[np.arange(len(x)) % 3])
    out = made / "wrong.pt2"
    assert main(["export", str(made / "me.safetensors"), "-o", str(out)]) == 1
    assert "named otherwise" in capsys.readouterr().err and not out.exists()


def refused(words, capsys) -> str:
    """The one line that is said, with exit code 2."""
    assert main([str(word) for word in words]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_what_cannot_be_used_is_one_line_and_exit_2(made, tmp_path, capsys, monkeypatch):
    gene, mine, me = made / "learngene.safetensors", made / "mine", made / "me.safetensors"
    deep = made / "deep.png"
    Image.fromarray(np.full((32, 32), 4000, np.uint16)).save(deep)
    few = draw_folders(made / "few", {"cat": 2, "dog": 2})  # one of each is tested with
    for words, said in (
        (("adapt", tmp_path / "no.safetensors", mine), "does not exist"),
        (("adapt", gene, tmp_path), f"IMAGES={tmp_path}: found no images"),
        (("adapt", gene, mine, "individual.epoch=3"), "no such setting here"),
        (("adapt", gene, mine, "individual.keep=true"), "no such setting here"),
        (("adapt", gene, mine, "individual.epochs=-3"), "at least 0"),
        (("adapt", gene, mine, "individual.depth=99"), "can be taken to the depths"),
        (("adapt", gene, mine, "individual.lr={"), "individual.lr={: cannot be read"),
        (("adapt", gene, mine, "individual.lr=2026-13-45"), "cannot be read"),
        (("adapt", gene, few, "individual.safeguard=true"), "individual.safeguard_folds=3: each"),
        (("adapt", gene, mine, "-o", "/dev/null/a.safetensors"), "written there (Not a directory)"),
        (("predict", gene, mine), "not an individual"),
        (("predict", me, tmp_path), "no image there"),
        (("predict", me, deep), "more than 8 bits a value, and the individual was trained on"),
        (("predict", me, tmp_path / "no.png"), "no such file or folder"),
        (("export", me, "-o", tmp_path / "me.tflite"), "neither .onnx nor .pt2"),
        (("export", me, "-o", "/proc/me.pt2"), "--out=/proc/me.pt2: no file can be written there"),
        (("export", me, "-o", "/proc/me.onnx"), "no file can be written there"),
    ):
        assert said in refused(words, capsys), words
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "flower-learngene[onnx]" in refused(("export", me, "-o", tmp_path / "me.onnx"), capsys)


@pytest.mark.parametrize("name", ["me.pt", "no/me.safetensors", "."])
def test_where_to_write_is_looked_at_before_the_training(made, tmp_path, capsys, monkeypatch, name):
    monkeypatch.setattr("learngene.api.adapt_folder", lambda *_, **__: pytest.fail("too late"))
    (tmp_path / "no").write_text("a file")
    words = ("adapt", made / "learngene.safetensors", made / "mine", "-o", tmp_path / name)
    assert refused(words, capsys).startswith(f"learngene: INDIVIDUAL={tmp_path / name}: ")


def test_a_disk_that_is_full_is_code_1_and_leaves_no_file(made, tmp_path, capsys):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        code = main(["export", str(made / "me.safetensors"), "-o", str(tmp_path / "me.pt2")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 1 and "File too large" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_training_that_diverges_is_code_1_and_no_file(made, tmp_path, capsys):
    words = [f"individual.{name}={value}" for name, value in DIVERGING.items()]
    out = tmp_path / "me.safetensors"
    gene, mine = str(made / "learngene.safetensors"), str(made / "mine")
    assert main(["adapt", gene, mine, *words, "-o", str(out)]) == 1
    said = capsys.readouterr()
    assert "not finite: lower individual.lr" in said.err and "accuracy" not in said.out
    assert not out.exists()


def test_a_learngene_whose_card_names_no_image_size_is_refused(evolved, made, tmp_path, capsys):
    gene = save(gene_of(evolved.collective), tmp_path)
    assert "its card names no image size" in refused(("adapt", gene, made / "mine"), capsys)


def test_settings_are_words_of_a_run():
    individual, retain = settings_from(
        [
            "individual.lr=1e-3",
            "individual.augment=false",
            "individual.depth=null",
            "retain.labels=true",
        ]
    )
    assert (individual.lr, individual.augment, individual.depth) == (1e-3, False, None)
    assert retain.labels == "true"
    with pytest.raises(InputError, match=r"augment is 'maybe'"):
        settings_from(["individual.augment=maybe"])
