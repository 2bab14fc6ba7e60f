"""
Data sets as NumPy arrays, all in one form: images float32 (N, C, H, W) in [0, 1], labels int64 (N,) in 0 .. K - 1.

Whatever is read, from scikit-learn, torchvision, a folder or a user's own file, passes the same checks here, so that
the rest of the package need not ask whether the pixels were divided by 255 or a class is missing.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from art_mmc.checks import READ_ERRORS, as_path, check_images, check_labels, check_seed, unknown_name
from art_mmc.pretrained import FOLDER

_Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]

_ARRAY_NAMES = ("x_train", "y_train", "x_test", "y_test")
_CHANNELS = (1, 3)
_SAMPLE = "-sample"
_TINY_FOLDER = "tiny-imagenet-200"
_TINY_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"


@dataclass(frozen=True, eq=False)
class Dataset:
    """
    A training and a test set, checked.

    :param name: Name of the data set, or the path of the user's own file.
    :param x_train: Training images (N, C, H, W), float32 in [0, 1], C-contiguous; a set that is made of arrays may
           have inputs (N, ...) of any shape. Test data alone have none, (0, C, H, W).
    :param y_train: Training labels (N,), int64 in 0 .. K - 1, every class present.
    :param x_test: Test images (M, C, H, W), as `x_train`.
    :param y_test: Test labels (M,), as `y_train`, though a class may be absent.
    """

    name: str
    x_train: np.ndarray = field(repr=False)
    y_train: np.ndarray = field(repr=False)
    x_test: np.ndarray = field(repr=False)
    y_test: np.ndarray = field(repr=False)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, (C, H, W) for images."""
        return self.x_train.shape[1:]

    @cached_property
    def nb_classes(self) -> int:
        """Number of classes K, the highest training label plus one; of test data alone, the highest test label."""
        return int((self.y_train if len(self.y_train) else self.y_test).max()) + 1

    def check_training(self) -> None:
        """ValueError where there are test data alone, on which nothing is to be trained or fitted."""
        if not len(self.y_train):
            whole = self.name.removesuffix(_SAMPLE)
            raise ValueError(
                f"{self.name} has test images alone, on which nothing is trained or fitted: take the whole data set, "
                f"--dataset {whole} --data-dir DIR"
            )

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel over the training images, C numbers in [0, 1]."""
        return self._moments[0]

    @property
    def std(self) -> tuple[float, ...]:
        """
        Standard deviation of each channel over the training images (divided by N H W), C numbers in [0, 0.5]; 0 for a
        channel that never changes.
        """
        return self._moments[1]

    @cached_property
    def pixel_mean(self) -> np.ndarray:
        """Mean of each pixel over the training images, (C, H, W), float32 in [0, 1]."""
        self.check_training()
        return self.x_train.mean(axis=0, dtype=np.float64).astype(np.float32)

    @cached_property
    def _moments(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        self.check_training()
        x = self.x_train.reshape(*self.x_train.shape[:2], -1)
        mean = x.mean(axis=(0, 2), dtype=np.float64)
        # numpy's std would hold a second copy of the whole set
        squares = np.einsum("ncp,ncp->c", x, x, dtype=np.float64) / (x.shape[0] * x.shape[2])
        std = np.sqrt(np.maximum(squares - mean**2, 0.0))
        return tuple(mean.tolist()), tuple(std.tolist())


def load_dataset(
    name: str | os.PathLike[str] = "digits",
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = False,
) -> Dataset:
    """
    Load a data set by its name, or from a user's own .npz file.

    The file holds `x_train`, `y_train`, `x_test` and `y_test`, other arrays in it being ignored. Images are uint8 in
    0..255 or floats in [0, 1], of shape (N, C, H, W) or (N, H, W, C) with C = 1 or 3, or grey and square (N, H, H):
    other arrays of three axes may be signals (N, C, T), and are refused. Labels are class indices (N,) or (N, 1), or
    one-hot (N, K). Inputs that are no images need no file: classifiers and trainers take arrays of any shape (N, ...).

    Sizes in memory: MNIST 0.2 GB, CIFAR-10 0.7 GB, SVHN 1.2 GB, Tiny ImageNet 5.4 GB.

    :param name: One of `DATASETS`, in any spelling of case, hyphens and underscores, or a path that ends in ".npz".
        "digits", scikit-learn's 8 x 8 digits, needs no files: 1,397 training and 400 test images, always the same ones.
        "mnist-sample" comes with the package: 1,000 test images of MNIST, 100 of each class, and no training images.
        "tiny-imagenet" has its val split for a test set.
    :param data_dir: Folder that holds the files, in torchvision's layout; for "tiny-imagenet" the folder
        tiny-imagenet-200 or the one around it. Not used for "digits", "mnist-sample" and .npz files.
    :param download: Whether torchvision may download files that are not in `data_dir`.
    :return: The data set.
    :raises FileNotFoundError: When files are missing or cannot be downloaded.
    :raises ValueError: When the name is unknown, `data_dir` is needed and None, a file is damaged, or its images or
        labels are not as above.
    """
    label = str(as_path("name", name))
    if label.lower().endswith(".npz"):
        return _checked(label, _load_npz(Path(label)))
    known = {_compact(each): each for each in DATASETS} | _ALIASES
    if _compact(label) not in known:
        raise unknown_name("data set", label, (*DATASETS, "FILE.npz"))
    label = known[_compact(label)]
    if label.endswith(_SAMPLE):
        with np.load(FOLDER / f"{label}.npz") as archive:
            x, y = _to_unit(archive["x_test"], label), archive["y_test"].astype(np.int64)
        return Dataset(label, x[:0], y[:0], x, y)
    folder = None if data_dir is None else as_path("data_dir", data_dir)
    return _checked(label, _LOADERS[label](label, folder, download))


def split_validation(
    x: np.ndarray, y: np.ndarray, size: int | float, seed: int = 0
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """
    Hold out a part of the training data, with the same share of every class.

    :param x: Training images (N, ...).
    :param y: Training labels (N,), class indices.
    :param size: Number of images to hold out, or their share as a float in (0, 1).
    :param seed: Seed of the split; the global random state is neither used nor changed.
    :return: The remaining `(x_train, y_train)` and the held out `(x_val, y_val)`, as copies, shuffled.
    :raises ValueError: When `y` does not fit `x`, or `size` leaves one of the two parts with fewer images than there
        are classes.
    """
    from sklearn.model_selection import train_test_split

    y, seed = np.asarray(y), check_seed(seed)
    if y.ndim != 1 or len(y) != len(x):
        raise ValueError(f"y: expected class indices of shape ({len(x)},) for {len(x)} images, got shape {y.shape}")
    classes, counts = np.unique(y, return_counts=True)
    if len(y) == 0 or counts.min() < 2:
        rare = f"class {classes[counts.argmin()]} has one" if len(y) else "there are none"
        raise ValueError(f"y: expected at least 2 images of each class, one for either part, but {rare}")
    held_out = -1
    if isinstance(size, (int, np.integer)) and not isinstance(size, bool):
        held_out = int(size)
    elif isinstance(size, (float, np.floating)) and 0 < size < 1:
        held_out = int(size * len(y) + 0.5)
    if not len(classes) <= held_out <= len(y) - len(classes):
        raise ValueError(
            f"size: expected {len(classes)} to {len(y) - len(classes)} images, or that as a share in (0, 1), so that "
            f"each of the {len(classes)} classes can be in both parts of the {len(y)} images, got {size!r}"
        )
    train, val = train_test_split(np.arange(len(y)), test_size=held_out, stratify=y, random_state=seed)
    return (x[train], y[train]), (x[val], y[val])


def _compact(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def _cause(err: BaseException) -> str:
    """One line for an error: some readers raise several lines, or no text at all."""
    lines = str(err).splitlines()
    return f"{type(err).__name__}: {lines[0]}" if lines else type(err).__name__


# --- one form for all -------------------------------------------------------------------------------------------------


def _checked(name: str, arrays: _Arrays) -> Dataset:
    """A data set of what a loader returned: images by `_to_unit`, labels as found. The name starts messages."""
    x_train, y_train, x_test, y_test = arrays
    if x_train.shape[1:] != x_test.shape[1:]:
        raise ValueError(
            f"{name}: x_train has images of shape {x_train.shape[1:]}, x_test of shape {x_test.shape[1:]} (C, H, W): "
            f"expected the same"
        )
    y_train, nb_classes = _class_indices(y_train, f"{name}: y_train", len(x_train))
    present = np.unique(y_train)
    if len(present) < nb_classes:
        # The first gaps only: a stray label of 10**9 must not cost a list of that length.
        missing = np.setdiff1d(np.arange(min(nb_classes, len(present) + 5)), present)[:5]
        more = ", ..." if nb_classes - len(present) > len(missing) else ""
        mend = "subtract 1 from all labels" if present[0] == 1 else "number the classes without gaps"
        raise ValueError(
            f"{name}: y_train: expected every class from 0 to {nb_classes - 1}, but there is no image of class "
            f"{', '.join(map(str, missing))}{more}; {mend}"
        )
    if nb_classes < 2:
        raise ValueError(f"{name}: y_train: expected at least 2 classes, got only class 0")
    y_test, _ = _class_indices(y_test, f"{name}: y_test", len(x_test), nb_classes)
    return Dataset(name, x_train, y_train, x_test, y_test)


def _class_indices(y: np.ndarray, name: str, length: int, nb_classes: int | None = None) -> tuple[np.ndarray, int]:
    """Labels (N,), (N, 1) or one-hot (N, K) as int64 (N,), and K: as given, by the columns or the highest label."""
    if y.dtype.kind not in "iufb":
        raise ValueError(f"{name}: expected whole numbers 0 .. K - 1 or one-hot rows, got dtype {y.dtype}")
    one_hot = y.ndim == 2 and y.shape[1] > 1
    if nb_classes is None:
        # The checks below are to speak of NaN or no labels at all, not max().
        highest = y.max() if y.size and np.isfinite(y).all() else 0
        nb_classes = y.shape[1] if one_hot else max(int(highest) + 1, 1)
    labels = check_labels(y, nb_classes, name, length)
    if one_hot and not (((y == 0) | (y == 1)).all() and (np.count_nonzero(y, axis=1) == 1).all()):
        raise ValueError(f"{name} has shape {y.shape}, but its rows are not one-hot: expected a single 1 and else 0")
    return labels.astype(np.int64), nb_classes


def _to_unit(x: np.ndarray, name: str) -> np.ndarray:
    """uint8, or floats in [0, 1], of a shape that `_channels_first` knows, as C-contiguous float32 (N, C, H, W)."""
    if x.size == 0:
        raise ValueError(f"{name} is empty (shape {x.shape}): at least one image is needed")
    x = _channels_first(x, name)
    if x.dtype == np.uint8:
        if x.max() <= 1:
            raise ValueError(
                f"{name}: expected uint8 values 0..255, got none above 1; save images in [0, 1] as float32"
            )
        return np.divide(x, np.float32(255), out=np.empty(x.shape, np.float32), dtype=np.float32)
    if x.dtype.kind != "f":
        mend = "save black and white as float32" if x.dtype.kind == "b" else "for values 0..255 use x.astype(np.uint8)"
        raise ValueError(f"{name}: expected uint8 in 0..255 or floats in [0, 1], got dtype {x.dtype}; {mend}")
    with np.errstate(over="ignore"):
        x = np.ascontiguousarray(x, dtype=np.float32)
    check_images(x, name=name)
    low, high = float(x.min()), float(x.max())
    if low < 0 or high > 1:
        if low >= 0 and 2 < high <= 255:
            mend = "these look like values 0..255 as float; divide by 255"
        else:
            mend = (
                "undo any normalisation, which belongs into the model, or clip small overshoots with np.clip(x, 0, 1)"
            )
        raise ValueError(f"{name}: expected floats in [0, 1], got {low:.6g} to {high:.6g}; {mend}")
    return x


def _channels_first(x: np.ndarray, name: str) -> np.ndarray:
    """A view as (N, C, H, W) of images (N, H, H), (N, C, H, W) or (N, H, W, C) with C = 1 or 3."""
    if x.ndim == 3 and x.shape[1] == x.shape[2]:
        return x[:, None]
    if x.ndim == 4:
        first, last = x.shape[1] in _CHANNELS, x.shape[3] in _CHANNELS
        if first and last:
            raise ValueError(
                f"{name} has the ambiguous shape {x.shape}: the channels may be axis 1 or axis 3; save grey images as "
                f"(N, H, W), and pad colour images so that no side is 1 or 3 pixels"
            )
        if first:
            return x
        if last:
            return x.transpose(0, 3, 1, 2)
    mend = ""
    if x.ndim == 2:
        mend = "; reshape flat images to (N, H, W); a table goes to classifiers and trainers as arrays, without a file"
    elif x.ndim == 3:
        mend = "; save oblong grey images as (N, 1, H, W); signals go to classifiers and trainers as arrays"
    elif x.ndim > 4:
        mend = "; volumes and films go to classifiers and trainers as arrays, without a file"
    elif x.ndim == 4 and 4 in (x.shape[1], x.shape[3]):
        mend = "; drop the alpha channel of RGBA images"
    raise ValueError(
        f"{name} has shape {x.shape}: expected (N, C, H, W) or (N, H, W, C) with C = 1 or 3, or (N, H, H){mend}"
    )


# --- loaders: (name, data_dir, download) -> images by _to_unit, labels as found ---------------------------------------


def _load_digits(name: str, data_dir: Path | None, download: bool) -> _Arrays:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    # Not a parameter: a model trained on one split and tested on another would have seen its test images.
    train, test = train_test_split(np.arange(len(digits.target)), test_size=400, stratify=digits.target, random_state=0)
    x = _to_unit(digits.images / 16, name)
    return x[train], digits.target[train], x[test], digits.target[test]


def _mnist_files(cls: Any, train: bool) -> dict[str, str | None]:
    # torchvision keeps checksums of the .gz files only, not of the unpacked ones that it reads.
    prefix = "train-" if train else "t10k-"
    return {f"{cls.__name__}/raw/{Path(gz).stem}": None for gz, _ in cls.resources if gz.startswith(prefix)}


def _cifar_files(cls: Any, train: bool) -> dict[str, str | None]:
    # Either split: torchvision checks all of them whenever it reads one.
    meta = (cls.meta["filename"], cls.meta["md5"])
    return {f"{cls.base_folder}/{file}": md5 for file, md5 in (*cls.train_list, *cls.test_list, meta)}


def _svhn_files(cls: Any, train: bool) -> dict[str, str | None]:
    _, file, md5 = cls.split_list["train" if train else "test"]
    return {file: md5}


def _torchvision(
    class_name: str,
    files: Callable[[Any, bool], dict[str, str | None]],
    labels: str = "targets",
    split: Callable[[bool], dict[str, Any]] = lambda train: {"train": train},
) -> Callable[[str, Path | None, bool], _Arrays]:
    """Reader of a class in `torchvision.datasets`, whose `files`, True for training ones, have MD5 sums or None."""

    def load(name: str, data_dir: Path | None, download: bool) -> _Arrays:
        import torchvision

        root, cls, arrays = _required(name, data_dir), getattr(torchvision.datasets, class_name), []
        for train in (True, False):  # one after the other: the bytes of the first are gone when the second is read
            try:
                found = cls(root, download=download, **split(train))
            except READ_ERRORS as err:
                listed = {part: files(cls, part) for part in (train, not train)}
                raise _torchvision_error(name, root, download, listed, err) from err
            # (N, H, W) tensor, (N, H, W, C) or (N, C, H, W) array: all taken whole, never image by image
            arrays.append(_to_unit(np.asarray(found.data), f"{name}: x_{'train' if train else 'test'}"))
            arrays.append(np.asarray(getattr(found, labels)))
            del found
        return tuple(arrays)  # type: ignore[return-value]

    return load


def _torchvision_error(
    name: str, root: Path, download: bool, files: dict[bool, dict[str, str | None]], err: BaseException
) -> Exception:
    """The error for what torchvision could not read, with the file, one of the split that was read or of the other."""
    from torchvision.datasets.utils import check_integrity

    missing = [file for part in files.values() for file in part if not (root / file).is_file()]
    if missing:
        failed = f", which could not be downloaded ({_cause(err)}); put it there yourself"
        mend = failed if download else "; pass download=True (--download) or put it there"
        return FileNotFoundError(f"{name} not found under {root}: expected {root / missing[0]}{mend}")
    read = next(iter(files.values()))
    suspects = [file for file, md5 in read.items() if not check_integrity(root / file, md5)] or list(read)
    which = suspects[0] if len(suspects) == 1 else f"one of {', '.join(suspects)}"
    return ValueError(
        f"{name}: {which} under {root} is damaged ({_cause(err)}); delete it, then pass download=True (--download) or "
        f"put it there again"
    )


def _load_tiny_imagenet(name: str, data_dir: Path | None, download: bool) -> _Arrays:
    root = _required(name, data_dir)
    if (root / _TINY_FOLDER).is_dir():
        root = root / _TINY_FOLDER
    annotations = root / "val" / "val_annotations.txt"
    for needed in (root / "wnids.txt", annotations):
        if not needed.is_file():
            raise FileNotFoundError(
                f"{name} not found under {data_dir}: expected {needed}; unpack {_TINY_URL} there (it is not downloaded "
                f"for you)"
            )
    wnids = (root / "wnids.txt").read_text(encoding="utf-8", errors="replace").split()
    index = {wnid: k for k, wnid in enumerate(wnids)}
    if not wnids or len(index) < len(wnids):
        raise ValueError(
            f"{name}: {root / 'wnids.txt'} is damaged: expected one class per line, none twice; unpack the set again"
        )

    train: list[tuple[Path, int]] = []
    for wnid, k in index.items():
        folder = root / "train" / wnid / "images"
        images = sorted(folder.glob("*.JPEG"))
        if not images:
            raise FileNotFoundError(
                f"{name}: no images of class {wnid}: expected {folder / '*.JPEG'}; unpack the set again"
            )
        train += [(path, k) for path in images]

    val: list[tuple[Path, int]] = []
    for number, line in enumerate(annotations.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        fields = line.split()
        if len(fields) < 2 or fields[1] not in index:
            raise ValueError(
                f"{name}: {annotations} is damaged in line {number}: expected a file name and a class of wnids.txt, "
                f"got {line[:60]!r}"
            )
        val.append((root / "val" / "images" / fields[0], index[fields[1]]))
    if not val:
        raise ValueError(f"{name}: {annotations} is damaged: expected one line per image, got none")

    return *_read_images(name, train), *_read_images(name, val)


def _read_images(name: str, listed: list[tuple[Path, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Image files of one size straight into one array (N, 3, H, W), float32 in [0, 1], and their labels (N,)."""
    from PIL import Image

    x = np.empty(0, np.float32)
    for i, (path, _) in enumerate(listed):
        try:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
        except FileNotFoundError as err:
            raise FileNotFoundError(f"{name}: {path} is listed but not there; unpack the set again") from err
        except (OSError, SyntaxError, ValueError) as err:
            raise ValueError(f"{name}: {path} is damaged ({_cause(err)}); unpack the set again") from err
        if i == 0:
            x = np.empty((len(listed), *pixels.shape), np.float32)
        if pixels.shape != x.shape[1:]:
            raise ValueError(
                f"{name}: {path} has shape {pixels.shape} (C, H, W): expected {x.shape[1:]} as in {listed[0][0]}"
            )
        np.divide(pixels, np.float32(255), out=x[i], dtype=np.float32)
    return x, np.array([k for _, k in listed], dtype=np.int64)


