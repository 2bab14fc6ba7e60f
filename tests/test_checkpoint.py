"""
One file a classifier: what goes in comes out, nothing else is executed, and a damaged file is called one.
"""

from __future__ import annotations

import copy
import json
import os
import pickle
import random
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from art.defences.postprocessor import Rounded
from art.defences.preprocessor import FeatureSqueezing
from torch import nn

from art_mmc import LossDefendedClassifier, MMCClassifier, create_classifier, load_classifier
from art_mmc.heads import FixedCentersHead
from art_mmc.losses import MMCLoss
from art_mmc.models import DefendedNet, create_backbone, wrap_backbone
from tests.cases import ROWS
from tests.conftest import INPUT_SHAPE, every

SHAPE = {"input_shape": INPUT_SHAPE, "nb_classes": 10}


class Flat(nn.Module):
    """A backbone of the user's own."""

    def __init__(self, features: int = 12) -> None:
        super().__init__()
        self.layer = nn.Linear(64, features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.flatten(1))


def images(number: int = 6, shape: tuple[int, ...] = INPUT_SHAPE) -> np.ndarray:
    return np.random.default_rng(0).random((number, *shape), np.float32)


def assert_same(one: LossDefendedClassifier, other: LossDefendedClassifier) -> None:
    """All that a user can tell two classifiers by, the optimizer aside."""
    assert type(one) is type(other)
    x, y = images(6, one.input_shape), np.arange(6) % one.nb_classes
    np.testing.assert_array_equal(one.predict(x), other.predict(x))
    np.testing.assert_array_equal(one.loss_gradient(x, y), other.loss_gradient(x, y))
    with one.using_objective("loss"), other.using_objective("loss"):
        np.testing.assert_array_equal(one.compute_loss(x, y), other.compute_loss(x, y))
    states = one.model.state_dict(), other.model.state_dict()
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        assert value.dtype == states[1][key].dtype
        assert torch.equal(value, states[1][key]), key
    for attribute in ("input_shape", "nb_classes", "objective", "channels_first", "defence"):
        assert getattr(one, attribute) == getattr(other, attribute), attribute
    np.testing.assert_array_equal(one.clip_values, other.clip_values)
    assert repr(one.loss) == repr(other.loss)
    assert repr(one.model.head) == repr(other.model.head)


def rewrite(path: Path, **changes: Any) -> None:
    """Write a checkpoint again with other contents; None takes an entry out."""
    payload = {**torch.load(path, weights_only=True), **changes}
    torch.save({key: value for key, value in payload.items() if value is not None}, path)


@pytest.fixture
def saved(trained, tmp_path) -> Path:
    path = tmp_path / "classifier.pt"
    trained["mmc"].save_checkpoint(path)
    return path


# --- round trips ------------------------------------------------------------------------------------------------------


@every
def test_everything_comes_back(name, tmp_path):
    """Options, statistics, another type of network, a cast of its own; and it learns on."""
    low, high = np.full((3, 8, 8), -1.0, np.float32), np.linspace(0.5, 1.5, 192, dtype=np.float32).reshape(3, 8, 8)
    options = {"embedding_dim": 9, **ROWS[name].options(7)}
    classifier = create_classifier(
        name,
        create_backbone("cnn", (3, 8, 8), activation="softplus", beta=5.0),
        input_shape=(3, 8, 8),
        nb_classes=7,
        mean=(0.1, 0.2, 0.3),
        std=(0.4, 0.5, 0.6),
        clip_values=(low, high),
        objective="dlr",
        **options,
    )
    classifier.loss.reduction = "sum"
    x, y = images(6, (3, 8, 8)) / 2, np.arange(6)
    classifier.fit(x, y, nb_epochs=2)
    assert classifier.save_checkpoint(tmp_path / "classifier.pt") is None
    random_state = torch.get_rng_state()
    loaded = load_classifier(tmp_path / "classifier.pt")
    assert torch.equal(torch.get_rng_state(), random_state)
    assert_same(classifier, loaded)
    written = {**loaded.model.head.options(), **loaded.loss.options(), "embedding_dim": 9}
    assert {key: written[key] for key in options} == options
    assert loaded.loss.reduction == "sum"
    assert loaded.objective == "dlr"
    assert loaded.clip_values.shape == (2, 3, 8, 8)
    assert not any(module.training for module in loaded._model.modules())
    assert isinstance(loaded.optimizer, torch.optim.Adam)
    assert loaded.optimizer.state == {}
    before = loaded.predict(x)
    loaded.fit(x, y, nb_epochs=1)
    assert not np.array_equal(loaded.predict(x), before)


