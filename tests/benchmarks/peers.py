"""Registrations by other programs, called as their users call them; a call is a process of its own.

    python tests/benchmarks/peers.py greedy FOLDER images/sub-01_T1w.nii.gz greedy/sub-01 1

reads the image and FOLDER's template_T1w.nii.gz and template_dseg.nii.gz, all on one grid, and writes what begins with
greedy/sub-01: the forward displacement on that grid (_xfm.nii.gz), the warped template (_T1w.nii.gz) and its labels
(_dseg.nii.gz). The last argument is the number of threads. Nothing is imported that a program doesn't need.
"""

import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

MOVING, LABELS = "template_T1w.nii.gz", "template_dseg.nii.gz"
GREEDY = "-m NCC 2x2x2 -n 100x50x10"
SYN = {"type_of_transform": "SyNOnly", "initial_transform": "Identity", "syn_metric": "CC", "syn_sampling": 2}
SYN |= {"reg_iterations": (40, 30, 15), "random_seed": 1}


def greedy(image: str, out: str, threads: str) -> None:
    """Greedy diffeomorphic registration (Yushkevich) by cross-correlation; the wheel is picsl-greedy."""
    from picsl_greedy import Greedy3D

    program = Greedy3D()
    program.execute(f"-d 3 -i {image} {MOVING} -o {out}_xfm.nii.gz {GREEDY} -threads {threads}")
    moved = f"-rm {MOVING} {out}_T1w.nii.gz -ri LABEL 0.2vox -rm {LABELS} {out}_dseg.nii.gz"
    program.execute(f"-d 3 -rf {image} {moved} -r {out}_xfm.nii.gz -threads {threads}")


def syn(image: str, out: str, threads: str) -> None:
    """ANTs' symmetric normalization by cross-correlation; the wheel is antspyx, the environment has the threads."""
    import ants

    fixed, moving, labels = (ants.image_read(path) for path in (image, MOVING, LABELS))
    found = ants.registration(fixed, moving, outprefix=out, **SYN)
    carried = ants.apply_transforms(fixed, labels, found["fwdtransforms"], interpolator="genericLabel")
    ants.image_write(found["warpedmovout"], f"{out}_T1w.nii.gz")
    ants.image_write(carried, f"{out}_dseg.nii.gz")
    os.replace(found["fwdtransforms"][0], f"{out}_xfm.nii.gz")


def voxelmorph(image: str, out: str, threads: str) -> None:
    """VoxelMorph as FOLDER/voxelmorph.pt has it, trained by `vxm.py`."""
    from vxm import register

    register(image, MOVING, LABELS, out, int(threads))


class Peer(NamedTuple):
    """A program: what calls it, the package that it comes in, and its settings."""

    run: Callable[[str, str, str], None]
    package: str
    settings: Any


PEERS = {"greedy": Peer(greedy, "picsl-greedy", GREEDY), "syn": Peer(syn, "antspyx", SYN)}
PEERS["voxelmorph"] = Peer(voxelmorph, "voxelmorph", None)

if __name__ == "__main__":
    method, folder, *arguments = sys.argv[1:]
    os.chdir(folder)  # names without spaces, which greedy's line is cut at
    PEERS[method].run(*arguments)