def _load_npz(path: Path) -> _Arrays:
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found: expected an .npz file with {', '.join(_ARRAY_NAMES)}")
    try:
        archive = np.load(path, allow_pickle=False)
    except READ_ERRORS as err:
        raise ValueError(f"{path} is damaged or no .npz file ({_cause(err)}); save it again with np.savez") from err
    if isinstance(archive, np.ndarray):
        raise ValueError(f"{path} is a single array: expected {', '.join(_ARRAY_NAMES)}; save them with np.savez")
    with archive:
        missing = [each for each in _ARRAY_NAMES if each not in archive.files]
        if missing:
            raise ValueError(
                f"{path}: no array {', '.join(missing)}: expected {', '.join(_ARRAY_NAMES)}, "
                f"got {', '.join(archive.files) or 'an empty file'}"
            )
        # The images are converted as they come, so that the bytes of one set are gone when the next is read.
        x_train = _to_unit(_npz_array(path, archive, "x_train"), f"{path}: x_train")
        x_test = _to_unit(_npz_array(path, archive, "x_test"), f"{path}: x_test")
        return x_train, _npz_array(path, archive, "y_train"), x_test, _npz_array(path, archive, "y_test")


def _npz_array(path: Path, archive: Any, key: str) -> np.ndarray:
    try:
        return np.asarray(archive[key])
    except READ_ERRORS as err:
        if "allow_pickle" in str(err):
            raise ValueError(
                f"{path}: {key} holds Python objects, which are not loaded; save it as an array of numbers"
            ) from err
        raise ValueError(f"{path} is damaged in {key} ({_cause(err)}); save it again with np.savez") from err


def _required(name: str, data_dir: Path | None) -> Path:
    if data_dir is None:
        raise ValueError(
            f"{name}: data_dir is needed: the folder that holds the set, or with download=True (--download) is to do so"
        )
    return data_dir


_LOADERS: dict[str, Callable[[str, Path | None, bool], _Arrays]] = {
    "digits": _load_digits,
    "mnist": _torchvision("MNIST", _mnist_files),
    "fashion-mnist": _torchvision("FashionMNIST", _mnist_files),
    "kmnist": _torchvision("KMNIST", _mnist_files),
    "cifar10": _torchvision("CIFAR10", _cifar_files),
    "cifar100": _torchvision("CIFAR100", _cifar_files),
    "svhn": _torchvision("SVHN", _svhn_files, "labels", lambda train: {"split": "train" if train else "test"}),
    "tiny-imagenet": _load_tiny_imagenet,
}

_ALIASES = {"fmnist": "fashion-mnist"}

#: Names that `load_dataset` knows.
DATASETS: tuple[str, ...] = (*_LOADERS, "mnist-sample")
