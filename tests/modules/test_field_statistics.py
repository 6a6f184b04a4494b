"""What stage 2 knows of its fields before training."""

from types import SimpleNamespace

import torch

from cortexgen.modules.field_statistics import cross_fitted, effects_of, scale_of

SHAPE = (3, 6, 7, 6)


def data_of(names):
    scans = [SimpleNamespace(name=n, subject=n.split("_")[0]) for n in names]
    return SimpleNamespace(side=lambda _: scans)


def test_effects_are_least_squares():
    torch.manual_seed(0)
    design = torch.randn(40, 2)
    design -= design.mean(dim=0)
    truth = torch.randn(2, *SHAPE)
    fields = torch.einsum("nq,qcdhw->ncdhw", design, truth)
    effects = effects_of(fields, design)
    assert torch.allclose(effects["fields"], truth, atol=1e-4)
    assert torch.allclose(effects["covariance"], design.T @ design / 40, atol=1e-5)


def test_the_scale_follows_where_fields_vary():
    torch.manual_seed(0)
    fields = torch.randn(200, 3, 4, 4, 24)
    fields[..., :12] *= 5
    scale = scale_of(fields, each_voxel=True)
    assert scale.shape == fields.shape[1:]
    assert float(scale[..., 0].mean() / scale[..., -1].mean()) > 3
    assert scale_of(fields, each_voxel=False).ndim == 0


def test_the_scale_is_smooth_and_a_tenth_of_the_whole_where_nothing_moves():
    """Of two fields, whose deviation at a voxel says little."""
    torch.manual_seed(0)
    fields = torch.randn(2, 3, 12, 12, 36)
    fields[..., 12:] = 0
    scale, overall = scale_of(fields, each_voxel=True), scale_of(fields, each_voxel=False)
    torch.testing.assert_close(scale[..., -6:], (0.1 * overall).expand(3, 12, 12, 6), rtol=1e-3, atol=0)
    inside = scale[..., 3:9, 3:9, :6] / overall
    rough = fields.square().mean(dim=0).sqrt()[..., 3:9, 3:9, :6]
    assert float(inside.std() / inside.mean()) < 0.3 * float(rough.std() / rough.mean())


def test_a_subjects_prior_does_not_know_it():
    """Changing one subject's scans changes everybody's prior but that of its own fold; sessions go together."""
    torch.manual_seed(0)
    names = ["sub-1_ses-1", "sub-1_ses-2", "sub-2", "sub-3", "sub-4"]
    fields = torch.randn(10, *SHAPE)  # with mirror images
    before = cross_fitted(data_of(names), fields, 8, 4)
    changed = fields.clone()
    changed[[0, 1, 5, 6]] *= 3
    after = cross_fitted(data_of(names), changed, 8, 4)
    assert before["sub-1_ses-1"] is before["sub-1_ses-2"]
    assert torch.equal(before["sub-1_ses-1"].spectrum, after["sub-1_ses-1"].spectrum)
    assert not torch.allclose(before["sub-2"].spectrum, after["sub-2"].spectrum)