def by_hand() -> LossDefendedClassifier:
    """Without the projection that `create_classifier` would add."""
    net = DefendedNet(create_backbone("cnn", INPUT_SHAPE), FixedCentersHead(64, 10, scale=3.0), mean=0.5, std=0.5)
    return MMCClassifier(net, MMCLoss(variant="paper", temperature=net.head.temperature), **SHAPE)


def ending_linearly() -> LossDefendedClassifier:
    """The user said so when it was wrapped; the bare module does for loading."""
    classifier = create_classifier("mmc", wrap_backbone(Flat(), INPUT_SHAPE, linear_output=True), **SHAPE)
    assert isinstance(classifier.model.projection, nn.Identity)
    return classifier


def cnn() -> nn.Module:
    return create_backbone("cnn", INPUT_SHAPE)


#: how it is made, and the backbone that is given when it is loaded
MADE: dict[str, tuple[Callable[[], LossDefendedClassifier], Callable[[], nn.Module | None]]] = {
    "by hand": (by_hand, lambda: None),
    "ending linearly": (ending_linearly, Flat),
    "float64": (lambda: create_classifier("mmc", cnn().double(), **SHAPE), lambda: None),
    "named and given": (lambda: create_classifier("mmc", "cnn", **SHAPE), cnn),
    **{  # with fewer dimensions than the simplex needs, too
        f"clip {box}": (
            lambda box=box: create_classifier("mmc", "cnn", **SHAPE, clip_values=box, embedding_dim=3),
            lambda: None,
        )
        for box in (None, (0.0, 255.0), (-0.1, 1 / 3))
    },
}


@pytest.mark.parametrize("kind", MADE)
def test_it_comes_back(kind, tmp_path):
    make, backbone = MADE[kind]
    classifier, path = make(), str(tmp_path / "folder" / "of" / "mine" / "classifier.pt")  # text will do
    classifier.save_checkpoint(path)
    assert_same(classifier, load_classifier(path, backbone=backbone()))


def test_nothing_is_made_that_the_file_or_the_original_holds(tmp_path, monkeypatch):
    """More classes than the features have room for: centers are spread once, and global random numbers stay unused."""
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(INPUT_SHAPE)), 4), nn.Tanh())
    make = {"input_shape": INPUT_SHAPE, "nb_classes": 30, "device_type": "cpu"}
    classifier = create_classifier("mmlda", backbone, center_seed=5, **make)
    named = create_classifier("mmlda", "cnn", embedding_dim=4, **make)
    for each in (classifier, named):
        each.save_checkpoint(tmp_path / f"{each is named}.pt")
    monkeypatch.setattr("art_mmc.heads.max_mahalanobis_centers", None)
    state = torch.get_rng_state()
    again = load_classifier(tmp_path / "False.pt", copy.deepcopy(backbone), device_type="cpu")
    assert_same(classifier, again)
    assert again.model.head.options()["center_seed"] == 5
    assert_same(named, load_classifier(tmp_path / "True.pt", device_type="cpu"))
    assert torch.equal(torch.get_rng_state(), state)
    for other in (classifier.clone_for_refitting(), copy.deepcopy(classifier), pickle.loads(pickle.dumps(classifier))):
        assert torch.equal(other.model.head.centers, classifier.model.head.centers)


