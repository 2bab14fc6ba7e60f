"""
Augmentation of image batches on the device they are on, one vectorised operation a batch.

Each augmentation is a callable (batch, generator) -> batch; randomness comes from the generator alone.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

Augmentation = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


def _uniform(x: torch.Tensor, generator: torch.Generator, low: float, high: float, columns: int = 1) -> torch.Tensor:
    """Numbers uniform in [low, high), (B, columns), drawn on the generator's device."""
    draws = torch.rand(len(x), columns, generator=generator, device=generator.device)
    return (low + (high - low) * draws).to(x.device, non_blocking=True)


@dataclass(frozen=True)
class RandomFlip:
    """Mirror left and right that share of the images, in [0, 1]."""

    probability: float = 0.5

    def __call__(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Images (B, C, H, W) to images of that shape."""
        chosen = _uniform(x, generator, 0.0, 1.0) < self.probability
        return torch.where(chosen[:, :, None, None], x.flip(-1), x)


@dataclass(frozen=True)
class RandomShift:
    """
    Move each image by a whole number of pixels, uniform in [-pixels, pixels] in both directions, below 1 the share of
    the image's side, rounded down. `fill` comes in from outside: "nearest" (the edge repeated), "zero" or "reflect".
    """

    pixels: float = 4
    fill: str = "zero"

    def __post_init__(self) -> None:
        if self.fill not in ("nearest", "zero", "reflect"):
            raise ValueError(f"fill: expected 'nearest', 'zero' or 'reflect', got {self.fill!r}.")

    def __call__(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Images (B, C, H, W) to images of that shape."""
        height, width = x.shape[-2:]
        most = [int(self.pixels * side) if self.pixels < 1 else int(self.pixels) for side in (height, width)]
        mode = {"nearest": "replicate", "zero": "constant", "reflect": "reflect"}[self.fill]
        padded = functional.pad(x, (most[1], most[1], most[0], most[0]), mode=mode)
        draws = torch.rand(2, len(x), generator=generator, device=generator.device).to(x.device, non_blocking=True)
        rows = (draws[0] * (2 * most[0] + 1)).long()[:, None] + torch.arange(height, device=x.device)
        columns = (draws[1] * (2 * most[1] + 1)).long()[:, None] + torch.arange(width, device=x.device)
        batch = torch.arange(len(x), device=x.device)[:, None, None]
        # indexing (batch, row, column) with the channels last gives (B, H, W, C)
        return padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@dataclass(frozen=True)
class RandomAffine:
    """
    Rotate by an angle uniform in [-degrees, degrees], and crop a part that is scaled back to the image's size, by
    bilinear interpolation in one pass: its share of the area is uniform in [least_area, 1], its aspect ratio
    log-uniform in [3/4, 4/3] if anything is cropped.
    """

    degrees: float = 0.0
    least_area: float = 1.0

    def __call__(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Images (B, C, H, W) to images of that shape; zeros come in from outside."""
        draws = _uniform(x, generator, 0.0, 1.0, columns=5)
        angle = (2 * draws[:, 0] - 1) * math.radians(self.degrees)
        area = self.least_area + (1 - self.least_area) * draws[:, 1]
        stretch = torch.exp((2 * draws[:, 2] - 1) * (0.5 * math.log(4 / 3) if self.least_area < 1 else 0.0))
        half_width, half_height = (area.sqrt() * stretch).clamp(max=1), (area.sqrt() / stretch).clamp(max=1)
        left, top = (2 * draws[:, 3] - 1) * (1 - half_width), (2 * draws[:, 4] - 1) * (1 - half_height)
        cos, sin = torch.cos(angle), torch.sin(angle)
        theta = torch.stack(
            [
                torch.stack([half_width * cos, -half_height * sin, left], dim=1),
                torch.stack([half_width * sin, half_height * cos, top], dim=1),
            ],
            dim=1,
        )
        grid = functional.affine_grid(theta.to(x.dtype), list(x.shape), align_corners=False)
        return functional.grid_sample(x, grid, align_corners=False)


@dataclass(frozen=True)
class Sometimes:
    """Apply an augmentation to a share of the images, in [0, 1]."""

    augmentation: Augmentation
    probability: float

    def __call__(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Images (B, C, H, W) to images of that shape."""
        chosen = _uniform(x, generator, 0.0, 1.0) < self.probability
        return torch.where(chosen[:, :, None, None], self.augmentation(x, generator), x)


@dataclass(frozen=True)
class Chain:
    """One augmentation after the other."""

    steps: Sequence[Augmentation]

    def __call__(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Images (B, C, H, W) to images of that shape."""
        for step in self.steps:
            x = step(x, generator)
        return x


#: the augmentations that the papers' recipes name
AUGMENTATIONS: dict[str, Augmentation] = {
    "flip": RandomFlip(),
    "shift-nearest-flip": Chain((RandomShift(0.1, "nearest"), RandomFlip())),
    "crop-flip": Chain((RandomShift(4, "zero"), RandomFlip())),
    "reflect-crop-flip": Chain((RandomShift(4, "reflect"), RandomFlip())),
    # the PC release's Tiny ImageNet notebook: four images in five are flipped at random, rotated and cropped
    "rotate-crop-flip": Sometimes(Chain((RandomFlip(), RandomAffine(10.0, 0.08))), 0.8),
}
