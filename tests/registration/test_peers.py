"""Peers that need no weights: the affine alone leaves the template where it is, greedy finds a field."""

import sys

import pytest
import torch

from cortexgen import registry
from cortexgen.atlas.template import load_template
from cortexgen.cli import run
from cortexgen.data.cohort import find_scans
from cortexgen.errors import UserError
from cortexgen.io import read_field, read_volume
from cortexgen.io.bids import read_tsv
from cortexgen.registration.cohort import RegisterScans, register_cohort
from cortexgen.spatial import antialias, folded, integrate, warp


def test_affine_leaves_the_template_where_it_is(cohort, tmp_path):
    image = next(cohort.glob("sub-0001/anat/*_T1w.nii.gz"))
    run(["register", str(cohort), str(tmp_path / "out"), "--pattern", image.name, "--method", "affine"])
    (row,) = read_tsv(tmp_path / "out" / "registration.tsv")
    assert row["dice"] == row["dice_before"] > 0.3 and row["ssim"] == row["ssim_before"]
    assert row["sd_log_jacobian"] == row["mean_displacement_mm"] == row["folded_voxels"] == 0
    anat = next((tmp_path / "out").glob("sub-0001/anat"))
    assert read_field(next(anat.glob("*_to-T1w_mode-image_xfm.nii.gz")))[0].abs().max() == 0
    warped, grid = read_volume(next(anat.glob("*_desc-warped_T1w.nii.gz")))
    torch.testing.assert_close(warped, load_template().to(grid).image, rtol=0, atol=1e-4)


def test_greedy_finds_the_field_that_made_an_image():
    pytest.importorskip("picsl_greedy", reason="greedy is not installed: pip install 'cortexgen[compare]'")
    method = registry.made("registrations", "greedy", {"template": load_template(), "spacing": 6.0})
    grid = method.frame.grid
    moving = load_template().to(grid).image[None]
    noise = torch.randn(1, 3, *grid.shape, generator=torch.Generator().manual_seed(0))
    smooth = antialias(antialias(noise, (12, 12, 12)), (8, 8, 8))
    true = integrate(1.2 * smooth / smooth.std())
    fixed = warp(moving, true)
    found = method.solve(moving, fixed)
    brain = fixed[0, 0] > 0.05
    error, before = (torch.linalg.vector_norm(u, dim=1)[0][brain].mean() for u in (true - found.field, true))
    assert found.iterations is None and error < 0.75 * before  # motion along an edge is not seen
    assert (warp(moving, found.field) - fixed).abs().mean() < 0.4 * (moving - fixed).abs().mean()
    assert not folded(found.field).any()


def test_greedy_by_name(cohort, tmp_path, capfd):
    pytest.importorskip("picsl_greedy", reason="greedy is not installed: pip install 'cortexgen[compare]'")
    image = next(cohort.glob("sub-0001/anat/*_T1w.nii.gz"))
    options = {"spacing": 8.0, "iterations": (20, 10)}
    work = RegisterScans(tmp_path / "out", "greedy", options, load_template(), affine="never")
    assert not register_cohort(find_scans(image), work)
    (row,) = read_tsv(tmp_path / "out" / "registration.tsv")
    assert row["ssim"] > row["ssim_before"] and row["folded_voxels"] == 0
    assert "Energy" not in capfd.readouterr().out  # of each of its iterations


def test_greedy_that_is_not_installed_is_one_line(cohort, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "picsl_greedy", None)
    image = next(cohort.glob("sub-*/anat/*_T1w.nii.gz"))
    with pytest.raises(UserError, match=r"^greedy needs picsl-greedy: pip install 'cortexgen\[compare\]'$"):
        run(["register", str(image), str(tmp_path / "no"), "--method", "greedy"])
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("method", ["affine", "greedy"])
def test_options_of_the_network_are_refused(method, cohort, tmp_path):
    image = next(cohort.glob("sub-*/anat/*_T1w.nii.gz"))
    with pytest.raises(UserError, match=f"{method}: takes no refine"):
        run(["register", str(image), str(tmp_path / "no"), "--method", method, "--refine", "3"])