def test_file_is_tensors_and_json(saved):
    """What other programs may rely on."""
    payload = torch.load(saved, weights_only=True)
    assert payload.keys() == {"format", "version", "config", "state"}
    assert payload["format"] == "art_mmc.classifier"
    assert payload["version"] == 1
    document = json.loads(payload["config"])
    assert document["defence"] == "mmc"
    assert document["backbone"]["name"] == "cnn"
    assert document["input_shape"] == [1, 8, 8]
    assert all(isinstance(value, torch.Tensor) for value in payload["state"].values())
    with zipfile.ZipFile(saved) as archive:
        assert archive.testzip() is None


# --- backbones of the user's own --------------------------------------------------------------------------------------


def test_own_backbone_is_asked_for(tmp_path):
    classifier, path, backbone = create_classifier("mmc", Flat(), **SHAPE), tmp_path / "classifier.pt", Flat()
    classifier.save_checkpoint(path)
    with pytest.raises(
        ValueError,
        match=r"has a backbone of the user's own \(tests\.test_checkpoint\..*load_classifier\(path, backbone=\.\.\.\)",
    ):
        load_classifier(path)
    loaded = load_classifier(path, backbone=backbone)
    assert_same(classifier, loaded)
    assert loaded.model.backbone.module is backbone


class Deeper(Flat):
    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Linear(12, 12)


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (lambda: Flat(13), "does not fit the backbone: .*size mismatch"),
        (Deeper, "does not fit the backbone: .*Missing key"),
        (lambda: nn.Flatten(), "does not fit the backbone: "),
        (lambda: nn.Linear(5, 12), "the module refused inputs"),
    ],
    ids=["wider", "deeper", "without weights", "other inputs"],
)
def test_wrong_backbone(backbone, message, tmp_path):
    create_classifier("mmc", Flat(), **SHAPE).save_checkpoint(tmp_path / "classifier.pt")
    with pytest.raises(ValueError, match=message):
        load_classifier(tmp_path / "classifier.pt", backbone=backbone())


# --- files that are not what they should be ---------------------------------------------------------------------------


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(f"no checkpoint at {tmp_path / 'none.pt'}")):
        load_classifier(tmp_path / "none.pt")
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load_classifier(tmp_path)


