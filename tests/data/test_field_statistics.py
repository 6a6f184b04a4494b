"""What stage 2 knows of its fields before training, against the same with all fields in memory."""

import json
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from cortexgen.atlas.template import load_template
from cortexgen.data.covariates import CovariateEncoder
from cortexgen.data.field_priors import FieldPriors
from cortexgen.data.field_statistics import FLOOR, MAP_SMOOTHING, field_statistics
from cortexgen.data.fields import FieldDataModule
from cortexgen.diffusion import cosine_transform
from cortexgen.diffusion.prior import low_frequencies
from cortexgen.errors import UserError
from cortexgen.io import Grid, write_field, write_volume
from cortexgen.io.bids import sidecar, write_tsv
from cortexgen.metrics.morphometry import regional_volumes, volume_weights
from cortexgen.spatial import antialias

GRID = Grid((9, 12, 11), np.array([[0, 0, 8, -40], [0, 8, 0, -50], [8, 0, 0, -30], [0, 0, 0, 1.0]]))
SCANS = ["sub-1/ses-1", "sub-1/ses-2", "sub-2", "sub-3", "sub-4", "sub-5", "sub-6"]
AGES = {"sub-1": 30, "sub-2": 44, "sub-3": None, "sub-4": 70, "sub-5": 25, "sub-6": 51}


def smooth(seed, channels, sigma, peak):
    values = gaussian_filter(np.random.default_rng(seed).standard_normal((channels, *GRID.shape)), (0, *[sigma] * 3))
    return torch.from_numpy(peak * values / np.abs(values).max()).float()


def write(root, place, field, steps=7):
    template = root / "template" / "tpl-Toy_T1w.nii.gz"
    info = {"Template": "Toy", "TemplateHash": load_template(template, labels_of(root)).hash}
    path = root / place / "anat" / f"{place.replace('/', '_')}_space-Toy_desc-velocity_field.nii.gz"
    write_field(path, field, GRID)
    sidecar(path).write_text(json.dumps(info | {"IntegrationSteps": steps, "ImageGrid": GRID.to_dict()}))


def labels_of(root):
    return root / "template" / "tpl-Toy_dseg.nii.gz"


@pytest.fixture
def root(tmp_path):
    """Seven fields of six subjects on a symmetric grid, around a mean that isn't, and a template with three classes."""
    write_volume(tmp_path / "template" / "tpl-Toy_T1w.nii.gz", smooth(0, 1, 1, 1.0).abs(), GRID)
    classes = (smooth(9, 1, 2, 1.0) > 0).long() + (smooth(8, 1, 2, 1.0) > 0.2).long()
    write_volume(labels_of(tmp_path), classes, GRID, np.int16)
    for k, place in enumerate(SCANS, start=1):
        write(tmp_path, place, smooth(k, 3, 2, 1.5) + smooth(20, 3, 3, 0.5))
    rows = [{"participant_id": s, "age": age, "sex": "MF"[k % 2]} for k, (s, age) in enumerate(AGES.items())]
    write_tsv(tmp_path / "participants.tsv", rows)
    return tmp_path


def ready(root, mirror, **options):
    template = (str(root / "template" / "tpl-Toy_T1w.nii.gz"), labels_of(root))
    options = {"val_subjects": ["sub-6"], "cache": "disk", "cache_dir": root / "cache", "mirror": mirror} | options
    data = FieldDataModule(root, *template, **options)
    data.setup("fit")
    return data


