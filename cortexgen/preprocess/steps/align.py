"""The affine to the template."""

from typing import Literal

import numpy as np

from cortexgen.atlas.alignment import TURN, align, check_alignment, in_template_space
from cortexgen.atlas.intensity import normalize
from cortexgen.atlas.plausibility import check_brain
from cortexgen.errors import UserError
from cortexgen.preprocess.state import Subject
from cortexgen.preprocess.steps.step import Step

USUAL = (0.92, 0.0)  # overlap, lead: what real brains reach, see cortexgen.atlas.alignment
Search = Literal["auto", "always", "never"]


class Align(Step):
    """The affine to the template (`cortexgen.atlas.alignment`).

    Arguments:
        affine: look for it "always", "never", or "auto": unless a stripped input lies in template space already.
    """

    name, after, needs, tools = "align", ("strip",), ("resample",), ("SimpleITK",)
    version = 2

    def __init__(self, affine: Search = "auto") -> None:
        if affine not in ("auto", "always", "never"):
            raise UserError(f"Align: expected affine auto, always or never, got {affine}")
        self.affine = affine

    def __call__(self, subject: Subject) -> None:
        if subject.mask is None:
            subject.keep(subject.inside)
        grid, template, source = subject.grid, subject.template, subject.source
        image = normalize(subject.image * subject.inside, source)
        check_brain(image, grid, source)
        raw = subject.measures.get("stripped") == "deepbet"
        there = self.affine == "never" or (
            self.affine == "auto" and not raw and in_template_space(image, grid, template)
        )
        subject.affine = np.eye(4) if there else align(image, grid, template, source)
        found = check_alignment(image, grid, template, subject.affine, source)
        if found.overlap < USUAL[0]:
            low = f"overlap with {template.name} is low, {found.overlap:.2f}, usual is {USUAL[0]:g} or more"
            subject.flags.append(f"the affine's {low}")
        if found.lead < USUAL[1]:
            numbers = f"{found.correlation:.2f}, with the turn {found.correlation - found.lead:.2f}"
            subject.flags.append(f"turned by {TURN:g} degrees, it would fit {template.name} better: {numbers}")
        scales = np.linalg.svd(subject.affine[:3, :3], compute_uv=False)
        subject.measures |= {"affine": "identity" if there else "found", **vars(found)}
        subject.measures |= {f"scale_{k}": float(s) for k, s in enumerate(scales, 1)}
