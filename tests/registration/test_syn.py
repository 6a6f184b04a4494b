"""SyN through ANTs: the truth of a simulated pair."""

import pytest
import torch

from cortexgen.atlas.template import load_template
from cortexgen.cli import run
from cortexgen.data.cohort import find_scans
from cortexgen.errors import UserError
from cortexgen.io.bids import read_tsv
from cortexgen.registration.cohort import RegisterScans, register_cohort
from cortexgen.registration.syn import SyN
from cortexgen.spatial import antialias, integrate, warp


def test_the_field_that_made_an_image_is_found():
    method = SyN(load_template(), spacing=6.0, iterations=(60, 60, 40, 20))
    grid = method.frame.grid
    moving = load_template().to(grid).image[None]
    noise = torch.randn(1, 3, *grid.shape, generator=torch.Generator().manual_seed(0))
    smooth = antialias(antialias(noise, (12, 12, 12)), (8, 8, 8))
    true = integrate(1.2 * smooth / smooth.std())
    fixed = warp(moving, true)
    found = method.solve(moving, fixed)
    brain = fixed[0, 0] > 0.05
    error, before = (torch.linalg.vector_norm(u, dim=1)[0][brain].mean() for u in (true - found.field, true))
    assert found.iterations is None and error < 0.65 * before  # motion along an edge is not seen
    assert (warp(moving, found.field) - fixed).abs().mean() < 0.3 * (moving - fixed).abs().mean()


def test_the_command_takes_it_and_no_options_of_the_network(cohort, tmp_path):
    image = next(cohort.glob("sub-*/anat/*_T1w.nii.gz"))
    with pytest.raises(UserError, match="syn: takes no refine"):
        run(["register", str(image), str(tmp_path / "no"), "--method", "syn", "--refine", "3"])
    assert not (tmp_path / "no").exists()
    with pytest.raises(UserError, match=r"registrations: there is no 'sin'; there are network, .*syn, "):
        run(["register", str(image), str(tmp_path / "no"), "--method", "sin"])
    options = {"spacing": 8.0, "iterations": [20, 10]}
    work = RegisterScans(tmp_path / "out", "syn", options, load_template(), affine="never")
    assert not register_cohort(find_scans(image), work)
    (row,) = read_tsv(tmp_path / "out" / "registration.tsv")
    assert row["ssim"] > row["ssim_before"] and row["folded_voxels"] == 0