def in_memory(data, names, center, each_voxel):
    """The contract's statistics from one tensor of all fields."""
    fields = data.training_fields()
    mean = fields.mean(dim=0) if center else torch.zeros_like(fields[0])
    scale = (fields - mean).square().mean().sqrt()
    if each_voxel:
        variance = (fields - mean).square().mean(dim=0, keepdim=True)
        scale = antialias(variance, (MAP_SMOOTHING,) * 3)[0].sqrt() + FLOOR * scale
    out = {"mean": mean, "scale": scale}
    rows = [scan.covariates for scan in data.side("train")]
    if names:
        encoder = CovariateEncoder.fit(names, rows)
        design, _ = encoder.design(encoder.encode(rows * (len(fields) // len(rows))))
        scaled = ((fields - mean) / scale).flatten(1).double()
        solution = torch.linalg.lstsq(design.double(), scaled).solution.float()
        out["effects"] = solution.view(-1, *mean.shape)
        out["covariance"] = design.T @ design / len(design)
    weights = volume_weights(data.template.labels, data.template.grid, data.grid, len(data.template.classes))
    steps, voxel = data.info["IntegrationSteps"], data.grid.voxel_volume
    logs = torch.cat([regional_volumes(f[None], weights, voxel, steps) for f in fields]).log()
    return out | {"log_volume_mean": logs.mean(dim=0), "log_volume_std": logs.std(dim=0)}


def prior_in_memory(fields, count, trust=0.85, cutoff=0.25):
    """Spectrum and covariance of the modes of centred fields, from one tensor of them all."""
    coefficients = cosine_transform(fields).flatten(1).double()
    low = low_frequencies(fields.shape[1:], cutoff)
    power = coefficients.square().mean(dim=0)
    _, singular, vectors = torch.linalg.svd(coefficients[:, low] / len(fields) ** 0.5, full_matrices=False)
    count = min(count, len(fields) - 1)
    modes = trust**0.5 * singular[:count, None] * vectors[:count]
    power[low] -= modes.square().sum(dim=0)
    rest = power.clamp(min=1e-12).view(fields.shape[1:])
    spectrum = F.avg_pool3d(rest.log()[None], 3, stride=1, padding=1, count_include_pad=False)[0].exp()
    return spectrum * rest.sum() / spectrum.sum(), modes.T @ modes


ZERO = torch.zeros(3, *GRID.shape)


def alone(mean=ZERO, scale=1.0):
    """A contract without covariates."""
    return {"mean": mean, "scale": torch.tensor(scale), "covariates": {}}


def close(found, expected, tolerance=2e-5):
    expected = torch.as_tensor(expected).double()
    error = (torch.as_tensor(found).double() - expected).abs().max() / expected.abs().max().clamp(min=1e-12)
    assert error < tolerance, float(error)


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("each_voxel", [True, False])
@pytest.mark.parametrize("mirror", [True, False])
@pytest.mark.parametrize("names", [(), ("age", "sex")])
def test_statistics_are_those_of_all_fields_in_memory(root, names, mirror, each_voxel, center):
    data = ready(root, mirror)
    found, expected = (f(data, names, center, each_voxel) for f in (field_statistics, in_memory))
    found |= {"effects": found["effects"]["fields"], **found["effects"]} if names else {}
    for name, value in expected.items():
        close(found[name], value)
    assert found["mean"].dtype == found["scale"].dtype == torch.float32
    assert set(found["covariates"]) == set(names) and ("effects" in found) == bool(names)


@pytest.mark.parametrize("mirror", [True, False])
@pytest.mark.parametrize("block", [1 << 25, 600])
def test_priors_are_those_of_all_fields_in_memory(root, mirror, block, monkeypatch):
    """That of all, and each fold's; also where the mean, of another cohort, is not symmetric."""
    monkeypatch.setattr("cortexgen.diffusion.prior_fit.BLOCK", block)
    data = ready(root, mirror)
    mean, scale = smooth(20, 3, 3, 0.5), 0.4
    priors = FieldPriors.fit(data, alone(mean, scale), 4, 3)
    scaled = (data.training_fields() - mean) / scale
    names = [scan.name for scan in data.side("train")] * (1 + mirror)
    folds = torch.tensor([priors.fold_of[name] for name in names])
    assert len(priors.others) == 3 and folds.unique().tolist() == [0, 1, 2]
    for fold, prior in enumerate([priors.whole, *priors.others], start=-1):
        spectrum, covariance = prior_in_memory(scaled[folds != fold], 4)
        close(prior.spectrum, spectrum)
        close(prior.modes.T @ prior.modes, covariance, 1e-4)


def test_a_subjects_prior_does_not_know_it(root):
    """Changing one subject's scans changes everybody's prior but that of its own fold; sessions go together."""
    before = FieldPriors.fit(ready(root, True), alone(), 8, 4)
    for place in SCANS[:2]:
        write(root, place, 3 * smooth(30, 3, 1, 1.0))
    after = FieldPriors.fit(ready(root, True), alone(), 8, 4)
    cpu = torch.device("cpu")
    assert before.without("sub-1_ses-1", cpu) is before.without("sub-1_ses-2", cpu)
    own, other = ([p.without(name, cpu) for p in (before, after)] for name in ("sub-1_ses-1", "sub-2"))
    assert torch.equal(own[0].spectrum, own[1].spectrum)
    assert not torch.allclose(other[0].spectrum, other[1].spectrum)


def test_priors_stay_on_the_device_that_asks_for_them(root):
    priors = FieldPriors.fit(ready(root, False), alone(), 4, 2)
    there = priors.without("sub-2", torch.device("meta"))
    assert there.modes.device.type == "meta" and priors.without("sub-2", torch.device("meta")) is there


def test_one_subject_has_no_fold(root):
    data = ready(root, True, val_subjects=[f"sub-{k}" for k in range(2, 7)])
    priors = FieldPriors.fit(data, alone(), 4, 5)
    assert not priors.others and len(priors.whole.modes) == 3


def test_no_more_than_a_few_fields_are_held_at_once(root, monkeypatch):
    alive, most, shown = weakref.WeakSet(), [0], FieldDataModule.shown

    def counted(self):
        for fields in shown(self):
            alive.add(fields)
            most[0] = max(most[0], len(alive))
            yield fields

    data = ready(root, True)
    monkeypatch.setattr(FieldDataModule, "shown", counted)
    monkeypatch.setattr(FieldDataModule, "training_fields", None)
    found = field_statistics(data, ["age"], True, True)
    FieldPriors.fit(data, found, 4, 3)
    assert 0 < most[0] <= 3


def test_what_was_computed_is_read_until_a_field_changes(root, monkeypatch):
    passes, shown = [0], FieldDataModule.shown

    def counted(self):
        passes[0] += 1
        return shown(self)

    monkeypatch.setattr(FieldDataModule, "shown", counted)
    first = FieldPriors.fit(ready(root, True), alone(), 4, 3)
    again = FieldPriors.fit(ready(root, True), alone(), 4, 3)
    assert passes[0] == 1 and torch.equal(first.whole.modes, again.whole.modes)
    for k, change in enumerate(
        [
            lambda: FieldPriors.fit(ready(root, False), alone(), 4, 3),
            lambda: FieldPriors.fit(ready(root, True), alone(scale=2.0), 4, 3),
            lambda: FieldPriors.fit(ready(root, True), alone(), 3, 3),
            lambda: FieldPriors.fit(ready(root, True, val_subjects=["sub-5"]), alone(), 4, 3),
        ],
        start=2,
    ):
        change()
        assert passes[0] == k
    write(root, "sub-2", smooth(40, 3, 2, 1.5))
    changed = FieldPriors.fit(ready(root, True), alone(), 4, 3)
    assert passes[0] == 6 and not torch.allclose(changed.whole.spectrum, first.whole.spectrum)


@pytest.mark.parametrize("center", [True, False])
def test_fields_that_do_not_vary_are_an_error(root, center):
    for place in SCANS:
        write(root, place, smooth(5, 3, 2, 1.5) * center)
    with pytest.raises(UserError, match="do not vary"):
        field_statistics(ready(root, False), (), center, True)
