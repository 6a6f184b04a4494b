"""Stage 3 through the command line, and what it learns from, against what was put in."""

import json
import shutil

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch import nn

from cortexgen.atlas.fitting import fit_labels
from cortexgen.cli import run
from cortexgen.data.appearance import AppearanceDataModule, place_of
from cortexgen.data.style import STYLE
from cortexgen.errors import UserError
from cortexgen.io import read_field, read_volume, write_field
from cortexgen.io.bids import read_tsv, sidecar
from cortexgen.modules import AppearanceModule
from cortexgen.weights import load, load_checkpoint, save_weights


@pytest.fixture(scope="module")
def data(cohort, registered):
    module = AppearanceDataModule(cohort, registered[1], crop="brain", val=1)
    module.setup("fit")
    return module


@pytest.fixture(scope="module")
def module(trained_appearance):
    return load_checkpoint(trained_appearance / "checkpoints" / "last.ckpt")[0].eval()


def test_a_fit_keeps_what_its_weights_depend_on(module, data):
    contract = module.contract
    assert contract["template"]["hash"] == data.template.hash
    assert list(contract["covariates"]) == ["age", "sex", *STYLE]
    assert len(contract["people"]) == 4
    assert all(set(row) == {"age", "sex", *STYLE} for row in contract["people"])
    images = [(data.reader.image(s), data.warped(s)[0]) for s in data.side("train")]
    differences = torch.cat([(a - b)[(a > 0) | (b > 0)] for a, b in images])
    assert data.deviation() == pytest.approx(float(differences.square().mean().sqrt()), rel=1e-4)


def test_a_sample_holds_the_image_and_what_was_warped_to_it(data):
    scan = data.side("train")[0]
    sample = data.samples([scan]).sample(0, None)
    torch.testing.assert_close(sample["fixed"], data.reader.image(scan))
    torch.testing.assert_close(sample["moving"], data.warped(scan)[0])
    assert torch.equal(sample["moving_labels"], data.warped(scan)[1])
    assert set(STYLE) < set(sample["covariates"])


def test_places_are_world_coordinates(data):
    place, affine = place_of(data.grid), data.grid.affine
    voxel = (3, 5, 2)
    x, y, z = (affine @ [*voxel, 1])[:3]
    torch.testing.assert_close(place[(slice(None), *voxel)] * 100, torch.tensor([z, y, x], dtype=torch.float32))


@pytest.fixture
def moved(cohort, registered, tmp_path, data):
    """A data module whose velocities go a working voxel up everywhere."""
    folder = tmp_path / "registered"
    shutil.copytree(registered[1], folder)
    module = AppearanceDataModule(cohort, folder, crop="brain", val=1, field_spacing=16.0)
    for path in folder.rglob("*_desc-velocity_field.nii.gz"):
        field, grid = read_field(path)
        up = torch.zeros_like(field)
        up[0] = data.grid.spacing[0] / grid.spacing[0]
        write_field(path, up, grid)
    return module


def test_the_template_is_warped_by_fields_as_coarse_as_they_are_drawn(moved):
    moved.setup("fit")
    scan, inside = moved.side("train")[0], (slice(None), slice(4, -4), slice(4, -4), slice(4, -4))
    image, labels = moved.warped(scan)
    torch.testing.assert_close(image[inside], moved.template.image.roll(-1, 1)[inside], atol=2e-3, rtol=0)
    assert (labels == moved.template.labels.roll(-1, 1))[inside].float().mean() > 0.999


def test_fields_of_their_own_spacing_warp_as_registration_did(cohort, registered, data):
    near = AppearanceDataModule(cohort, registered[1], crop="brain", val=1, field_spacing=0.5)
    near.setup("fit")
    for scan in near.side("train"):
        (image, labels), (written, classes) = near.warped(scan), data.warped(scan)
        still = (data.template.image - written).square().mean()
        assert (image - written).square().mean() < 0.05 * still
        assert (labels == classes).float().mean() > 0.98


def test_fields_that_do_not_belong_are_said_to(moved, data):
    files = [next(moved.registered.rglob(f"{scan.name}_*_desc-velocity_field.nii.gz")) for scan in data.scans]
    info = json.loads(sidecar(files[0]).read_text())
    sidecar(files[0]).write_text(json.dumps(info | {"TemplateHash": "0" * 64}))
    files[1].unlink()
    moved.setup("fit")
    assert "no such file; run `cortexgen register` on it first" in moved.problems[data.scans[1].name]
    assert "starts from template 000000000000, expected" in moved.problems[data.scans[0].name]


