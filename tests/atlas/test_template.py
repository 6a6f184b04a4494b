import csv
import dataclasses
import pickle

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from cortexgen.atlas.template import MNI152, load_template
from cortexgen.errors import UserError
from cortexgen.io import Grid, read_volume, write_volume

AFFINE = np.array([[0, 0, 4, -20], [0, 4, 0, -20], [4, 0, 0, -12], [0, 0, 0, 1.0]])
GRID = Grid((8, 10, 11), AFFINE)


@pytest.fixture
def files(tmp_path):
    """A template file of nested boxes with labels 0, 1 and 3."""
    image, labels = torch.zeros(1, *GRID.shape), torch.zeros(1, *GRID.shape, dtype=torch.int64)
    image[:, 1:-1, 1:-1, 1:-1], image[:, 2:-2, 2:-2, 2:-2] = 500.0, 800.0
    labels[image == 500], labels[image == 800] = 1, 3
    paths = [tmp_path / name for name in ("tpl-Boxes_T1w.nii.gz", "tpl-Boxes_dseg.nii.gz", "tpl-Boxes_dseg.tsv")]
    write_volume(paths[0], image, GRID)
    write_volume(paths[1], labels, GRID, np.uint8)
    paths[2].write_text("index\tname\n0\tUnknown\n1\tshell\n3\tcore\n")
    return paths


def test_the_mni_template_is_nilearns_with_18_symmetric_classes():
    template = load_template()
    assert template is load_template()  # read once
    assert template.name == MNI152 and template.grid.shape == (189, 233, 197) and template.grid.is_symmetric()
    np.testing.assert_allclose(template.grid.spacing, [1, 1, 1])
    assert template.image.dtype == torch.float32 and (template.image.min(), template.image.max()) == (0, 1)
    assert len(template.classes) == 18 and template.labels.unique().tolist() == list(range(18))
    assert torch.equal(template.labels, template.labels.flip(3))
    assert (template.image - template.image.flip(3)).abs().max() < 1e-6
    assert 1.2e6 < int(template.mask.sum()) < 2.2e6  # millilitres of a head's brain, thousandfold
    assert template.mask[template.labels > 0].float().mean() > 0.99
    left = template.classes.index("Lateral-Ventricle")
    d, h, w = (torch.nonzero(template.labels[0] == left).double().mean(dim=0)).tolist()
    x, y, z = (template.grid.affine @ [d, h, w, 1])[:3]
    assert abs(x) < 0.01 and -40 < y < 10 and 0 < z < 30  # the ventricles lie where MNI has them


def test_on_the_cohorts_grid_the_labels_are_those_beside_the_cohort(real_brains):
    expected, grid = read_volume(
        real_brains / "tpl-MNI152NLin2009aSym" / "tpl-MNI152NLin2009aSym_res-2_dseg.nii.gz", labels=True
    )
    template = load_template().to(grid)
    assert torch.equal(template.labels, expected)
    assert template.grid is grid and torch.equal(template.labels, template.labels.flip(3))


def test_to_a_finer_grid_is_linear_interpolation_of_image_and_indicators(files):
    template = load_template(*files)
    fine = template.to(template.grid.at_spacing(1.5))
    index = np.indices(fine.grid.shape).reshape(3, -1)
    world = fine.grid.affine @ np.vstack([index, np.ones(index.shape[1])])
    positions = (np.linalg.inv(template.grid.affine) @ world)[:3].reshape(3, *fine.grid.shape)

    def interpolated(volume):
        return map_coordinates(volume.numpy().astype(float), positions, order=1, mode="grid-constant")

    np.testing.assert_allclose(fine.image[0], interpolated(template.image[0]), atol=1e-5)
    shares = np.sort([interpolated(template.labels[0] == k) for k in range(4)], axis=0)
    winner = np.argmax([interpolated(template.labels[0] == k) for k in range(4)], axis=0)
    clear = shares[-1] - shares[-2] > 1e-4
    assert np.array_equal(fine.labels[0].numpy()[clear], winner[clear]) and clear.mean() > 0.8
    assert fine.classes == template.classes and fine.hash == template.hash


