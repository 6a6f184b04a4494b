"""Symmetric normalization, the yardstick of registration."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from cortexgen.atlas.template import Template
from cortexgen.contracts import Solved
from cortexgen.errors import UserError
from cortexgen.io import read_field
from cortexgen.registration.boxed import BoxRegistration


class SyN(BoxRegistration):
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
        super().__init__(template, spacing)
        self.options = {"spacing": spacing, "similarity": similarity, "iterations": list(iterations)}
        self.version = ants.__version__

    def describe(self) -> dict[str, Any]:
        return {"Weights": f"SyN, antspyx {self.version}", "Template": None, "Parameters": self.options}

    def solve(self, moving: Tensor, fixed: Tensor) -> Solved:
        import ants

        options = self.options
        with self.files(fixed=fixed, moving=moving) as paths:
            found = ants.registration(
                *(ants.image_read(str(path)) for path in paths.values()),
                type_of_transform="SyNOnly",
                initial_transform="identity",
                syn_metric=options["similarity"],
                syn_sampling=4 if options["similarity"] == "CC" else 32,
                reg_iterations=options["iterations"],
                outprefix=f"{paths['fixed'].parent}/",
            )
            warp = next(path for path in found["fwdtransforms"] if path.endswith("Warp.nii.gz"))
            return Solved(read_field(Path(warp))[0][None].to(fixed.device))
