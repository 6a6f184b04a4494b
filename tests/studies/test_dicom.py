import locale
import shutil
import sys

import numpy as np
import pytest
import SimpleITK as sitk

from cortexgen.io import read_volume
from cortexgen.studies import convert_dicom, dicom, find_study

SERIES = "ADNI/002_S_0295/MPRAGE/2006-04-18_08_20_30.0/I45108"
STAND_IN = """#!{python}
import sys
from pathlib import Path
series, out = Path(sys.argv[-1]), Path(sys.argv[sys.argv.index("-o") + 1])
for name in sorted(p.name for p in series.iterdir())[: {images}]:
    (out / (name + ".nii.gz")).write_bytes(b"image of " + str(series.name).encode())
print("Slices not stacked")
"""


@pytest.fixture
def study(tmp_path):
    """A download with a brain as DICOM slices, one file a slice, and one as NIfTI."""
    folder = tmp_path / SERIES
    folder.mkdir(parents=True)
    for k in range(3):
        (folder / f"ADNI_002_S_0295_MR_MPRAGE_br_raw_2006_{k + 1}_S13408_I45108.dcm").touch()
    other = tmp_path / SERIES.replace("002_S_0295", "002_S_0413").replace("I45108", "I45117")
    other.mkdir(parents=True)
    (other / "ADNI_002_S_0413_MR_MPRAGE_S13893_I45117.nii").touch()
    return tmp_path


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Puts a stand-in for dcm2niix, which makes so many images, on the search path."""

    def install(images):
        program = tmp_path / "bin" / "dcm2niix"
        program.parent.mkdir(exist_ok=True)
        program.write_text(STAND_IN.format(python=sys.executable, images=images))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent))
        monkeypatch.setitem(sys.modules, "dcm2niix", None)  # as if the package weren't there

    return install


def test_a_series_is_one_scan_and_becomes_one_file(study, tmp_path, stand_in):
    found = find_study(study)
    assert [scan.image.name for scan in found.scans] == ["I45108", "ADNI_002_S_0413_MR_MPRAGE_S13893_I45117.nii"]
    stand_in(1)
    done = convert_dicom(found, tmp_path / "out", jobs=2)
    made = tmp_path / "out/sub-002S0295/ses-20060418/anat/sub-002S0295_ses-20060418_desc-I45108_T1w.nii.gz"
    assert done.scans[0].image == made and made.read_bytes() == b"image of I45108"
    assert done.scans[1] == found.scans[1] and done.problems == {}
    assert [p.name for p in made.parent.iterdir()] == [made.name]
    stand_in(0)
    assert convert_dicom(found, tmp_path / "out") == done  # what is there is kept


@pytest.mark.parametrize("images", [0, 2])
def test_a_series_that_is_not_one_image_is_a_problem(study, tmp_path, stand_in, images):
    stand_in(images)
    done = convert_dicom(find_study(study), tmp_path / "out")
    assert [scan.name for scan in done.scans] == ["sub-002S0413_ses-20060418"]
    expected = rf"dcm2niix made {images} images of this series, expected one; it said: Slices not stacked"
    assert expected in done.problems["sub-002S0295_ses-20060418"]


def test_without_a_converter_the_problem_says_what_to_install(study, tmp_path, monkeypatch):
    monkeypatch.setattr(dicom, "_program", lambda: None)
    found = find_study(study)
    done = convert_dicom(found, tmp_path / "out")
    assert "install dcm2niix" in done.problems["sub-002S0295_ses-20060418"] and not (tmp_path / "out").exists()
    assert [scan.name for scan in done.scans] == ["sub-002S0413_ses-20060418"]


@pytest.fixture
def same_locale():
    """ITK's DICOM writer leaves the C locale behind."""
    before = locale.setlocale(locale.LC_ALL)
    yield
    locale.setlocale(locale.LC_ALL, before)


def test_voxels_come_through_the_real_converter(tmp_path, brains, same_locale):
    if dicom._program() is None:
        pytest.skip("dcm2niix is not installed")
    folder = tmp_path / SERIES
    folder.mkdir(parents=True)
    shutil.copy(brains[0], tmp_path / "brain.nii.gz")
    expected, grid = read_volume(tmp_path / "brain.nii.gz")
    image = sitk.Cast(sitk.ReadImage(tmp_path / "brain.nii.gz") * 1000, sitk.sitkInt16)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k in range(image.GetDepth()):
        part = image[:, :, k]
        position = image.TransformIndexToPhysicalPoint((0, 0, k))
        turn = image.GetDirection()
        direction = [turn[i] for i in (0, 3, 6, 1, 4, 7)]
        tags = {
            "0008|0060": "MR",
            "0008|0016": "1.2.840.10008.5.1.4.1.1.4",
            "0008|0018": f"1.2.826.0.1.3680043.2.1125.1.{k + 1}",
            "0020|000d": "1.2.826.0.1.3680043.2.1125.2",
            "0020|000e": "1.2.826.0.1.3680043.2.1125.3",
            "0020|0013": str(k + 1),
            "0020|0032": "\\".join(f"{x:g}" for x in position),
            "0020|0037": "\\".join(f"{x:g}" for x in direction),
            "0018|0050": f"{image.GetSpacing()[2]:g}",
            "0018|1030": "MPRAGE",
            "0018|0088": f"{image.GetSpacing()[2]:g}",
            "0018|5100": "HFS",
            "0008|0070": "SIEMENS",
            "0008|0020": "20060418",
            "0008|0030": "082030",
            "0008|0032": "082030",
            "0020|0010": "1",
            "0020|0011": "2",
            "0020|0012": "1",
        }
        for key, value in tags.items():
            part.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"slice_{k:03d}_I45108.dcm"))
        writer.Execute(part)
    done = convert_dicom(find_study(tmp_path), tmp_path / "out")
    assert done.problems == {}
    volume, found = read_volume(done.scans[0].image)
    assert found.matches(grid, 0.1)
    np.testing.assert_allclose(volume.numpy() / 1000, expected.numpy(), atol=2e-3)
