"""Noise."""

from typing import Literal

from cortexgen.errors import UserError
from cortexgen.preprocess.state import Subject
from cortexgen.preprocess.steps.step import Step
from cortexgen.preprocess.steps.volumes import box_around, from_xyz, to_xyz


class Denoise(Step):
    """Non-local means that adapts to the local noise (Manjon et al., 2010), as ANTs has it.

    Arguments:
        noise: "Rician", as in magnitude images, or "Gaussian".
        patch: radius of the patches that are compared, in voxels.
        search: radius of the neighbourhood in which they are looked for, in voxels.
    """

    name, tools = "denoise", ("antspyx",)

    def __init__(self, noise: Literal["Rician", "Gaussian"] = "Rician", patch: int = 1, search: int = 2) -> None:
        if noise not in ("Rician", "Gaussian") or patch < 1 or search < 1:
            raise UserError(
                f"Denoise: expected noise Rician or Gaussian and radii from 1 on, got {noise, patch, search}"
            )
        self.noise, self.patch, self.search = noise, patch, search

    def __call__(self, subject: Subject) -> None:
        import ants

        box = box_around(subject.inside)
        part = ants.from_numpy(to_xyz(subject.image[box]), spacing=subject.grid.spacing[::-1])
        quiet = ants.denoise_image(part, p=self.patch, r=self.search, noise_model=self.noise).numpy()
        image = subject.image.clone()
        image[box] = from_xyz(quiet).clamp(min=0) * (image[box] > 0)  # a masked background stays as it is
        subject.image = image