def test_mirrored_images_keep_their_labels_and_the_place_stays(data):
    scans = data.samples(data.side("train"), training=True)
    seen = [scans.sample(0, torch.Generator().manual_seed(seed)) for seed in range(8)]
    plain = data.samples(data.side("train")).sample(0, None)
    turned = [s for s in seen if not torch.equal(s["fixed"], plain["fixed"])]
    assert 0 < len(turned) < 8
    for s in turned:
        for key in ("fixed", "moving", "moving_labels"):
            assert torch.equal(s[key].flip(-1), plain[key])
        assert torch.equal(s["place"], plain["place"])


def test_state_and_image_are_inverse(module):
    generator = torch.Generator().manual_seed(0)
    template = torch.rand(1, 1, 6, 7, 8, generator=generator)
    image = torch.rand(1, 1, 6, 7, 8, generator=generator).clamp(0.01)
    image[..., :2], image[..., 6:] = 0, 0
    state = module.state(image, template)
    torch.testing.assert_close(module.image(state, template), image)
    state[0, 1, 0, 0, 0], state[0, 1, 3, 3, 4] = 1, -1  # a speck, and a hole
    mended = module.image(state, template)
    assert mended[0, 0, 0, 0, 0] == 0
    torch.testing.assert_close(mended, image)
    assert set(state[:, 1].unique().tolist()) == {-1, 1}


class Oracle(nn.Module):
    """Knows x0, and answers with the v that it means."""

    def __init__(self, x0):
        super().__init__()
        self.x0, self.seen = x0, []

    def forward(self, z, log_snr, image, labels, place, covariates):
        self.seen.append((image, labels, place, covariates))
        alpha, sigma = torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()
        return ((alpha * z - self.x0) / sigma).float()


def test_rendering_gives_what_the_network_says(module, data):
    scan = data.side("val")[0]
    image, (template, labels) = data.reader.image(scan), data.warped(scan)
    net, module.net = module.net, Oracle(module.state(image[None], template[None]))
    try:
        conditions = scan.covariates | dict.fromkeys(STYLE, 0.1)
        noise = torch.randn((2, *template.shape[1:]), generator=torch.Generator().manual_seed(0))
        rendered = module.render(template, labels, data.place, conditions, lambda: noise)
        torch.testing.assert_close(rendered, image.clamp(1e-3) * (image > 0), atol=1e-4, rtol=0)
        encoded = module.net.seen[0][3]
        assert torch.equal(encoded, module.encoder.encode([conditions]))
    finally:
        module.net = net


def test_parts_of_a_volume_give_what_the_whole_does(data):
    """Where they meet, too; and at rest, where each sees the border of another part."""
    torch.manual_seed(0)
    module = AppearanceModule(widths=(8, 12), covariates=(), sampler="ddim", steps=3).eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.05)
    module.contract = {"deviation": 0.1, "covariates": data.encoder([]).specs}
    template = torch.full((1, 64, 24, 24), 0.5)
    labels, place = torch.ones_like(template).long(), torch.zeros(3, 64, 24, 24)
    noise = torch.randn(2, 64, 24, 24)
    noise[1] = 5  # inside
    given = (template, labels, place, {}, lambda: noise)
    whole, parts = module.render(*given), module.render(*given, patch=32)
    assert not torch.equal(whole, parts)
    assert whole.std() > 0.03
    assert float((parts - whole).square().mean().sqrt()) < 0.15 * float(whole.std())
    steps = [float(x[:, 24:41].diff(dim=1).abs().mean(dim=(0, 2, 3)).max()) for x in (parts, whole)]  # parts meet here
    assert steps[0] < 1.05 * steps[1]


@pytest.mark.parametrize("sampler", ["dpm++", "ddim", "ancestral"])
def test_samples_vary_as_what_was_learned_does(module, data, monkeypatch, sampler):
    """The network that answers v = 0 knows unit Gaussians: E[x0 | z] = alpha z, at every level."""
    template, labels = data.warped(data.side("val")[0])
    generator = torch.Generator().manual_seed(0)
    monkeypatch.setattr(module.net, "forward", lambda z, *rest: torch.zeros_like(z))
    monkeypatch.setattr(module, "image", lambda state, template: state)
    for name, value in (("sampler", sampler), ("steps", 40)):
        monkeypatch.setattr(module, name, value)
    style = dict.fromkeys(STYLE, 0.1)
    shape = (2, *template.shape[1:])
    drawn = module.render(template, labels, data.place, style, lambda: torch.randn(shape, generator=generator))
    assert float(drawn.std()) == pytest.approx(1, abs=0.05)


