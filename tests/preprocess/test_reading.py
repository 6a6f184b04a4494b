import nibabel as nib
import numpy as np
import pytest

from cortexgen.errors import UserError
from cortexgen.preprocess.reading import read_scan

SHAPE = (8, 9, 10)


def values(*shape):
    return np.random.default_rng(0).integers(1, 200, shape or SHAPE).astype(np.int16)


def rgb():
    voxel = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    return np.frombuffer(values(*SHAPE, 3).astype(np.uint8).tobytes(), voxel).reshape(SHAPE)


def sheared(cosine):
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 1] = 2 * np.array([cosine, np.sqrt(1 - cosine**2), 0])
    return affine


@pytest.mark.parametrize(
    ("array", "affine", "words"),
    [
        (rgb(), np.eye(4), "colours"),
        (values().astype(np.complex64), np.eye(4), "complex64"),
        (values(*SHAPE, 3), np.eye(4), "expected a 3D volume, found shape 8 x 9 x 10 x 3"),
        (values(), sheared(0.2), "meet at 78.5 degrees"),
        (values(), sheared(0.03), "meet at 88.3 degrees"),
        (values(), np.diag([1, 1, 5.0, 1]), "voxels are 1 x 1 x 5 mm"),
        (values(), np.diag([1, 1, 4.3, 1]), "voxels are 1 x 1 x 4.3 mm"),
        (values(), np.diag([0.7, 0.7, 3.7, 1]), "voxels are 0.7 x 0.7 x 3.7 mm"),
        (values(), np.diag([0.5, 0.5, 3.0, 1]), "voxels are 0.5 x 0.5 x 3 mm"),
        (np.full(SHAPE, 7, np.int16), np.eye(4), "every voxel is 7"),
        (np.where(values() > 100, np.nan, 1).astype(np.float32), np.eye(4), "NaN"),
    ],
)
def test_what_is_no_scan_is_refused_in_one_line(tmp_path, array, affine, words):
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(array, affine), path)
    with pytest.raises(UserError, match=words) as error:
        read_scan(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_a_truncated_file_is_refused(tmp_path, name):
    path = tmp_path / name
    nib.save(nib.Nifti1Image(values(30, 30, 30), np.eye(4)), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(UserError, match=r"truncated|not a readable NIfTI"):
        read_scan(path)


@pytest.mark.parametrize("spacing", [(1, 1, 3.8), (0.8, 0.8, 3.8)])
def test_thick_slices_are_read(tmp_path, spacing):
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(values(), np.diag([*spacing, 1])), path)
    assert sorted(read_scan(path)[1].spacing) == pytest.approx(sorted(spacing))


def test_a_file_without_orientation_is_refused(tmp_path):
    image = nib.Nifti1Image(values(), None)
    image.header["sform_code"] = image.header["qform_code"] = 0
    nib.save(image, tmp_path / "scan.nii.gz")
    with pytest.raises(UserError, match="sform_code and qform_code are 0"):
        read_scan(tmp_path / "scan.nii.gz")


def test_a_rotated_scan_in_a_path_beyond_ascii_is_read(tmp_path):
    turn = nib.eulerangles.euler2mat(0.2, 0.1, -0.3)
    affine = nib.affines.from_matvec(turn @ np.diag([-0.9, 0.9, 1.2]), [1, 2, 3])
    path = tmp_path / "größe 脑" / "scan é.nii.gz"
    path.parent.mkdir()
    nib.save(nib.Nifti1Image(values(), affine), path)
    image, grid = read_scan(path)
    assert image.shape[1:] == grid.shape and sorted(grid.spacing) == pytest.approx([0.9, 0.9, 1.2])
