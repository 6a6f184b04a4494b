"""Where the voxels of a file lie, by its header: read so that NIfTI's readers agree, or refused."""

from dataclasses import dataclass
from itertools import product
from typing import Literal

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.analyze import AnalyzeImage
from nibabel.orientations import aff2axcodes, axcodes2ornt

from cortexgen.errors import UserError

Form = Literal["sform", "qform"]
UNITS = {1: "metres", 3: "micrometres"}  # of xyzt_units; readers that take them for millimetres are off by thousands
FAR = 1e4  # millimetres from the world's origin; no scanner is that large
SIDES = (1e-3, 100.0)  # of a voxel in millimetres
TOLERANCE = 0.05  # of a voxel's shortest side, at the corners of the volume
AXES = ("LR", "PA", "IS")
CORNERS = np.array(list(product((0.0, 1.0), repeat=3))).T


@dataclass(frozen=True)
class HeaderChoice:
    """What a user says where headers leave a choice.

    Attributes:
        trust: of NIfTI's two descriptions of the same thing, the one to take; files where they differ are refused
            unless it is given.
        orientation: of files whose header has none: where their axes run to, such as "LAS". The middle of the volume
            becomes the world's origin. Such files are refused unless it is given.
        ignored: whatever the header says is taken as it is; the voxels' place is known otherwise.

    Raises:
        UserError: if the orientation doesn't name each axis once.
    """

    trust: Form | None = None
    orientation: str | None = None
    ignored: bool = False

    def __post_init__(self) -> None:
        if self.trust not in (None, "sform", "qform"):
            raise UserError(f"trust: expected sform or qform, got {self.trust}")
        if self.orientation is None:
            return
        codes = self.orientation.upper()
        if len(codes) != 3 or any(sum(code in axis for code in codes) != 1 for axis in AXES):
            raise UserError(f"orientation: expected one letter of L/R, P/A and I/S each, as in LAS, got {codes}")
        object.__setattr__(self, "orientation", codes)

    def describe(self) -> dict[str, str]:
        """What was chosen, in plain types; empty if nothing was."""
        chosen = {"trust": self.trust, "orientation": self.orientation}
        return {name: value for name, value in chosen.items() if value is not None}


NO_CHOICE = HeaderChoice()


def file_affine(image: nib.Nifti1Image, path: object, choice: HeaderChoice = NO_CHOICE) -> np.ndarray:
    """A file's affine, from voxel indices to millimetres (RAS), `[4, 4]`.

    NIfTI says it twice, as sform and as qform, and voxel sizes a third time, as pixdim. nibabel takes the sform; ITK
    takes voxel sizes from pixdim and the rest from the sform or the qform, by their codes and its own release: 5.4 the
    sform if its code is 1 or there is no qform, earlier ones the qform if there is one. So a file is read only if they
    agree, to a twentieth of a voxel, or a user says which one is right.

    Arguments:
        image: of three axes or more.
        path: what to name in an error.

    Raises:
        UserError: if the header says nothing, or two things, of where voxels lie and `choice` doesn't decide it; if
            its affine is singular, sheared, far away, or not in millimetres.
    """
    header, affine = image.header, image.affine
    if choice.ignored:
        return affine if affine is not None and _usable(affine) else np.eye(4)
    if isinstance(header, nib.Nifti1Header):
        affine = _nifti(header, _sizes(image), path, choice)
    elif isinstance(image, AnalyzeImage):
        affine = _oriented(header, path, choice, "is Analyze 7.5, which has no orientation")
    return _checked(affine, image.shape[:3], path)


def _sizes(image: nib.Nifti1Image) -> np.ndarray:
    """Voxel sizes as the file has them: nibabel makes -2 mm 2 mm and 0 mm 1 mm, ITK mirrors the first."""
    header, files = image.header, image.file_map
    holder = files.get("header", files["image"])
    if holder.filename is not None:
        with holder.get_prepare_fileobj("rb") as file:
            header = type(header).from_fileobj(file, check=False)
    return np.asarray(header["pixdim"][1:4], dtype=np.float64)


def _nifti(header: nib.Nifti1Header, sizes: np.ndarray, path: object, choice: HeaderChoice) -> np.ndarray | None:
    unit = UNITS.get(int(header["xyzt_units"]) & 7)
    if unit:
        advice = "convert the scan again, or correct its header"
        raise UserError(f"{path}: its header has lengths in {unit} (xyzt_units), expected millimetres; {advice}")
    forms = {name: _form(header, name) for name in ("sform", "qform") if int(header[f"{name}_code"])}
    if not forms:
        return _oriented(header, path, choice, "has no orientation (sform_code and qform_code are 0)")
    if "qform" in forms and not (sizes > 0).all():
        forms["qform"] = None
    if choice.trust in forms:
        return forms[choice.trust]
    given = dict(forms)
    sform = forms.get("sform")
    if len(forms) == 1 and sform is not None:
        given["pixdim"] = _with_sizes(sform, sizes)
    (first, one), *others = given.items()
    for second, two in others:
        distance = apart(one, two, header.get_data_shape()[:3])
        if not distance <= _tolerance(header, one):
            both = f"{first} ({_describe(one)}) and {second} ({_describe(two)})"
            far = "" if np.isinf(distance) else f", by up to {distance:.3g} mm"
            options = " or ".join(f"--trust {name}" for name, form in forms.items() if form is not None)
            if choice.trust:
                options += f", there is no {choice.trust}"
            raise UserError(
                f"{path}: its header's {both} differ{far}, so programs put it at different places; "
                f"say which is right: {options} (in training --data.trust)"
            )
    return one


