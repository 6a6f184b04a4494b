"""Patches of images too large to be worked on whole, cut and put together by TorchIO.

A network's answer lives on every first, second or fourth voxel: patches start at multiples of four.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cortexgen.data.augmentation import VOLUMES
from cortexgen.errors import UserError
from cortexgen.io import Grid
from cortexgen.spatial import coarse_shape

CUT = (*VOLUMES, "place")  # what of a sample lies on the grid
EVERY = 4  # voxels, between places where a patch may start
BACKGROUND = 0.01  # weight of a patch whose middle is outside of the brain


def _subject(volumes: dict[str, Tensor], affine: Any = None) -> Any:
    import torchio as tio  # takes a second

    kind = {key: tio.ScalarImage if volume.is_floating_point() else tio.LabelMap for key, volume in volumes.items()}
    return tio.Subject({key: kind[key](tensor=volume, affine=affine) for key, volume in volumes.items()})


class PatchSampler:
    """Cuts the same part out of all images of a sample, mostly one whose middle is in the brain.

    What TorchIO's queue of patches gives depends on what it gave before; a training that goes on must see what it would
    have seen, so that each sample's generator draws its patch.

    Arguments:
        size: D, H, W of a patch, up to the grid's.
        grid: of the images.
        brain: a mask on it, `[1, D, H, W]`.
    """

    def __init__(self, size: Sequence[int], grid: Grid, brain: Tensor) -> None:
        import torchio as tio

        if len(size) != 3 or not all(1 <= n <= whole for n, whole in zip(size, grid.shape, strict=True)):
            raise UserError(f"patch: expected three sizes D, H, W up to those of the grid, {grid.shape}, got {size}")
        starts = torch.zeros(1, *grid.shape)
        d, h, w = (slice(n // 2, None, EVERY) for n in size)
        starts[:, d, h, w] = torch.where(brain, 1, BACKGROUND)[:, d, h, w]
        self.grid, self.sampler = grid, tio.WeightedSampler((size[0], size[1], size[2]), "starts")
        self.weights = self.sampler.process_probability_map(starts, _subject({"starts": starts}))
        self.cumulative = self.sampler.get_cumulative_distribution_function(self.weights)

    def __call__(self, sample: dict[str, Any], generator: torch.Generator | None = None) -> dict[str, Any]:
        """The sample with a part of each of its images."""
        subject = _subject({key: sample[key] for key in CUT if key in sample}, self.grid.affine)
        seed = int(torch.randint(2**62, (), generator=generator))
        with torch.random.fork_rng(devices=[]):  # TorchIO draws with torch's own generator
            torch.manual_seed(seed)
            patch = self.sampler.extract_patch(subject, self.weights, self.cumulative)
        return sample | {key: patch[key].data for key in subject}


def in_patches(
    network: Callable[..., Tensor],
    images: Sequence[Tensor],
    size: Sequence[int],
    downsample: int = 1,
    mode: Literal["crop", "average", "hann"] = "hann",
) -> Tensor:
    """A network's answer to whole images, put together from those to patches that overlap by half.

    With "crop" it is that to the whole images, where the network sees no farther than a quarter of a patch and halves
    of patches are multiples of its coarsest voxel. The last patches reach beyond the images, into zeros.

    Arguments:
        network: from images `[1, C, *size]` to `[1, K, *size / downsample]`.
        images: `[B, C, D, H, W]` each, on one grid.
        size: D, H, W of a patch.
        downsample: the answer lives on every so many-th voxel.
        mode: "crop" takes each voxel from the patch whose middle is nearest; "average" and "hann" average over
            patches, the latter with weights that fall towards their borders.

    Returns:
        `[B, K, *coarse_shape]` float32, on the device of the images.

    Raises:
        UserError: if half of a patch is no even number of voxels of the answer.
    """
    import torchio as tio

    if len(size) == 3 and any(n > 2 * have for n, have in zip(size, images[0].shape[2:], strict=True)):
        raise UserError(f"patch: {list(size)} is more than twice the images, {list(images[0].shape[2:])}")
    if len(size) != 3 or any(n < 1 or n % (4 * downsample) for n in size):
        raise UserError(f"patch: expected three sizes D, H, W that {4 * downsample} divides, got {list(size)}")
    shape, half = images[0].shape[2:], [n // 2 for n in size]
    whole = [n + max(0, -(-(have - n) // step)) * step for n, have, step in zip(size, shape, half, strict=True)]
    padding = [n for have, want in zip(reversed(shape), reversed(whole), strict=True) for n in (0, want - have)]

    def sampler(volumes: dict[str, Tensor], factor: int) -> Any:
        (d, h, w), (dd, hh, ww) = ([n // factor for n in sizes] for sizes in (size, half))
        return tio.GridSampler(_subject(volumes), (d, h, w), (dd, hh, ww))

    places = sampler({"answer": torch.zeros(1, *(n // downsample for n in whole))}, downsample)
    out = []
    for pair in zip(*images, strict=True):
        aggregator = tio.GridAggregator(places, mode)
        patches = sampler({str(i): F.pad(image, padding).cpu() for i, image in enumerate(pair)}, 1)
        for patch, place in zip(patches(), places.locations, strict=True):
            answer = network(*(patch[str(i)].data[None].to(image) for i, image in enumerate(pair)))
            aggregator.add_batch(answer.float(), torch.as_tensor(place)[None])
        out.append(aggregator.get_output_tensor())
    d, h, w = coarse_shape(shape, downsample)
    return torch.stack(out)[:, :, :d, :h, :w].to(images[0].device)