def test_a_users_template_is_scaled_and_named(files):
    template = load_template(*files)
    assert template.name == "Boxes" and template.grid.matches(GRID)
    assert template.classes == ("Unknown", "shell", "label-2", "core")
    np.testing.assert_allclose(template.image.unique(), [0, 500 / 800, 1], rtol=1e-5)
    assert torch.equal(template.labels == 3, template.image == 1)
    assert load_template(*files[:2]).classes == ("label-0", "label-1", "label-2", "label-3")
    alone = load_template(files[0])
    assert alone.labels is None and alone.classes == ()


def test_the_hash_tells_images_labels_names_and_places_apart(files, tmp_path):
    hashes = {load_template(*files).hash, load_template(*files[:2]).hash, load_template(files[0]).hash}
    image, _ = read_volume(files[0])
    for k, (volume, shift) in enumerate([(image.flip(1).square(), 0), (image, 1)]):
        affine = AFFINE.copy()
        affine[0, 3] += shift
        write_volume(tmp_path / f"{k}.nii.gz", volume, dataclasses.replace(GRID, affine=affine))
        hashes.add(load_template(tmp_path / f"{k}.nii.gz").hash)
    assert len(hashes) == 5
    write_volume(tmp_path / "copy.nii", image, GRID)
    assert load_template(tmp_path / "copy.nii").hash == load_template(files[0]).hash


def test_a_template_in_another_orientation_is_the_same_template(files, tmp_path):
    turned = []
    for path in files[:2]:
        nib.save(
            nib.load(path).as_reoriented([[0, -1], [1, 1], [2, 1]]), tmp_path / path.name.replace("Boxes", "Turned")
        )
        turned.append(tmp_path / path.name.replace("Boxes", "Turned"))
    assert nib.aff2axcodes(nib.load(turned[0]).affine) == ("L", "A", "S")
    assert load_template(*turned, files[2]).hash == load_template(*files).hash


def test_labels_on_another_grid_are_an_error_with_both_grids(files, tmp_path):
    other = GRID.box((0, 0, 1), (7, 9, 10))
    write_volume(tmp_path / "other_dseg.nii.gz", torch.arange(800).view(1, *other.shape) % 2, other)
    with pytest.raises(UserError, match=r"different grids: .*T1w.*-20, -20, -12.*other_dseg.*-16, -20, -12"):
        load_template(files[0], tmp_path / "other_dseg.nii.gz")


def test_labels_without_a_name_and_tables_without_columns_are_errors(files):
    files[2].write_text("index\tname\n0\tUnknown\n1\tshell\n")
    with pytest.raises(UserError, match=r"dseg\.tsv: no name for label 3"):
        load_template(*files)
    files[2].write_text("number\ttitle\n0\tUnknown\n")
    with pytest.raises(UserError, match=r"dseg\.tsv: expected columns index and name"):
        load_template(*files)


def test_negative_labels_unknown_names_and_doubled_labels_are_errors(files, tmp_path):
    labels, _ = read_volume(files[1], labels=True)
    write_volume(tmp_path / "negative.nii.gz", labels - 1, GRID, np.int16)
    with pytest.raises(UserError, match="must not be negative, found -1"):
        load_template(files[0], tmp_path / "negative.nii.gz")
    with pytest.raises(UserError, match=f"MNI153 is neither a file nor the name {MNI152}"):
        load_template("MNI153")
    with pytest.raises(UserError, match="brings its own labels"):
        load_template(MNI152, files[1])


def test_the_label_table_beside_the_cohort_has_the_same_names(real_brains):
    with open(real_brains / "dseg.tsv", newline="") as file:
        names = [row["name"] for row in csv.DictReader(file, delimiter="\t")]
    assert tuple(names) == load_template().classes


def test_other_processes_have_the_default_template_themselves():
    template = load_template()
    assert len(pickle.dumps(template)) < 200 and pickle.loads(pickle.dumps(template)) is template
    coarse = template.to(template.grid.at_spacing(8))
    again = pickle.loads(pickle.dumps(coarse))
    assert torch.equal(again.image, coarse.image) and again.grid.matches(coarse.grid)