class Bomb:
    """Runs when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("wrapping", ["pickle", "torch zip", "torch legacy", "in the state", "in the config"])
def test_no_code_of_a_file_is_executed(wrapping, saved, tmp_path):
    bomb = Bomb(tmp_path / "exploded")
    if wrapping == "pickle":
        saved.write_bytes(pickle.dumps(bomb))
    elif wrapping == "torch zip":
        torch.save(bomb, saved)
    elif wrapping == "torch legacy":
        torch.save(bomb, saved, _use_new_zipfile_serialization=False)
    elif wrapping == "in the state":
        payload = torch.load(saved, weights_only=True)
        payload["state"]["head.centers"] = bomb
        torch.save(payload, saved)
    else:
        rewrite(saved, config=bomb)
    with pytest.raises(ValueError, match="is damaged, or no checkpoint of art_mmc"):
        load_classifier(saved)
    assert not (tmp_path / "exploded").exists()
    if wrapping == "pickle":  # the bomb is one
        pickle.loads(saved.read_bytes())
        assert (tmp_path / "exploded").exists()


def test_no_code_of_a_file_of_weights_is_executed(trained, tmp_path):
    torch.save({"weight": Bomb(tmp_path / "exploded")}, tmp_path / "evil.model")
    with pytest.raises(pickle.UnpicklingError):
        copy.deepcopy(trained["mmc"]).load("evil", str(tmp_path))
    assert not (tmp_path / "exploded").exists()


def test_every_changed_byte_is_noticed(saved, trained):
    """torch.load compares no checksums: a flipped bit of a weight would pass for the network."""
    data = saved.read_bytes()
    rng = random.Random(0)
    same = 0
    for place in sorted(rng.sample(range(len(data)), 60)):
        changed = bytearray(data)
        changed[place] ^= 1 << rng.randrange(8)
        saved.write_bytes(changed)
        try:
            loaded = load_classifier(saved)
        except ValueError:
            continue
        assert_same(trained["mmc"], loaded)  # a byte that fills a gap, or a date
        same += 1
    assert same < 6


def test_truncated_file(saved):
    data = saved.read_bytes()
    for length in (0, 1, 4, 30, 100, 1000, len(data) // 3, len(data) - 200, len(data) - 22, len(data) - 1):
        saved.write_bytes(data[:length])
        with pytest.raises(ValueError, match=re.escape(str(saved)) + " is damaged, or no checkpoint of art_mmc: ."):
            load_classifier(saved)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"format": "something else"}, "is no checkpoint of art_mmc (expected format 'art_mmc.classifier')"),
        ({"weight": torch.zeros(2)}, "is no checkpoint of art_mmc"),
        ([1, 2], "is no checkpoint of art_mmc"),
        (torch.zeros(2), "is no checkpoint of art_mmc"),
        ({"format": "art_mmc.classifier"}, "is damaged: it has no config, state, version"),
    ],
    ids=["other format", "state dict", "list", "tensor", "nothing but the format"],
)
def test_other_files_of_torch(content, message, tmp_path):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=re.escape(message)):
        load_classifier(tmp_path / "other.pt")


def test_newer_or_incomplete_file(saved):
    whole = saved.read_bytes()
    rewrite(saved, version=2)
    with pytest.raises(ValueError, match=r"was written by a newer art_mmc \(format version 2, known: 1\)"):
        load_classifier(saved)
    for entry in ("version", "config", "state"):
        saved.write_bytes(whole)
        rewrite(saved, **{entry: None})
        with pytest.raises(ValueError, match=f"is damaged: it has no {entry}"):
            load_classifier(saved)


def test_failed_write_leaves_the_old_file(saved, trained, monkeypatch):
    """A reader sees the old classifier or the new one, never half of one, and no temporary file stays."""
    old = saved.read_bytes()
    monkeypatch.setattr("os.fsync", lambda number: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trained["sce"].save_checkpoint(saved)
    assert saved.read_bytes() == old
    assert os.listdir(saved.parent) == ["classifier.pt"]


# --- what a file can't describe ---------------------------------------------------------------------------------------


class OwnLoss(MMCLoss):
    pass


class OwnNet(DefendedNet):
    pass


@pytest.mark.parametrize(
    "make",
    [
        lambda: LossDefendedClassifier(Flat(10), nn.CrossEntropyLoss(), **SHAPE),
        lambda: create_classifier("sce", "cnn", **SHAPE, loss=nn.CrossEntropyLoss()),
        lambda: create_classifier("mmc", "cnn", **SHAPE, loss=OwnLoss(temperature=10.0)),
        lambda: MMCClassifier(OwnNet(cnn(), FixedCentersHead(64, 10)), **SHAPE),
    ],
    ids=["base class", "own loss", "derived loss", "derived network"],
)
def test_own_loss_or_network_is_refused(make, tmp_path):
    """It would come back as another one."""
    with pytest.raises(
        ValueError, match=r"is none of the table of defences: use save\(\) for the weights alone, or pickle"
    ):
        make().save_checkpoint(tmp_path / "classifier.pt")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "outside",
    [
        {"preprocessing": (0.5, 0.5)},
        {"preprocessing_defences": FeatureSqueezing(clip_values=(0, 1))},
        {"postprocessing_defences": Rounded(2)},
    ],
    ids=["preprocessing", "preprocessing_defences", "postprocessing_defences"],
)
def test_processing_outside_the_network_is_refused(outside, tmp_path):
    classifier = create_classifier("mmc", "cnn", **SHAPE, **outside)
    with pytest.raises(ValueError, match="lies outside the network and can't be written; use mean and std"):
        classifier.save_checkpoint(tmp_path / "classifier.pt")
