"""VoxelMorph (Balakrishnan et al., 2019) on a cohort: trained without labels, then called by `peers.py`."""

from itertools import chain, islice, repeat
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from cortexgen.atlas.intensity import normalize
from cortexgen.data.registration import RegistrationDataModule
from cortexgen.io import Grid, read_volume, write_field, write_volume
from cortexgen.io.labels import label_type
from cortexgen.losses import gradient_energy, local_ncc
from cortexgen.runner.precision import autocast
from cortexgen.spatial import identity, resample, resample_field, warp, warp_labels

WEIGHTS = "voxelmorph.pt"
SETTINGS = {"features": (16, 32, 32, 32), "lr": 3e-4, "smoothness": 1.0}
CPU = torch.device("cpu")


class VoxelMorph(torch.nn.Module):
    """VoxelMorph's diffeomorphic network, on images padded to the size that its levels need."""

    def __init__(self) -> None:
        super().__init__()
        from voxelmorph.nn.models import VxmPairwise

        self.network = VxmPairwise(3, 1, 1, nb_features=SETTINGS["features"], integration_steps=7)

    def forward(self, moving: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor]:
        """The velocity of a pair `[1, 1, D, H, W]` and its displacement, both `[1, 3, D, H, W]`."""
        (d, h, w), multiple = fixed.shape[2:], 2 ** len(SETTINGS["features"])
        padding = [0, -w % multiple, 0, -h % multiple, 0, -d % multiple]
        with autocast(CPU, "auto"):
            moving, fixed = F.pad(moving, padding), F.pad(fixed, padding)
            velocity = self.network(moving, fixed, return_field_type="velocity").float()
        displacement = self.network.velocity_field_integrator(velocity)
        return velocity[:, :, :d, :h, :w], displacement[:, :, :d, :h, :w]


def train(data: RegistrationDataModule, folder: Path, steps: int) -> None:
    """Train on a cohort's training side for so many steps of one pair, unless the folder has these weights."""
    data.setup("fit")
    made_by = str([SETTINGS, steps, data.template.hash, [scan.name for scan in data.side("train")]])
    if (folder / WEIGHTS).is_file() and torch.load(folder / WEIGHTS)["made_by"] == made_by:
        return
    torch.manual_seed(0)
    model = VoxelMorph()
    optimizer = torch.optim.Adam(model.parameters(), SETTINGS["lr"])
    pairs = islice(chain.from_iterable(repeat(data.train_dataloader())), steps)
    for pair in tqdm(pairs, "training VoxelMorph", steps):
        velocity, displacement = model(pair["moving"], pair["fixed"])
        similarity = local_ncc(warp(pair["moving"], displacement), pair["fixed"])
        optimizer.zero_grad()
        (SETTINGS["smoothness"] * gradient_energy(velocity) - similarity).backward()
        optimizer.step()
    torch.save({"made_by": made_by, "state": model.state_dict(), "box": data.grid.to_dict()}, folder / WEIGHTS)


@torch.no_grad()
def register(image: str, moving: str, labels: str, out: str, threads: int) -> None:
    """Register by the weights of the working folder, in the box that they learned in; writes as `peers.py` says."""
    torch.set_num_threads(threads)
    weights, model = torch.load(WEIGHTS), VoxelMorph().eval()
    model.load_state_dict(weights["state"])
    box = Grid.from_dict(weights["box"])
    (fixed, grid), (template, _) = (read_volume(Path(path)) for path in (image, moving))
    dseg, _ = read_volume(Path(labels), labels=True)
    pair = (normalize(volume)[None] for volume in (template, fixed))
    _, displacement = model(*(resample(v, grid.torch_affine, box.shape, box.torch_affine) for v in pair))
    displacement = resample_field(displacement, box.torch_affine, grid.shape, grid.torch_affine)
    carried, _ = warp_labels(dseg[None], identity(grid.shape) + displacement, int(dseg.max()) + 1)
    write_field(Path(f"{out}_xfm.nii.gz"), displacement[0], grid)
    write_volume(Path(f"{out}_T1w.nii.gz"), warp(template[None], displacement, padding="zeros")[0], grid)
    write_volume(Path(f"{out}_dseg.nii.gz"), carried[0], grid, label_type(int(dseg.max())))