def test_a_finer_model_begins_with_the_subjects_own_image(cohort, registered, data):
    spacing = 2 * min(data.grid.spacing)
    finer = AppearanceDataModule(cohort, registered[1], crop="brain", val=1, coarse=spacing)
    finer.setup("fit")
    scan = finer.side("train")[0]
    image, (begun, labels) = finer.reader.image(scan), finer.warped(scan)
    small = finer.grid.at_spacing(spacing)
    volume = sitk.GetImageFromArray(image[0].double().numpy())
    reference = sitk.Image(*reversed(small.shape), sitk.sitkFloat64)
    reference.SetSpacing([2.0] * 3)
    offset = np.linalg.inv(finer.grid.affine) @ small.affine @ [0, 0, 0, 1]
    reference.SetOrigin(list(offset[2::-1]))
    smooth = sitk.DiscreteGaussian(volume, 1.0)  # wider than what keeps from aliasing: much alike is enough
    there = sitk.Resample(smooth, reference)
    back = sitk.GetArrayFromImage(sitk.Resample(there, volume))
    assert np.corrcoef(back.ravel(), begun[0].numpy().ravel())[0, 1] > 0.99
    assert 0.01 < float((begun - image).abs()[image > 0].mean()) < 0.1
    fitted = fit_labels(image, data.warped(scan)[1], data.template.classes, min(data.grid.spacing))
    assert float((labels == fitted).float()[image > 0].mean()) > 0.65  # of voxels that are eight times as large
    with pytest.raises(UserError, match="coarse: expected a voxel size above"):
        AppearanceDataModule(cohort, registered[1], coarse=0.5).setup("fit")


def test_training_lowers_the_loss(data, tmp_path):
    torch.manual_seed(0)
    module = AppearanceModule(widths=(16, 24), covariates=(), lr=2e-3)
    module.contract = {"deviation": data.deviation(), "covariates": data.encoder([]).specs}
    batch = data.collate([data.samples(data.side("train")).sample(k, None) for k in range(2)])
    noise = torch.randn(2, 2, *data.grid.shape)
    spread = torch.tensor([0.3, 0.6])
    optimizer = torch.optim.Adam(module.parameters(), 2e-3)
    losses = []
    for _ in range(40):
        loss = module._loss(batch, spread, noise, training=False)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_validation_says_the_same_each_time(cohort, registered, trained_appearance, verb):
    where = ("--data.root", cohort, "--data.registered", registered[1])
    common = ("appearance.yaml", *where, "--trainer.default_root_dir", trained_appearance, "--ckpt_path", "last")
    first, second = (verb("validate", *common).trainer.callback_metrics["val/loss"] for _ in range(2))
    assert first == second > 0


def test_predict_writes_each_subjects_shape_with_another_image(
    cohort, registered, trained_appearance, verb, tmp_path, data
):
    where = ("--data.root", cohort, "--data.registered", registered[1], "--data.val", 1, "--data.only", "val")
    common = ("appearance.yaml", *where, "--trainer.default_root_dir", trained_appearance, "--ckpt_path", "last")
    for out in ("a", "b"):
        verb("predict", *common, "--output", tmp_path / out, "--model.style", "{noise: 0.05}")
    first, second = (sorted((tmp_path / out).rglob("*.nii.gz")) for out in ("a", "b"))
    assert [p.name for p in first] == ["sub-synth0001_T1w.nii.gz", "sub-synth0001_dseg.nii.gz"]
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    image, grid = read_volume(first[0])
    labels, _ = read_volume(first[1], labels=True)
    assert grid.matches(data.grid)
    assert not labels[image == 0].any()
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest["records"][0]["style"]["noise"] == 0.05
    assert read_tsv(tmp_path / "a" / "participants.tsv")[0]["age"] == data.side("val")[0].covariates["age"]


def test_weights_come_back_from_a_file(module, tmp_path):
    save_weights(tmp_path / "appearance.safetensors", module)
    back = load(tmp_path / "appearance.safetensors")
    assert back.weights_hash() == module.weights_hash()
    assert back.contract["people"] == module.contract["people"]


def test_scans_that_were_not_registered_are_left_out(cohort, registered, tmp_path):
    with pytest.raises(UserError, match="is no folder"):
        AppearanceDataModule(cohort, tmp_path / "nowhere").setup("fit")
    (tmp_path / "empty").mkdir()
    with (
        pytest.warns(UserWarning, match="run `cortexgen register`"),
        pytest.raises(UserError, match="holds none of the"),
    ):
        AppearanceDataModule(cohort, tmp_path / "empty").setup("fit")


def test_weights_of_another_stage_are_refused(trained_appearance, tmp_path):
    path = trained_appearance / "checkpoints" / "last.ckpt"
    with pytest.raises(UserError, match="weights of stage 3; register needs stage 1's"):
        run(["register", "x.nii.gz", str(tmp_path / "out"), "--checkpoint", str(path)])
