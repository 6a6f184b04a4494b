"""Greedy diffeomorphic registration, the fast classical peer."""

from importlib.metadata import version
from typing import Any

import SimpleITK as sitk
import torch
from torch import Tensor

from cortexgen.atlas.template import Template
from cortexgen.contracts import Solved
from cortexgen.errors import UserError
from cortexgen.io import read_field
from cortexgen.registration.boxed import BoxRegistration


class Greedy(BoxRegistration):
    """greedy (Yushkevich et al., Alzheimer's & Dementia 2016) by local cross-correlation, from affine on.

    Needs no weights.

    Arguments:
        template: around whose brain it works.
        spacing: of its grid in millimetres.
        window: reach of the cross-correlation's windows, in voxels.
        iterations: on each level, from coarse to fine.

    Raises:
        UserError: if picsl-greedy is not installed.
    """

    def __init__(
        self,
        template: Template,
        spacing: float = 2.0,
        window: int = 2,
        iterations: tuple[int, ...] = (100, 50, 10),
    ) -> None:
        try:
            from picsl_greedy import Greedy3D
        except ImportError:
            raise UserError("greedy needs picsl-greedy: pip install 'cortexgen[compare]'") from None
        self.program = Greedy3D
        super().__init__(template, spacing)
        self.window, self.iterations = window, iterations

    def describe(self) -> dict[str, Any]:
        name = f"greedy, picsl-greedy {version('picsl-greedy')}"
        options = {"spacing": self.spacing, "window": self.window, "iterations": list(self.iterations)}
        return {"Weights": name, "Template": None, "Parameters": options}

    def solve(self, moving: Tensor, fixed: Tensor) -> Solved:
        program = self.program()
        metric, levels = ("x".join(map(str, sizes)) for sizes in ([self.window] * 3, self.iterations))
        with self.files(fixed=fixed, moving=moving) as paths:
            images = {name: sitk.ReadImage(str(path)) for name, path in paths.items()}
            line = f"-V 0 -d 3 -i fixed moving -o warp -m NCC {metric} -n {levels} -threads {torch.get_num_threads()}"
            program.execute(line, **images, warp=None)
            path = paths["fixed"].with_name("warp.nii.gz")
            sitk.WriteImage(program["warp"], str(path))
            return Solved(read_field(path)[0][None].to(fixed.device))
