"""CIFAR-100 and mini-ImageNet from parquet, pickles and folders; the network is cut off."""

from __future__ import annotations

import json
import os
import pickle
import socket
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from learngene.data.cache import build, open_source
from learngene.data.class_split import class_list
from learngene.data.settings import SeededDataSettings
from learngene.errors import InputError
from tests.learngene.data.helpers import noise, png, write_folders, write_parquet

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def _cifar(root: Path, **change: object) -> SeededDataSettings:
    return SeededDataSettings("cifar100", root=str(root), **change)  # type: ignore[arg-type]


def test_parquet(cifar: Write, tmp_path: Path) -> None:
    dataset = build(_cifar(cifar()), tmp_path)
    assert np.array_equal(dataset.train_images, noise(0, 300, 32))
    assert np.array_equal(dataset.test_images, noise(1, 100, 32))
    assert dataset.train_labels.tolist() == [i % 100 for i in range(300)]
    assert dataset.class_names == class_list("cifar100") and dataset.flip
    novel = {dataset.class_names[i] for i in dataset.class_split.novel}
    assert len(novel) == 20 and {"baby", "plain", "worm"} < novel
    open_world = {dataset.class_names[i] for i in dataset.class_split.open_world}
    assert len(open_world) == 16 and {"sea", "cattle"} < open_world
    assert build(_cifar(tmp_path / "parquet", image_size=16), tmp_path).image_shape == (3, 16, 16)


def test_seed_does_not_build_it_again(cifar: Write, tmp_path: Path) -> None:
    root = cifar()
    assert build(_cifar(root), tmp_path) is build(_cifar(root, seed=3), tmp_path)


def test_class_names_from_meta(cifar: Write, tmp_path: Path) -> None:
    root = cifar()
    names = list(reversed(class_list("cifar100")))
    (root / "meta.json").write_text(json.dumps({"fine_label_names": names}))
    source = open_source(_cifar(root))
    assert list(source.class_names) == names and names[source.class_split.novel[-1]] == "baby"
    (root / "meta.json").write_text(json.dumps({"fine_label_names": ["aeroplane", *names[1:]]}))
    with pytest.raises(InputError, match=r"lacks class worm \(1 of 100\)"):
        open_source(_cifar(root))


def test_imagenet(tmp_path: Path) -> None:
    for seed, split in enumerate(("train", "test")):
        images = [png(image) for image in noise(seed, 100, 20)]
        file = tmp_path / f"data/{split}-00000.parquet"  # as the hub's repository has it
        write_parquet(file, images, list(range(100)), ("image", "label"))
    dataset = build(SeededDataSettings("imagenet100", root=str(tmp_path)), tmp_path)
    assert dataset.image_shape == (3, 84, 84)
    assert dataset.class_names[dataset.class_split.novel[0]] == "n01930112"


def test_duplicates_are_dropped_and_counted(cifar: Write, tmp_path: Path) -> None:
    def edit(parts: dict) -> None:
        train, test = parts["train"][0], parts["test"][0]
        train[105] = train[5]  # twice in train, class 5: the second goes
        train[7] = test[7]  # train and test, class 7: the training copy goes
        train[8] = test[9]  # other labels: the training copy goes
        test[11] = test[10]  # within test, and other labels: would leave class 11 without tests

    with pytest.raises(InputError, match="class bus has 0 test images"):
        build(_cifar(cifar(lambda p: (edit(p), p["test"][1].__setitem__(13, 12))[0])), tmp_path)

    def edit_again(parts: dict) -> None:
        edit(parts)
        parts["test"][0].append(png(noise(7, 1, 32)[0]))
        parts["test"][1].append(11)

    dataset = build(_cifar(cifar(edit_again)), tmp_path)
    assert (dataset.duplicates_dropped, dataset.conflicting_labels) == (4, 2)
    assert len(dataset.train_labels) == 297 and len(dataset.test_labels) == 100
    every = [*dataset.train_hashes.tolist(), *dataset.test_hashes.tolist()]
    assert len(set(every)) == len(every)
    kept = np.delete(np.arange(300), [7, 8, 105])
    assert np.array_equal(dataset.train_images, noise(0, 300, 32)[kept])


def _cifar_python(root: Path, change: dict | None = None) -> Path:
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    (folder / "meta").write_bytes(
        pickle.dumps({"fine_label_names": [n.encode() for n in class_list("cifar100")]}, 2)
    )
    for seed, split in enumerate(("train", "test")):
        pixels = noise(seed, 100, 32).transpose(0, 3, 1, 2).reshape(100, 3072)
        content = {b"data": pixels, b"fine_labels": list(range(100)), **(change or {})}
        (folder / split).write_bytes(pickle.dumps(content, 2))
    return root


def test_original_pickles(tmp_path: Path) -> None:
    dataset = build(_cifar(_cifar_python(tmp_path)), tmp_path)
    assert np.array_equal(dataset.train_images, noise(0, 100, 32))
    assert np.array_equal(dataset.test_images, noise(1, 100, 32))
    same = build(_cifar(tmp_path / "cifar-100-python"), tmp_path)
    assert same.sha256 == dataset.sha256


class _Harm:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch harmed",)


def test_a_pickle_that_runs_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"(posix|nt)\.system is not allowed"):
        build(_cifar(_cifar_python(tmp_path, {b"x": _Harm()})), tmp_path)
    assert not (tmp_path / "harmed").exists()


