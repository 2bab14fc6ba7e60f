"""
Tests of the data sets. Files are written in the layouts of their readers, tiny; no data set on disk is needed.
"""

from __future__ import annotations

import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torchvision.datasets
from PIL import Image

from art_mmc.data import DATASETS, Dataset, load_dataset, split_validation
from tests.conftest import left_alone

PER_CLASS = 3
WNIDS = ("n03", "n01", "n02")


# --- writers ----------------------------------------------------------------------------------------------------------


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def labels(nb_classes: int = 10, per_class: int = PER_CLASS) -> np.ndarray:
    return np.tile(np.arange(nb_classes), per_class)


def write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def write_mnist(root: Path, folder: str = "MNIST") -> dict[str, np.ndarray]:
    arrays = {"train-images-idx3": pixels(30, 28, 28), "train-labels-idx1": labels()}
    arrays |= {"t10k-images-idx3": pixels(20, 28, 28, seed=1), "t10k-labels-idx1": labels(per_class=2)}
    for name, array in arrays.items():
        write_idx(root / folder / "raw" / f"{name}-ubyte", array)
    return arrays


def write_cifar(root: Path, monkeypatch: pytest.MonkeyPatch, cls: type) -> tuple[np.ndarray, np.ndarray, int]:
    """Checksums are compared by torchvision with those of the original files: None there stands for any bytes."""
    nb_classes, key = (10, "labels") if cls is torchvision.datasets.CIFAR10 else (100, "fine_labels")
    folder = root / cls.base_folder
    folder.mkdir()
    images, targets = pixels(nb_classes * 5, 3, 32, 32), labels(nb_classes, 5)
    train_names = [name for name, _ in cls.train_list]
    for i, name in enumerate(train_names):
        part = slice(i * len(images) // len(train_names), (i + 1) * len(images) // len(train_names))
        rows = images[part].reshape(-1, 3072)
        (folder / name).write_bytes(pickle.dumps({"data": rows, key: targets[part].tolist()}))
    test = {"data": images[:nb_classes].reshape(-1, 3072), key: targets[:nb_classes].tolist()}
    (folder / cls.test_list[0][0]).write_bytes(pickle.dumps(test))
    (folder / cls.meta["filename"]).write_bytes(pickle.dumps({cls.meta["key"]: [str(k) for k in range(nb_classes)]}))
    monkeypatch.setattr(cls, "train_list", [[name, None] for name in train_names])
    monkeypatch.setattr(cls, "test_list", [[cls.test_list[0][0], None]])
    monkeypatch.setattr(cls, "meta", cls.meta | {"md5": None})
    return images, targets, nb_classes


def write_svhn(root: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    images = pixels(32, 32, 3, 30)
    targets = np.where(labels() == 0, 10, labels())[:, None].astype(np.uint8)
    split_list = {}
    for split in ("train", "test"):
        scipy.io.savemat(root / f"{split}_32x32.mat", {"X": images, "y": targets})
        split_list[split] = ["", f"{split}_32x32.mat", None]
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", split_list)
    return images


def write_tiny_imagenet(folder: Path, size: int = 64) -> Path:
    (folder / "val" / "images").mkdir(parents=True)
    (folder / "wnids.txt").write_text("\n".join(WNIDS) + "\n")
    lines = []
    for k, wnid in enumerate(WNIDS):
        images = folder / "train" / wnid / "images"
        images.mkdir(parents=True)
        # Constant images survive JPEG; class k has brightness 60 k + 30.
        colour = Image.new("RGB", (size, size), (60 * k + 30,) * 3)
        for i in range(2):
            colour.save(images / f"{wnid}_{i}.JPEG")
        Image.new("L", (size, size), 60 * k + 30).save(images / f"{wnid}_9.JPEG")
        colour.save(folder / "val" / "images" / f"val_{k}.JPEG")
        lines.append(f"val_{k}.JPEG\t{wnid}\t0\t0\t62\t62\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(reversed(lines)))
    return folder


def write_npz(path: Path, **changes: np.ndarray | None) -> Path:
    """A good file but for `changes`; None leaves an array out."""
    arrays = {"x_train": pixels(6, 8, 8, 3), "y_train": labels(3, 2)}
    arrays |= {"x_test": pixels(3, 8, 8, 3), "y_test": labels(3, 1)}
    np.savez(path, **{name: array for name, array in (arrays | changes).items() if array is not None})
    return path


def cut(path: Path, share: float = 0.5) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def check_form(data: Dataset, shape: tuple[int, int, int], nb_classes: int, sizes: tuple[int, int]) -> None:
    assert data.input_shape == shape
    assert data.nb_classes == nb_classes
    for x, y, n in ((data.x_train, data.y_train, sizes[0]), (data.x_test, data.y_test, sizes[1])):
        assert x.shape == (n, *shape)
        assert x.dtype == np.float32
        assert x.flags.c_contiguous
        assert x.flags.writeable
        assert 0 <= x.min() < x.max() <= 1
        assert y.shape == (n,)
        assert y.dtype == np.int64


def fails(error: type[Exception], *parts: str):
    """The error, on one line, with all parts in their order."""
    return pytest.raises(error, match=r"\A(?=[^\n]*\Z)" + ".*".join(["", *map(re.escape, parts)]))


# --- what is read -----------------------------------------------------------------------------------------------------


class TestDigits:
    def test_form(self):
        with left_alone():
            data = load_dataset()
        assert data.name == "digits"
        check_form(data, (1, 8, 8), 10, (1397, 400))
        assert data.x_train.max() == 1
        # Values 0 .. 16, divided by 16, and the same share of each class in both parts.
        assert np.array_equal(data.x_train * 16, np.round(data.x_train * 16))
        assert np.bincount(data.y_test).min() >= 38

    def test_split_is_fixed(self):
        # A different split in another release of scikit-learn would mix training and test images of saved models.
        data = load_dataset("digits")
        assert data.y_test[:10].tolist() == [7, 4, 3, 8, 1, 9, 5, 0, 9, 7]
        assert zlib.crc32((data.x_test * 16).astype(np.uint8).tobytes()) == 645494971

    def test_parts_are_disjoint_and_whole(self):
        from sklearn.datasets import load_digits

        data = load_dataset()
        both = np.concatenate([data.x_train, data.x_test]).reshape(1797, 64) * 16
        assert np.array_equal(np.sort(both, axis=0), np.sort(load_digits().data, axis=0))


class TestDataset:
    def test_moments(self):
        x = np.random.default_rng(0).random((1100, 3, 4, 5), dtype=np.float32)
        x[:, 1] = 0.25
        data = Dataset("x", x, np.arange(1100) % 2, x[:2], np.arange(2))
        assert (data.mean[1], data.std[1]) == (0.25, 0.0)
        assert data.mean == pytest.approx(x.mean(axis=(0, 2, 3), dtype=np.float64), abs=1e-12)
        assert data.std == pytest.approx(x.std(axis=(0, 2, 3), dtype=np.float64), abs=1e-12)
        assert all(type(value) is float for value in data.mean + data.std)

    def test_frozen_short_and_picklable(self):
        data = load_dataset()
        with pytest.raises(AttributeError):
            data.name = "other"
        assert repr(data) == "Dataset(name='digits')"
        assert data == data
        assert pickle.loads(pickle.dumps(data)).mean == data.mean


TRAIN, IMAGES = "MNIST/raw/train-images-idx3-ubyte", "MNIST/raw/t10k-images-idx3-ubyte"
TRAIN_LABELS, LABELS = "MNIST/raw/train-labels-idx1-ubyte", "MNIST/raw/t10k-labels-idx1-ubyte"
BATCH = "cifar-10-batches-py/data_batch_2"


class TestTorchvision:
    @pytest.mark.parametrize(
        ("name", "label"),
        [("MNIST", "mnist"), ("fmnist", "fashion-mnist"), ("FashionMNIST", "fashion-mnist"), ("kmnist", "kmnist")],
    )
    def test_mnist_family(self, tmp_path, name, label):
        written = write_mnist(tmp_path, {"fashion-mnist": "FashionMNIST"}.get(label, label.upper()))
        data = load_dataset(name, data_dir=tmp_path)
        assert data.name == label
        check_form(data, (1, 28, 28), 10, (30, 20))
        assert np.array_equal(data.x_train[:, 0], written["train-images-idx3"] / np.float32(255))
        assert np.array_equal(data.x_test[:, 0], written["t10k-images-idx3"] / np.float32(255))
        assert np.array_equal(data.y_train, written["train-labels-idx1"])
        if label == "mnist":
            to_tensor = torchvision.transforms.ToTensor()
            image, fifth = torchvision.datasets.MNIST(tmp_path, transform=to_tensor)[4]
            assert np.array_equal(data.x_train[4], image.numpy())
            assert data.y_train[4] == fifth

    @pytest.mark.parametrize("name", ["cifar10", "cifar-10", "cifar100"])
    def test_cifar(self, tmp_path, monkeypatch, name):
        cls = torchvision.datasets.CIFAR100 if "100" in name else torchvision.datasets.CIFAR10
        images, targets, nb_classes = write_cifar(tmp_path, monkeypatch, cls)
        data = load_dataset(name, str(tmp_path))
        check_form(data, (3, 32, 32), nb_classes, (len(images), nb_classes))
        assert np.array_equal(data.x_train, images / np.float32(255))
        assert np.array_equal(data.y_train, targets)

    def test_svhn(self, tmp_path, monkeypatch):
        images = write_svhn(tmp_path, monkeypatch)
        data = load_dataset("svhn", tmp_path)
        check_form(data, (3, 32, 32), 10, (30, 30))
        assert np.array_equal(data.x_train[7], images[..., 7].transpose(2, 0, 1) / np.float32(255))
        # The file has label 10 for the digit 0.
        assert np.array_equal(data.y_train, labels())

    def test_data_dir_is_needed(self):
        for name in DATASETS:
            if name not in ("digits", "mnist-sample"):
                with fails(ValueError, name, "data_dir is needed"):
                    load_dataset(name)

    @pytest.mark.parametrize(
        ("name", "file"),
        [
            ("mnist", "MNIST/raw/train-images-idx3-ubyte"),
            ("fashion-mnist", "FashionMNIST/raw/train-images-idx3-ubyte"),
            ("kmnist", "KMNIST/raw/train-images-idx3-ubyte"),
            ("cifar10", "cifar-10-batches-py/data_batch_1"),
            ("cifar100", "cifar-100-python/train"),
            ("svhn", "train_32x32.mat"),
        ],
    )
    def test_missing_files(self, tmp_path, name, file):
        with fails(FileNotFoundError, f"{name} not found under {tmp_path}", str(tmp_path / file), "download=True"):
            load_dataset(name, tmp_path)
        with fails(FileNotFoundError, f"{name} not found under {tmp_path / 'no'}", "download=True"):
            load_dataset(name, tmp_path / "no")

    def test_download_is_passed_on_and_its_failure_reported(self, tmp_path, monkeypatch):
        def offline(self):
            raise RuntimeError("Error downloading train-images-idx3-ubyte.gz:\nTried a mirror")

        monkeypatch.setattr(torchvision.datasets.MNIST, "download", offline)
        with fails(FileNotFoundError, "mnist", str(tmp_path), "could not be downloaded", "Error downloading"):
            load_dataset("mnist", tmp_path, download=True)
        monkeypatch.setattr(torchvision.datasets.MNIST, "download", lambda self: write_mnist(tmp_path) and None)
        assert len(load_dataset("mnist", tmp_path, download=True).x_train) == 30

    def test_damaged_cifar_is_found_by_checksum(self, tmp_path, monkeypatch):
        cls = torchvision.datasets.CIFAR10
        write_cifar(tmp_path, monkeypatch, cls)
        monkeypatch.setattr(cls, "test_list", [["test_batch", "40351d587109b95175f43aff81a1287e"]])
        with fails(ValueError, "cifar10: cifar-10-batches-py/test_batch", "is damaged"):
            load_dataset("cifar10", tmp_path)

    @pytest.mark.parametrize(
        ("name", "file", "change", "error", "parts"),
        [
            ("mnist", LABELS, Path.unlink, FileNotFoundError, ["mnist not found", LABELS]),
            ("mnist", LABELS, lambda file: cut(file, 0.0), ValueError, ["mnist", IMAGES, "is damaged", "download"]),
            ("mnist", IMAGES, lambda file: cut(file, 0.001), ValueError, ["mnist", IMAGES, "is damaged", "download"]),
            ("mnist", TRAIN, lambda file: cut(file), ValueError, ["mnist", TRAIN, "is damaged", "download"]),
            ("mnist", TRAIN_LABELS, lambda file: write_idx(file, labels()[:-1]), ValueError, ["y_train", "29", "30"]),
            *(
                ("cifar10", BATCH, lambda file, s=share: cut(file, s), ValueError, ["one of cifar-10", "is damaged"])
                for share in (0.5, 0.0)
            ),
            ("svhn", "test_32x32.mat", lambda file: cut(file), ValueError, ["svhn: test_32x32.mat", "is damaged"]),
        ],
    )
    def test_refused(self, tmp_path, monkeypatch, name, file, change, error, parts):
        {
            "mnist": lambda: write_mnist(tmp_path),
            "cifar10": lambda: write_cifar(tmp_path, monkeypatch, torchvision.datasets.CIFAR10),
            "svhn": lambda: write_svhn(tmp_path, monkeypatch),
        }[name]()
        change(tmp_path / file)
        with fails(error, *parts):
            load_dataset(name, tmp_path)


IMAGE = "train/n01/images/n01_1.JPEG"


def added(file: Path, line: str) -> None:
    file.write_text(f"{file.read_text()}{line}\n")


class TestTinyImageNet:
    @pytest.mark.parametrize("around", [True, False])
    def test_form(self, tmp_path, around):
        folder = write_tiny_imagenet(tmp_path / "tiny-imagenet-200")
        data = load_dataset("tiny-imagenet", tmp_path if around else folder)
        check_form(data, (3, 64, 64), 3, (9, 3))
        # Classes are numbered as in wnids.txt; grey images become RGB; val as listed in its annotations.
        assert data.y_train.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
        assert data.y_test.tolist() == [2, 1, 0]
        for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
            assert np.allclose(x, ((60 * y + 30) / 255)[:, None, None, None], atol=2 / 255)

    @pytest.mark.parametrize(
        ("file", "change", "error", "parts"),
        [
            ("wnids.txt", Path.unlink, FileNotFoundError, ["tiny-imagenet not found", "wnids.txt", "-200.zip"]),
            ("val/val_annotations.txt", Path.unlink, FileNotFoundError, ["not found", "val_annotations", "-200.zip"]),
            ("train/n01/images", shutil.rmtree, FileNotFoundError, ["no images of class n01", "train/n01/images"]),
            ("val/images/val_1.JPEG", Path.unlink, FileNotFoundError, ["val/images/val_1.JPEG", "not there"]),
            (IMAGE, lambda file: cut(file, 0.0), ValueError, [IMAGE, "is damaged"]),
            (IMAGE, lambda file: cut(file, 0.9), ValueError, [IMAGE, "is damaged"]),
            (IMAGE, lambda file: Image.new("RGB", (32, 64)).save(file), ValueError, ["(3, 64, 32)", "(3, 64, 64)"]),
            *(
                ("val/val_annotations.txt", lambda file, t=text: added(file, t), ValueError, ["is damaged in line 4"])
                for text in ("val_7.JPEG", "val_7.JPEG\tn77\t0\t0\t1\t1", "")
            ),
            ("val/val_annotations.txt", lambda file: file.write_text(""), ValueError, ["is damaged", "got none"]),
            ("wnids.txt", lambda file: file.write_text(""), ValueError, ["wnids.txt is damaged"]),
            ("wnids.txt", lambda file: file.write_text("n01\nn01\n"), ValueError, ["wnids.txt is damaged"]),
        ],
    )
    def test_refused(self, tmp_path, file, change, error, parts):
        change(write_tiny_imagenet(tmp_path) / file)
        with fails(error, *parts):
            load_dataset("tiny-imagenet", tmp_path)

    def test_missing_folder(self, tmp_path):
        with fails(FileNotFoundError, "tiny-imagenet not found", str(tmp_path), "wnids.txt", "unpack"):
            load_dataset("tiny-imagenet", tmp_path, download=True)


class TestNpz:
    @pytest.mark.parametrize(
        ("layout", "dtype"),
        [("NHWC", "uint8"), ("NCHW", "float32"), ("NHW", "float64"), ("NHW1", "float16"), ("N1HW", ">f4")],
    )
    def test_layouts(self, tmp_path, layout, dtype):
        width = 8 if layout == "NHW" else 9  # without a channel only square ones: other arrays may be signals
        train, test = pixels(6, 3, 8, width), pixels(3, 3, 8, width, seed=1)
        shape = {
            "NHWC": lambda x: x.transpose(0, 2, 3, 1),
            "NCHW": lambda x: x,
            "NHW": lambda x: x[:, 0],
            "NHW1": lambda x: x[:, 0, :, :, None],
            "N1HW": lambda x: x[:, :1],
        }[layout]
        channels = 3 if "C" in layout else 1
        value = (lambda x: x) if dtype == "uint8" else lambda x: (x / 255).astype(dtype)
        path = write_npz(tmp_path / "a.npz", x_train=value(shape(train)), x_test=value(shape(test)))
        data = load_dataset(path)
        assert data.name == str(path)
        check_form(data, (channels, 8, width), 3, (6, 3))
        for x, given in ((data.x_train, train), (data.x_test, test)):
            assert np.allclose(x, given[:, :channels] / 255, rtol=0, atol=1e-3 if dtype == "float16" else 1e-7)

    @pytest.mark.parametrize(
        ("form", "dtype"), [("(N,)", "uint8"), ("(N,)", "bool"), ("(N, 1)", "uint64"), ("one-hot", "float32")]
    )
    def test_label_forms(self, tmp_path, form, dtype):
        nb_classes = 2 if dtype == "bool" else 3
        forms = {"(N,)": lambda y: y, "(N, 1)": lambda y: y[:, None], "one-hot": lambda y: np.eye(nb_classes)[y]}
        change = forms[form]
        y_train, y_test = np.arange(6) % nb_classes, np.arange(3) % nb_classes
        path = write_npz(tmp_path / "a.npz", y_train=change(y_train).astype(dtype), y_test=change(y_test).astype(dtype))
        data = load_dataset(str(path))
        check_form(data, (3, 8, 8), nb_classes, (6, 3))
        assert np.array_equal(data.y_train, y_train)
        assert np.array_equal(data.y_test, y_test)

    def test_other_arrays_and_compression(self, tmp_path):
        arrays = np.load(write_npz(tmp_path / "a.npz"))
        np.savez_compressed(tmp_path / "b.NPZ.npz", **arrays, exact_train=np.ones(6, bool))
        check_form(load_dataset(tmp_path / "b.NPZ.npz", data_dir="/nowhere"), (3, 8, 8), 3, (6, 3))

    def test_a_class_may_be_absent_from_the_test_set(self, tmp_path):
        assert load_dataset(write_npz(tmp_path / "a.npz", y_test=np.zeros(3, int))).nb_classes == 3

    @pytest.mark.parametrize(
        ("changes", "parts"),
        [
            ({"y_test": None}, ["no array y_test", "expected x_train, y_train, x_test, y_test", "got x_train"]),
            (dict.fromkeys(["x_train", "y_train", "x_test", "y_test"]), ["no array x_train, y_train", "an empty file"]),
            ({"x_train": np.full((6, 8, 8, 3), 255.0)}, ["x_train", "[0, 1]", "0..255 as float; divide by 255"]),
            ({"x_test": np.full((3, 8, 8, 3), -0.5)}, ["x_test", "[0, 1]", "-0.5 to -0.5", "normalisation"]),
            ({"x_test": np.full((3, 8, 8, 3), 1.001)}, ["x_test", "[0, 1]", "1.001", "clip"]),
            ({"x_test": np.full((3, 8, 8, 3), np.nan)}, ["x_test", "NaN or infinite"]),
            ({"x_test": np.full((3, 8, 8, 3), 1e300)}, ["x_test", "NaN or infinite"]),
            ({"x_train": pixels(6, 8, 8, 3).astype(int)}, ["x_train", "uint8", "int64", "astype(np.uint8)"]),
            ({"x_train": pixels(6, 8, 8, 3) > 99}, ["x_train", "uint8", "bool", "float32"]),
            ({"x_train": pixels(6, 8, 8, 3) % 2}, ["x_train", "0..255", "none above 1", "float32"]),
            ({"x_train": pixels(6, 3, 3, 3)}, ["x_train", "ambiguous shape (6, 3, 3, 3)", "(N, H, W)", "pad"]),
            (
                {"x_train": pixels(6, 64)},
                ["(6, 64)", "expected (N, C, H, W)", "reshape flat images", "a table goes to"],
            ),
            ({"x_train": pixels(6, 2, 128)}, ["x_train", "(6, 2, 128)", "(N, 1, H, W)", "signals go to"]),
            ({"x_train": pixels(6, 1, 5, 5, 5)}, ["x_train", "(6, 1, 5, 5, 5)", "volumes and films go to classifiers"]),
            ({"x_train": pixels(6, 8, 8, 4)}, ["x_train", "(6, 8, 8, 4)", "alpha"]),
            ({"x_train": pixels(6, 8, 8, 5)}, ["x_train", "(6, 8, 8, 5)", "C = 1 or 3"]),
            ({"x_test": pixels(3, 8, 9, 3)}, ["x_train", "(3, 8, 8)", "x_test", "(3, 8, 9)"]),
            ({"x_test": pixels(0, 8, 8, 3), "y_test": np.zeros(0, int)}, ["x_test is empty"]),
            ({"y_train": np.zeros(0, int)}, ["y_train is empty"]),
            ({"y_train": labels(3, 3)}, ["y_train", "9", "6"]),
            ({"y_train": np.array([-1, 0, 1, 2, 0, 1])}, ["y_train", "-1"]),
            ({"y_train": np.array([0.5, 0, 1, 2, 0, 1])}, ["y_train", "whole numbers"]),
            ({"y_train": np.array(list("abcabc"))}, ["y_train", "whole numbers", "<U1"]),
            ({"y_train": np.zeros((6, 1, 1), int)}, ["y_train", "(6, 1, 1)"]),
            ({"y_test": np.array([0, 1, 3])}, ["y_test", "3", "0 to 2"]),
            ({"y_train": np.array([1, 2, 3, 1, 2, 3])}, ["y_train", "0 to 3", "class 0;", "subtract 1"]),
            ({"y_train": np.array([0, 2, 5, 0, 2, 5])}, ["y_train", "0 to 5", "class 1, 3, 4;", "without gaps"]),
            ({"y_train": np.array([0, 1, 2, 0, 1, 10**12])}, ["y_train", "class 3, 4, 5, 6, 7, ...;"]),
            ({"y_train": np.zeros(6, int)}, ["y_train", "at least 2 classes"]),
            ({"y_train": np.full((6, 3), 1 / 3)}, ["y_train", "not one-hot"]),
            ({"y_train": np.ones((6, 3))}, ["y_train", "expected one-hot rows or probabilities"]),
            ({"y_test": np.eye(4)[labels(3, 1)]}, ["y_test", "(3, 4)", "(N, 3)"]),
            ({"x_train": np.array([None] * 6)}, ["x_train", "Python objects", "numbers"]),
        ],
    )
    def test_refused(self, tmp_path, changes, parts):
        path = write_npz(tmp_path / "mine.npz", **changes)
        with fails(ValueError, str(path), *parts):
            load_dataset(path)

    def test_missing_file(self, tmp_path):
        (tmp_path / "folder.npz").mkdir()
        for name in ("no.npz", "folder.npz"):
            with fails(FileNotFoundError, str(tmp_path / name), "not found", "x_train, y_train, x_test, y_test"):
                load_dataset(tmp_path / name)

    @pytest.mark.parametrize(
        ("change", "parts"),
        [
            (lambda path: np.save(path.open("wb"), pixels(3, 3)), ["single array", "np.savez"]),
            (lambda path: cut(path, 0.0), ["is damaged"]),
            (lambda path: cut(path, 0.99), ["is damaged"]),
            (lambda path: path.write_text("x,y\n1,2\n"), ["is damaged or no .npz file"]),
        ],
    )
    def test_no_file_of_arrays(self, tmp_path, change, parts):
        path = write_npz(tmp_path / "a.npz")
        change(path)
        with fails(ValueError, str(path), *parts):
            load_dataset(path)

    @pytest.mark.parametrize("compressed", [True, False])
    def test_changed_bytes(self, tmp_path, compressed):
        path = write_npz(tmp_path / "a.npz")
        if compressed:
            np.savez_compressed(path, **np.load(path))
        content = bytearray(path.read_bytes())
        content[300:400] = bytes(100)
        path.write_bytes(content)
        with fails(ValueError, str(path), "is damaged in x_train", "np.savez"):
            load_dataset(path)


class TestNames:
    def test_unknown(self):
        for name, near in (("cifar11", "cifar10"), ("minst", "mnist"), ("digit", "digits")):
            with fails(ValueError, f"unknown data set '{name}'", near, "digits, mnist", "FILE.npz"):
                load_dataset(name)

    @pytest.mark.processes
    def test_import_is_light(self):
        code = (
            "import sys, importlib.util, types\n"
            "package = types.ModuleType('art_mmc'); package.__path__ = ['art_mmc']; sys.modules['art_mmc'] = package\n"
            "import art_mmc.data\n"
            "assert not {'torch', 'torchvision', 'sklearn', 'scipy', 'PIL'} & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)


class TestSplitValidation:
    def test_parts(self):
        y = np.repeat([0, 1, 2], [60, 30, 10])
        x = np.arange(100, dtype=np.float32).reshape(100, 1, 1, 1)
        (x_train, y_train), (x_val, y_val) = split_validation(x, y, 20, seed=1)
        assert np.bincount(y_val).tolist() == [12, 6, 2]
        assert np.array_equal(np.sort(np.concatenate([x_train, x_val]).ravel()), x.ravel())
        assert np.array_equal(y[x_train.ravel().astype(int)], y_train)
        assert np.array_equal(y[x_val.ravel().astype(int)], y_val)
        assert not np.shares_memory(x, x_train)

    def test_share_and_seed(self):
        y = labels(4, 25)
        x = np.arange(100)

        def held_out(size, seed):
            return split_validation(x, y, size, seed)[1][0].tolist()

        with left_alone():
            assert held_out(0.2, 3) == held_out(20, 3) == held_out(np.int64(20), 3)
            assert held_out(20, 3) != held_out(20, 4)

    def test_impossible_size(self):
        for size in (0, -1, 3, 97, 100, 1000, 0.0, 0.01, 0.99, 1.0, 20.0, float("nan"), True, "20"):
            with fails(ValueError, "size: expected 4 to 96 images", "4 classes", "100 images", f"got {size!r}"):
                split_validation(np.arange(100), labels(4, 25), size, 0)

    def test_impossible_labels(self):
        with fails(ValueError, "y: expected class indices of shape (6,)", "(5,)"):
            split_validation(np.arange(6), np.zeros(5, int), 2, 0)
        with fails(ValueError, "y: expected class indices", "(6, 2)"):
            split_validation(np.arange(6), np.zeros((6, 2)), 2, 0)
        with fails(ValueError, "y: expected at least 2 images of each class", "class 1 has one"):
            split_validation(np.arange(3), np.array([0, 0, 1]), 2, 0)
        with fails(ValueError, "y: expected at least 2 images", "there are none"):
            split_validation(np.zeros(0), np.zeros(0, int), 2, 0)


@pytest.mark.slow
@pytest.mark.skipif(
    not (Path(os.environ.get("ART_MMC_DATA", "/nowhere")) / "MNIST" / "raw").is_dir(),
    reason="ART_MMC_DATA names no folder with MNIST/raw",
)
def test_real_mnist():
    data = load_dataset("mnist", os.environ["ART_MMC_DATA"])
    check_form(data, (1, 28, 28), 10, (60000, 10000))
    assert data.y_train[:3].tolist() == [5, 0, 4]
    assert data.mean == pytest.approx([0.1307], abs=1e-4)
    assert data.std == pytest.approx([0.3081], abs=1e-4)
