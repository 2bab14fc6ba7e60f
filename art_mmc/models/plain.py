"""
Convolutional nets without shortcuts: a small default, the LeNet-5 and the substitute of the PC paper, and its VGG-13.
The width of the flattened map follows from the size of the input.
"""

from torch import nn

from art_mmc.models.base import Activation, Backbone


def cnn(input_shape: tuple[int, int, int], *, activation: Activation = nn.ReLU) -> Backbone:
    """Two 3x3 convolutions, a halving and a fully connected layer, for 8x8 digits and the like; d = 64."""
    channels, height, width = input_shape
    return Backbone(
        64,
        conv1=nn.Conv2d(channels, 16, 3, padding=1),
        act1=activation(),
        conv2=nn.Conv2d(16, 32, 3, padding=1),
        act2=activation(),
        pool=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        fc=nn.Linear(32 * (height // 2) * (width // 2), 64),
        act3=activation(),
    )


def lenet5(input_shape: tuple[int, int, int], *, activation: Activation = nn.ReLU) -> Backbone:
    """LeNet-5 in its modern form, with ReLU and max-pooling, as the PC and GCE papers use it; d = 84."""
    channels, height, width = input_shape
    rows, columns = ((size // 2 - 4) // 2 for size in (height, width))
    return Backbone(
        84,
        conv1=nn.Conv2d(channels, 6, 5, padding=2),
        act1=activation(),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(6, 16, 5),
        act2=activation(),
        pool2=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        fc1=nn.Linear(16 * rows * columns, 120),
        act3=activation(),
        fc2=nn.Linear(120, 84),
        act4=activation(),
    )


def cnn3(input_shape: tuple[int, int, int], *, activation: Activation = nn.ReLU) -> Backbone:
    """The three-layer net from which the PC paper crafts its black-box attacks on LeNet-5; d = 100."""
    channels, height, width = input_shape
    rows, columns = (((size - 8) // 2 - 4) // 2 for size in (height, width))
    return Backbone(
        100,
        conv1=nn.Conv2d(channels, 16, 5),
        act1=activation(),
        conv2=nn.Conv2d(16, 32, 5),
        act2=activation(),
        pool1=nn.MaxPool2d(2),
        conv3=nn.Conv2d(32, 64, 5),
        act3=activation(),
        pool2=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        fc=nn.Linear(64 * rows * columns, 100),
        act4=activation(),
    )


def vgg13(input_shape: tuple[int, int, int], *, activation: Activation = nn.ReLU, dropout: float = 0.5) -> Backbone:
    """VGG-13 with batch normalisation and, as in the PC paper, one hidden fully connected layer, not two; d = 512."""
    channels, height, width = input_shape
    convolutions: list[nn.Module] = []
    for out in (64, 128, 256, 512, 512):
        for into in (channels, out):
            convolutions += [nn.Conv2d(into, out, 3, padding=1), nn.BatchNorm2d(out), activation()]
        convolutions.append(nn.MaxPool2d(2))
        channels = out
    return Backbone(
        512,
        convolutions=nn.Sequential(*convolutions),
        flatten=nn.Flatten(),
        dropout=nn.Dropout(dropout),
        fc=nn.Linear(512 * (height // 32) * (width // 32), 512),
        act=activation(),
    )
