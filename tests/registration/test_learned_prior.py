"""Refinement towards the fields of real people, against closed forms of a Gaussian of which all is known."""

import pytest
import torch

from cortexgen import registry
from cortexgen.atlas.template import load_template
from cortexgen.cli import run
from cortexgen.data.cohort import find_scans
from cortexgen.errors import UserError
from cortexgen.io import Grid
from cortexgen.io.bids import read_tsv
from cortexgen.registration.cohort import RegisterScans, register_cohort
from cortexgen.registration.learned_prior import FieldPrior
from cortexgen.registration.refinement import Refinement
from cortexgen.spatial import antialias, from_coarse

SHAPE, COARSE = (17, 15, 13), (9, 8, 7)
MEAN, VARIANCE, NOISE = 0.4, 3.0, 1.0


def denoise(field):
    """Of a Gaussian that is the same for each component, a constant mean and no correlation."""
    return MEAN + VARIANCE / (VARIANCE + NOISE) * (field - MEAN)


def smooth(seed: int, size: float = 1.0) -> torch.Tensor:
    noise = torch.randn(1, 3, *COARSE, generator=torch.Generator().manual_seed(seed))
    return size * from_coarse(antialias(noise, (4, 4, 4)), SHAPE, 2)


def flat(image: float) -> torch.Tensor:
    """An image that pulls nowhere."""
    return torch.full((1, 1, *SHAPE), image)


def test_the_residual_is_the_denoisers_on_its_own_grid():
    velocity = from_coarse(torch.full((1, 3, *COARSE), 1.5), SHAPE, 2)  # 3 voxels of the fine grid
    expected = 2 * (1.5 - MEAN) * NOISE / (VARIANCE + NOISE)
    torch.testing.assert_close(FieldPrior(denoise, 2).residual(velocity), torch.full_like(velocity, expected))


def test_the_direction_is_linear_in_the_step_and_knows_no_mean():
    prior, step = FieldPrior(denoise, 2), smooth(0)
    one, other = prior.direction(step), prior.direction(-5 * step)
    torch.testing.assert_close(other, -one)
    unit = step / step.square().mean().sqrt()
    coarse = antialias(unit, (2, 2, 2))[:, :, ::2, ::2, ::2]
    torch.testing.assert_close(one, 0.75 * from_coarse(coarse, SHAPE, 2) / 2)


def test_where_images_say_nothing_the_denoisers_force_leads_to_the_mean():
    """The maximum of the posterior is the prior's then; without the force a constant velocity stays."""
    prior, start = FieldPrior(denoise, 2), torch.full((1, 3, *SHAPE), 3.0)
    how = {"smoothness": 0.1, "lr": 0.5, "foreground": False, "share": 0.0}
    kept = Refinement(60, **how)(start, flat(0.5), flat(0.5))
    torch.testing.assert_close(kept, start)
    found = Refinement(60, residual=prior.residual, learned=1.0, **how)(start, flat(0.5), flat(0.5))
    assert (found - 2 * MEAN).abs().max() < 0.1


def test_a_share_of_each_step_follows_the_direction():
    """The first step is the gradient and, at the same size times the share, what its direction is."""
    velocity = smooth(1)
    images = flat(0.5), flat(0.5)
    how = {"smoothness": 1.0, "lr": 0.1, "foreground": False, "symmetric": False}
    plain = velocity - Refinement(1, share=0.0, **how)(velocity, *images)

    def first_component(gradient):
        return 7 * gradient * torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1, 1)

    mixed = velocity - Refinement(1, direction=first_component, share=0.5, **how)(velocity, *images)
    along = first_component(plain)
    expected = plain + 0.5 * along * plain.norm() / along.norm()
    torch.testing.assert_close(mixed / mixed.norm(), expected / expected.norm(), rtol=0, atol=1e-5)


def test_the_command_refines_with_the_packages_weights(cohort, tmp_path):
    """An image of 8 mm, for which they are not: nothing folds, and what is written says what it was made with."""
    image = next(cohort.glob("sub-0001/anat/*_T1w.nii.gz"))
    work = RegisterScans(tmp_path / "out", "prior", {"refine": 2}, load_template(), affine="never")
    assert not register_cohort(find_scans(image), work)
    (row,) = read_tsv(tmp_path / "out" / "registration.tsv")
    assert row["refinement_steps"] == 2 and row["folded_voxels"] == 0 and row["mean_displacement_mm"] > 1
    made_by = work.prepared()[0].registration.describe()
    assert made_by["Parameters"]["share"] == 0.5 and ", prior " in made_by["Weights"]


def test_a_mistake_is_one_line(cohort, registered, trained_generator, tmp_path):
    image, out = str(next(cohort.glob("sub-*/anat/*_T1w.nii.gz"))), str(tmp_path / "no")
    stage1, stage2 = (folder / "checkpoints" / "last.ckpt" for folder in (registered[0], trained_generator))
    with pytest.raises(UserError, match="refine: prior takes 1 or more steps, got 0"):
        run(["register", image, out, "--method", "prior", "--refine", "0"])
    with pytest.raises(UserError, match="prior: takes no refine_intensity"):
        run(["register", image, out, "--method", "prior", "--refine_intensity", "2"])
    with pytest.raises(UserError, match=r"prior: the fields' grid is .* none of every few voxels of the network's"):
        run(["register", image, out, "--method", "prior", "--checkpoint", str(stage1)])
    with pytest.raises(UserError, match="weights of stage 1; generate needs stage 2's"):
        registry.made("registrations", "prior", {"fields": stage1})
    method = registry.made("registrations", "prior", {"checkpoint": stage1, "fields": stage2})
    assert method.prior.factor == 2 and method.frame.velocity_grid.matches(method.frame.grid)
    assert Grid.from_dict(method.generator.contract["grid"]).matches(method.frame.grid.coarse(2))


def test_the_packages_denoiser_is_its_priors():
    """Of fields at the mean plus noise it leaves little; of the mean, nothing is taken away."""
    method = registry.made("registrations", "prior", {})
    mean, scale = (torch.as_tensor(method.generator.contract[name])[None] for name in ("mean", "scale"))
    torch.testing.assert_close(method.prior.denoise(mean), mean, rtol=0, atol=1e-4)
    noise = scale * torch.randn(mean.shape, generator=torch.Generator().manual_seed(0))
    left = (method.prior.denoise(mean + noise) - mean) / scale
    assert 0.01 < left.square().mean().sqrt() < 0.3  # of a deviation of 1, that of a log-SNR of 0