def test_a_pickle_that_ends_early(tmp_path: Path) -> None:
    file = _cifar_python(tmp_path) / "cifar-100-python/test"
    os.truncate(file, 5000)
    with pytest.raises(InputError, match="not a CIFAR-100 pickle"):
        build(_cifar(tmp_path), tmp_path)


def test_class_folders(tmp_path: Path) -> None:
    for seed, split in enumerate(("train", "test")):
        write_folders(tmp_path / "in" / split, list(class_list("cifar100")), 1, seed)
    dataset = build(_cifar(tmp_path / "in"), tmp_path)
    assert dataset.image_shape == (3, 32, 32) and len(dataset.class_split.base) == 64
    (tmp_path / "in/test/apple").rename(tmp_path / "in/test/quince")
    (tmp_path / "in/train/apple").rename(tmp_path / "in/train/quince")
    with pytest.raises(InputError, match="lacks class apple"):
        build(_cifar(tmp_path / "in"), tmp_path)


def test_no_root(tmp_path: Path) -> None:
    with pytest.raises(InputError) as told:
        build(SeededDataSettings("cifar100"), tmp_path)
    assert "data.root=DIR" in str(told.value) and "data.download=true" in str(told.value)
    with pytest.raises(InputError, match=r"data\.root=/nowhere: no such folder"):
        build(_cifar(Path("/nowhere")), tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"looked for train\*.parquet .*cifar-100-python/"):
        build(_cifar(tmp_path / "empty"), tmp_path)


def test_hub_failure_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(InputError, match=r"could not get uoft-cs/cifar100 .*no route"):
        build(SeededDataSettings("cifar100", download=True), tmp_path)


def test_hub(cifar: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    root = cifar()
    names = datasets.ClassLabel(names=list(class_list("cifar100")))
    features = datasets.Features({"img": datasets.Image(), "fine_label": names})

    def local(repository: str, split: str) -> datasets.Dataset:
        assert repository == "uoft-cs/cifar100"
        file = str(root / f"{split}-0.parquet")
        return datasets.Dataset.from_parquet(
            file, features=features, cache_dir=str(tmp_path / "hf")
        )

    monkeypatch.setattr(datasets, "load_dataset", local)
    dataset = build(SeededDataSettings("cifar100", download=True), tmp_path)
    assert dataset.sha256 == build(_cifar(root), tmp_path).sha256


def test_truncated_parquet(cifar: Write, tmp_path: Path) -> None:
    file = cifar() / "train-0.parquet"
    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(InputError, match=r"train-0.parquet: not readable as parquet"):
        build(_cifar(file.parent), tmp_path)


def test_corrupt_parquet(cifar: Write, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = cifar() / "train-0.parquet"
    content = bytearray(file.read_bytes())
    place = pq.ParquetFile(file).metadata.row_group(2).column(0).data_page_offset
    content[place : place + 40] = bytes(40)  # the head of a data page; the footer stays whole
    file.write_bytes(content)
    with pytest.raises(InputError, match="not readable as parquet"):
        build(_cifar(file.parent), tmp_path)
    assert capfd.readouterr().err == ""  # ``datasets`` would log it a second time
    assert list((tmp_path / "worlds").iterdir()) == []


@pytest.mark.parametrize("broken", [b"", b"no image", png(noise(3, 1, 32)[0])[:-300]])
def test_a_broken_image(cifar: Write, tmp_path: Path, broken: bytes) -> None:
    with pytest.raises(InputError, match="test row 99: this image does not decode"):
        build(_cifar(cifar(lambda parts: parts["test"][0].__setitem__(99, broken))), tmp_path)


def test_wrong_columns_and_labels(cifar: Write, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lacks the column img, it has image, label"):
        build(_cifar(cifar(columns=("image", "label"))), tmp_path)
    with pytest.raises(InputError, match=r"a train label is outside 0\.\.99"):
        build(_cifar(cifar(lambda parts: parts["train"][1].__setitem__(4, 100))), tmp_path)
    (tmp_path / "parquet/test-0.parquet").unlink()
    with pytest.raises(InputError, match=r"found no test\*.parquet"):
        build(_cifar(tmp_path / "parquet"), tmp_path)


def test_real_names_are_the_built_in_ones(shared_data: Path) -> None:
    for name, folder in (("cifar100", "cifar100"), ("imagenet100", "mini-imagenet")):
        source = open_source(SeededDataSettings(name, root=str(shared_data / folder)))
        assert source.class_names == class_list(name)
        assert len(source.labels["train"]) == 50_000 and len(source.labels["test"]) == 10_000


def test_the_last_image_of_the_real_cifar(shared_data: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    root.mkdir()
    (root / "train-0.parquet").symlink_to(next((shared_data / "cifar100").glob("train*")))
    table = pq.read_table(next((shared_data / "cifar100").glob("test*.parquet")))
    images = table.column("img").combine_chunks().field("bytes").to_pylist()
    images[-1] = images[-1][:200]
    labels = table.column("fine_label").to_pylist()
    write_parquet(root / "test-0.parquet", images, labels, ("img", "fine_label"))
    start = time.monotonic()
    with pytest.raises(InputError, match="test row 9999: this image does not decode"):
        build(_cifar(root), tmp_path)
    assert time.monotonic() - start < 10
