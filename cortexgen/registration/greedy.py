"""Greedy diffeomorphic registration, the fast classical peer."""

from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import SimpleITK as sitk
import torch
from torch import Tensor

from cortexgen.atlas.box import brain_box
from cortexgen.atlas.template import Template
from cortexgen.contracts import Frame, Registration, Solved
from cortexgen.errors import UserError
from cortexgen.io import read_field, write_volume


class Greedy(Registration):
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
        self.grid = brain_box(template.to(template.grid.at_spacing(spacing)))
        self.spacing, self.window, self.iterations = spacing, window, iterations

    @property
    def frame(self) -> Frame:
        """The box of the template's brain; its fields are displacements."""
        return Frame(self.grid, self.grid)

    def describe(self) -> dict[str, Any]:
        name = f"greedy, picsl-greedy {version('picsl-greedy')}"
        options = {"spacing": self.spacing, "window": self.window, "iterations": list(self.iterations)}
        return {"Weights": name, "Template": None, "Parameters": options}

    def solve(self, moving: Tensor, fixed: Tensor) -> Solved:
        program = self.program()
        metric, levels = ("x".join(map(str, sizes)) for sizes in ([self.window] * 3, self.iterations))
        with TemporaryDirectory() as folder:
            images = {}
            for name, image in (("fixed", fixed), ("moving", moving)):
                path = Path(folder, f"{name}.nii.gz")
                write_volume(path, image[0].float().cpu(), self.grid)
                images[name] = sitk.ReadImage(str(path))
            line = f"-V 0 -d 3 -i fixed moving -o warp -m NCC {metric} -n {levels} -threads {torch.get_num_threads()}"
            program.execute(line, **images, warp=None)
            path = Path(folder, "warp.nii.gz")
            sitk.WriteImage(program["warp"], str(path))
            return Solved(read_field(path)[0][None].to(fixed.device))