def _form(header: nib.Nifti1Header, name: str) -> np.ndarray | None:
    """One of the two affines, None if it is none."""
    try:
        affine = header.get_sform() if name == "sform" else header.get_qform()
    except Exception:  # quaternions beyond 1, sizes below zero, ...
        return None
    return affine if _usable(affine) else None


def _usable(affine: np.ndarray) -> bool:
    """Whether it is finite and has three axes."""
    if not np.isfinite(affine).all():
        return False
    sizes = voxel_sizes(affine)
    return bool(sizes.min() > 0 and abs(np.linalg.det(affine[:3, :3] / sizes)) > 1e-3)


def _with_sizes(affine: np.ndarray, sizes: np.ndarray) -> np.ndarray | None:
    """The affine with other voxel sizes along its axes, None if they are none."""
    if not (np.isfinite(sizes).all() and (sizes > 0).all()):
        return None
    out = affine.copy()
    out[:3, :3] *= sizes / voxel_sizes(affine)
    return out


def apart(one: np.ndarray | None, two: np.ndarray | None, shape: tuple[int, ...]) -> float:
    """The largest distance of a volume's corners by two affines, in millimetres; infinite if one is none."""
    if one is None or two is None:
        return np.inf
    corners = np.vstack([CORNERS * (np.array(shape)[:, None] - 1), np.ones(8)])
    return float(np.linalg.norm(((one - two) @ corners)[:3], axis=0).max())


def _tolerance(header: nib.Nifti1Header, affine: np.ndarray | None) -> float:
    """What `apart` may be: a share of a voxel, and what float32 leaves of a quaternion.

    Its real part a, the cosine of half the angle, isn't stored. a² = 1 - b² - c² - d² is known to 2e-7, so a is known
    least near half turns; nibabel takes it as 0 below 6e-4.
    """
    if affine is None:
        return 0.0
    sizes = voxel_sizes(affine)
    a = float(np.sqrt(max(0.0, 1 - sum(float(header[f"quatern_{k}"]) ** 2 for k in "bcd"))))
    turn = 2 * (1e-7 / a if a > 6e-4 else 6e-4) if int(header["qform_code"]) else 0.0
    return TOLERANCE * float(sizes.min()) + turn * float(np.linalg.norm(sizes * header.get_data_shape()[:3]))


def _describe(affine: np.ndarray | None) -> str:
    if affine is None:
        return "no valid affine"
    sizes = " x ".join(f"{s:.4g}" for s in voxel_sizes(affine))
    origin = ", ".join(f"{o:.4g}" for o in affine[:3, 3])
    return f"{sizes} mm, {''.join(aff2axcodes(affine))}, first voxel at {origin}"


def _oriented(header: nib.AnalyzeHeader, path: object, choice: HeaderChoice, found: str) -> np.ndarray:
    """The affine of a volume around the origin whose axes run as the user says."""
    if choice.orientation is None:
        advice = "say where its axes run (--orientation LAS, for instance), or convert the scan again"
        raise UserError(f"{path}: its header {found}, so left and right are unknown; {advice}")
    turn = axcodes2ornt(choice.orientation)
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, sign) in enumerate(turn):
        affine[int(world), axis] = sign * float(header["pixdim"][1 + axis])
    affine[:3, 3] = -affine[:3, :3] @ (np.array(header.get_data_shape()[:3]) - 1) / 2
    return affine


def _checked(affine: np.ndarray | None, shape: tuple[int, ...], path: object) -> np.ndarray:
    """The affine, if voxels are boxes of some size somewhere near."""
    if affine is None or not _usable(affine):
        raise UserError(f"{path}: its header has no valid affine")
    sizes = voxel_sizes(affine)
    if sizes.min() < SIDES[0] or sizes.max() > SIDES[1]:
        found = " x ".join(f"{s:.3g}" for s in sizes)
        raise UserError(f"{path}: its voxels are {found} mm by its header, expected {SIDES[0]:g}-{SIDES[1]:g} mm")
    if float(np.abs(affine[:3, 3]).max()) > FAR:
        origin = ", ".join(f"{o:.3g}" for o in affine[:3, 3])
        expected = f"expected less than {FAR / 1000:g} m from the origin; correct its header"
        raise UserError(f"{path}: its first voxel lies at {origin} mm, {expected}")
    axes = affine[:3, :3] / sizes
    left, _, right = np.linalg.svd(axes)
    straight = affine.copy()
    straight[:3, :3] = left @ right * sizes
    if apart(affine, straight, shape) > TOLERANCE * sizes.min():
        cosine = float(np.abs(axes.T @ axes - np.eye(3)).max())
        angle = np.degrees(np.arccos(min(1.0, cosine)))
        advice = "resample it to a grid without shear, or correct the sform"
        met = f"{angle:.1f}" if angle < 89.9 else f"{angle:.3f}"
        raise UserError(f"{path}: its axes meet at {met} degrees, expected right angles; {advice}")
    return affine
