"""Symmetric normalization, the yardstick of registration."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from torch import Tensor

from cortexgen.atlas.box import brain_box
from cortexgen.atlas.template import Template
from cortexgen.contracts import Frame, Registration, Solved
from cortexgen.errors import UserError
from cortexgen.io import read_field, write_volume


class SyN(Registration):
    """SyN (Avants et al., Medical Image Analysis 2008), as ANTs has it, from affine on; needs no weights.

    Arguments:
        template: around whose brain it works.
        spacing: of its grid in millimetres.
        similarity: local cross-correlation or mutual information.
        iterations: on each level, from coarse to fine.

    Raises:
        UserError: if ANTs is not installed.
    """

    def __init__(
        self,
        template: Template,
        spacing: float = 2.0,
        similarity: Literal["CC", "mattes"] = "CC",
        iterations: Sequence[int] = (100, 70, 50, 0),
    ) -> None:
        try:
            import ants
        except ImportError:
            raise UserError("syn needs ANTs: pip install 'cortexgen[preprocess]'") from None
        self.grid = brain_box(template.to(template.grid.at_spacing(spacing)))
        self.options = {"spacing": spacing, "similarity": similarity, "iterations": list(iterations)}
        self.version = ants.__version__

    @property
    def frame(self) -> Frame:
        """The box of the template's brain; its fields are displacements."""
        return Frame(self.grid, self.grid)

    def describe(self) -> dict[str, Any]:
        return {"Weights": f"SyN, antspyx {self.version}", "Template": None, "Parameters": self.options}

    def solve(self, moving: Tensor, fixed: Tensor) -> Solved:
        import ants

        options = self.options
        with TemporaryDirectory() as folder:
            images = []
            for name, image in (("fixed", fixed), ("moving", moving)):
                write_volume(Path(folder, f"{name}.nii.gz"), image[0].float().cpu(), self.grid)
                images.append(ants.image_read(str(Path(folder, f"{name}.nii.gz"))))
            found = ants.registration(
                *images,
                type_of_transform="SyNOnly",
                initial_transform="identity",
                syn_metric=options["similarity"],
                syn_sampling=4 if options["similarity"] == "CC" else 32,
                reg_iterations=options["iterations"],
                outprefix=f"{folder}/",
            )
            warp = next(path for path in found["fwdtransforms"] if path.endswith("Warp.nii.gz"))
            return Solved(read_field(Path(warp))[0][None].to(fixed.device))
