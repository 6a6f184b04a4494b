"""Headers that two programs read differently, that say nothing, or that say what can't be."""

import gzip
import struct
import warnings
from importlib import import_module
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nibabel.affines import apply_affine
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from cortexgen.atlas.template import load_template
from cortexgen.cli import main
from cortexgen.data.cohort import Scan
from cortexgen.data.registration import RegistrationDataModule
from cortexgen.errors import UserError
from cortexgen.evaluation.reading import BrainSet
from cortexgen.evaluation.store import Store
from cortexgen.io import Grid, HeaderChoice, read_field, read_grid, read_volume, write_field, write_volume
from cortexgen.preprocess import Pipeline, Resample
from cortexgen.preprocess.pipeline import preprocess_scan
from cortexgen.registration.registrar import Registrar
from cortexgen.weights import load

SHAPE = (12, 14, 10)  # x, y, z
RAS = np.eye(4)
RAS[:3, :3] = Rotation.from_euler("xyz", [5, 3, -4], degrees=True).as_matrix() * np.array([2.0, 2.0, 2.5])
RAS[:3, 3] = (-11, -13, -9)
SHIFTED = RAS.copy()
SHIFTED[:3, 3] += (7, 0, 0)
CORNERS = np.array(list(product(*[(0, n - 1) for n in SHAPE])), dtype=float)


def blob() -> np.ndarray:
    """A smooth brain with air around it, int16 up to about 900."""
    noise = gaussian_filter(np.random.default_rng(0).standard_normal(SHAPE), 1.5)
    distance = np.linalg.norm(np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")), axis=0)
    return np.where(distance < 0.9, 700 + 200 * noise / np.abs(noise).max(), 0).astype(np.int16)


def save(path: Path, array=None, sform=RAS, qform=RAS, codes=(1, 1), unit="mm") -> Path:
    image = nib.Nifti1Image(blob() if array is None else array, None)
    image.set_qform(qform, codes[1])
    image.set_sform(sform, codes[0])
    if sform is not None and not codes[1]:
        image.header["pixdim"][1:4] = nib.affines.voxel_sizes(sform)
    image.header.set_xyzt_units(unit)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def spoiled(path: Path, offset: int, layout: str, *values: object) -> Path:
    """A file with bytes of its header replaced."""
    data = bytearray(save(path.with_name("good.nii")).read_bytes())
    path.with_name("good.nii").unlink()
    struct.pack_into(layout, data, offset, *values)
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return path


def itk_affine(path: Path) -> np.ndarray:
    """Where ITK puts a file's voxels, in RAS."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    n = reader.GetDimension()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(reader.GetDirection(), (n, n))[:3, :3] * reader.GetSpacing()[:3]
    affine[:3, 3] = reader.GetOrigin()[:3]
    return np.diag([-1, -1, 1, 1]) @ affine


def away(path: Path, grid: Grid) -> float:
    """How far from ITK's a grid's corners are, whatever the order of its axes."""
    theirs = apply_affine(itk_affine(path), CORNERS)
    ends = np.array(list(product(*[(0, n - 1) for n in grid.shape])), dtype=float)
    ours = apply_affine(grid.affine, ends)
    return float(np.linalg.norm(ours[:, None] - theirs, axis=-1).min(axis=0).max())


@pytest.mark.parametrize("qform", [RAS, SHIFTED, np.diag([-1, 1, 1, 1]) @ RAS], ids=["same", "shifted", "mirrored"])
def test_a_file_is_read_as_itk_reads_it_or_not_at_all(tmp_path, qform):
    for codes in product(range(5), range(5)):
        path = save(tmp_path / "a.nii", qform=qform, codes=codes)
        if codes == (0, 0) or (0 not in codes and qform is not RAS):
            with pytest.raises(UserError, match=r"sform"):
                read_grid(path)
        else:
            assert away(path, read_grid(path)) < 1e-3


@pytest.mark.parametrize("ending", ["nii", "nii.gz", "hdr"])
def test_forms_that_differ_are_shown_and_the_chosen_one_is_read_and_written(tmp_path, ending):
    path = save(tmp_path / f"sub-1_T1w.{ending}", qform=SHIFTED, codes=(2, 1))
    assert away(path, Grid(SHAPE, RAS)) > 6  # ITK takes the qform
    with pytest.raises(UserError) as error:
        read_volume(path)
    line = str(error.value)
    assert line.startswith(f"{path}: ") and "\n" not in line
    assert "first voxel at -11, " in line and "first voxel at -4, " in line and "by up to 7 mm" in line
    assert "--trust sform or --trust qform" in line and "--data.trust" in line
    for trust, affine in (("sform", RAS), ("qform", SHIFTED)):
        choice = HeaderChoice(trust)
        volume, grid = read_volume(path, choice=choice)
        assert grid.matches(read_grid(path, choice))
        corner = np.linalg.inv(grid.affine) @ affine @ [1, 2, 3, 1]
        assert volume[(0, *np.rint(corner[:3]).astype(int))] == blob()[1, 2, 3]
        write_volume(tmp_path / "out.nii.gz", volume, grid)
        write_field(tmp_path / "field.nii.gz", torch.zeros(3, *grid.shape), grid)
        for out in (tmp_path / "out.nii.gz", tmp_path / "field.nii.gz"):
            header = nib.load(out).header
            assert int(header["sform_code"]) == int(header["qform_code"]) == 1
            for found in (header.get_sform(), header.get_qform(), itk_affine(out)):
                np.testing.assert_allclose(found, affine, atol=1e-4)


def test_voxel_sizes_apart_from_the_sform_are_a_difference_too(tmp_path):
    path = tmp_path / "a.nii"
    data = bytearray(save(path, codes=(1, 0)).read_bytes())
    struct.pack_into("<fff", data, 80, 1.0, 2.0, 2.5)
    path.write_bytes(data)
    assert away(path, Grid(SHAPE, RAS)) > 5
    with pytest.raises(UserError, match=r"sform \(2 x 2 x 2.5 mm.* pixdim \(1 x 2 x 2.5 mm.* --trust sform \("):
        read_grid(path)
    assert sorted(read_grid(path, HeaderChoice("sform")).spacing) == pytest.approx([2, 2, 2.5])
    with pytest.raises(UserError, match="there is no qform"):
        read_grid(path, HeaderChoice("qform"))


@pytest.mark.parametrize("size", [-2.0, 0.0])
@pytest.mark.parametrize("codes", [(1, 1), (1, 0), (0, 1)])
def test_voxel_sizes_that_are_none_are_mended_by_nobody_in_silence(tmp_path, codes, size):
    """nibabel makes -2 mm 2 mm and 0 mm 1 mm, ITK reads a mirror image of the first."""
    path = spoiled(save(tmp_path / "a.nii", codes=codes), 80, "<f", size)
    with pytest.raises(UserError, match=r"--trust sform \(" if codes[0] else "no valid affine"):
        read_volume(path)
    if codes[0]:
        assert read_grid(path, HeaderChoice("sform")).matches(read_grid(save(tmp_path / "right.nii")))


def test_rounding_is_no_difference(tmp_path):
    shape = (256, 256, 180)
    for angle in (1e-4, 3e-4, 1e-3, 3e-3, 1e-2):  # short of half a turn, where quaternions are least exact
        affine = RAS.copy()
        affine[:3, :3] = Rotation.from_rotvec((np.pi - angle) * np.array([0.1, 0.03, 0.9945])).as_matrix()
        path = save(tmp_path / "a.nii", np.broadcast_to(np.int8(1), shape), affine, affine)
        assert read_grid(path).shape
        off = affine.copy()
        off[:3, 3] += 0.6
        with pytest.raises(UserError, match="differ"):
            read_grid(save(path, np.broadcast_to(np.int8(1), shape), affine, off))
        grid = read_grid(path, HeaderChoice("sform"))
        write_volume(tmp_path / "b.nii", torch.zeros(1, *grid.shape, dtype=torch.uint8), grid, np.uint8)
        np.testing.assert_allclose(itk_affine(tmp_path / "b.nii"), affine, atol=1e-4)
        header = nib.load(tmp_path / "b.nii").header
        assert not int(header["qform_code"]) or np.abs(header.get_qform() - affine).max() < 1e-4


@pytest.mark.parametrize("name", ["a.hdr", "a.img"])
def test_analyze_is_read_when_its_orientation_is_told(tmp_path, name):
    image = nib.AnalyzeImage(blob(), None)
    image.header.set_zooms((2, 2, 2.5))
    nib.save(image, tmp_path / "a.img")
    path = tmp_path / name
    with pytest.raises(UserError, match=r"Analyze 7.5, .* left and right are unknown; .*--orientation LAS"):
        read_volume(path)
    for codes in ("LAS", "ras", "PIR"):
        grid = read_grid(path, HeaderChoice(orientation=codes))
        assert grid.codes == codes.upper() and sorted(grid.spacing) == [2, 2, 2.5]
        ends = apply_affine(grid.affine, [[0, 0, 0], [n - 1 for n in grid.shape]])
        np.testing.assert_allclose(ends.mean(axis=0), 0, atol=1e-6)
    left, _ = read_volume(path, choice=HeaderChoice(orientation="LAS"))
    right, _ = read_volume(path, choice=HeaderChoice(orientation="RAS"))
    assert torch.equal(left, right.flip(3)) and not torch.equal(left, right)
    assert left[0, 3, 2, SHAPE[0] - 1 - 1] == blob()[1, 2, 3]


def test_a_nifti_without_orientation_can_be_told_one_too(tmp_path):
    path = save(tmp_path / "a.nii.gz", codes=(0, 0))
    with pytest.raises(UserError, match=r"sform_code and qform_code are 0\), so left and right .*--orientation"):
        read_volume(path)
    assert read_volume(path, choice=HeaderChoice(orientation="LPS"))[1].codes == "LPS"
    given = save(tmp_path / "b.nii.gz")
    assert read_grid(given, HeaderChoice(orientation="LPS")).codes == "RAS"  # its own


@pytest.mark.parametrize("codes", ["LA", "LLS", "LAX", "LASR", ""])
def test_an_orientation_names_each_axis_once(codes):
    with pytest.raises(UserError, match="one letter of L/R, P/A and I/S each"):
        HeaderChoice(orientation=codes)


def sheared(cosine):
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 1] = 2 * np.array([cosine, np.sqrt(1 - cosine**2), 0])
    return affine


def zero_column(path, qform=True):
    data = bytearray(save(path).read_bytes())
    for offset in (280, 296, 312):
        struct.pack_into("<f", data, offset, 0.0)
    if not qform:
        struct.pack_into("<h", data, 252, 0)
    path.write_bytes(data)
    return path


def rgb(path):
    voxel = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    return save(path, np.zeros(SHAPE, voxel))


def rgba(path):
    return save(path, np.zeros(SHAPE, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1"), ("A", "u1")])))


def analyze(path):
    path = path.with_suffix(".img")
    nib.save(nib.AnalyzeImage(blob(), None), path)
    return path


def bit_flipped(path):
    path = save(path.with_suffix(".nii.gz"), np.random.default_rng(0).integers(0, 99, SHAPE).astype(np.int16))
    data = bytearray(path.read_bytes())
    data[-6] ^= 1  # in the check sum
    path.write_bytes(data)
    return path


def unreadable_folder(path):
    path.mkdir()
    return path


def renamed(path):
    zipped = save(path.with_suffix(".nii.gz"))
    return zipped.rename(path)


def misnamed(path):
    plain = save(path)
    return plain.rename(path.with_suffix(".nii.gz"))


def empty(path):
    path.touch()
    return path


def far(path):
    affine = RAS.copy()
    affine[0, 3] = 1e25
    return save(path, sform=affine, qform=affine)


def vectors(path):
    image = nib.Nifti1Image(np.ones((*SHAPE, 1, 3), np.float32), RAS)
    image.header.set_intent("vector")
    nib.save(image, path)
    return path


def surface(path):
    path = path.with_name("x.surf.gii")
    nib.save(nib.GiftiImage(darrays=[nib.gifti.GiftiDataArray(np.zeros((4, 3), np.float32))]), path)
    return path


def alone(path):
    nib.save(nib.Nifti1Pair(blob(), RAS), path.with_suffix(".hdr"))
    path.with_suffix(".img").unlink()
    return path.with_suffix(".hdr")


HEADERS = {
    "surface": (surface, "expected a volume, found a GiftiImage"),
    "header alone": (alone, r"voxels should be in .*\.img, which isn't there"),
    "no sform": (lambda p: save(p, sform=np.diag([0.0, 0, 0, 1]), codes=(1, 0)), "no valid affine"),
    "sform and qform": (lambda p: save(p, qform=SHIFTED, codes=(2, 1)), "--trust sform or --trust qform"),
    "shear": (lambda p: save(p, sform=sheared(0.2), codes=(2, 0)), "meet at 78.5 degrees"),
    "small shear": (lambda p: save(p, sform=sheared(0.02), codes=(2, 0)), "meet at 88.9 degrees"),
    "shear with a qform": (lambda p: save(p, sform=sheared(0.2), qform=sheared(0), codes=(1, 1)), "--trust"),
    "analyze": (analyze, "--orientation"),
    "no codes": (lambda p: save(p, codes=(0, 0)), "sform_code and qform_code are 0"),
    "metres": (lambda p: save(p, unit="meter"), "lengths in metres"),
    "micrometres": (lambda p: save(p, unit="micron"), "lengths in micrometres"),
    "far origin": (far, r"first voxel lies at 1e\+25, -13, -9 mm"),
    "huge voxels": (lambda p: save(p, sform=np.diag([1e6, 1e6, 1e6, 1]), codes=(1, 0)), r"1e\+06 mm by its header"),
    "complex": (lambda p: save(p, blob().astype(np.complex64)), "voxels of type complex64; take the magnitude$"),
    "RGB": (rgb, "colours"),
    "RGBA": (rgba, "colours"),
    "zero column": (lambda p: zero_column(p, qform=False), "no valid affine"),
    "zero column, good qform": (zero_column, r"no valid affine\) and qform .* --trust qform \("),
    "no rotation": (lambda p: spoiled(p, 256, "<fff", 2.0, 2.0, 2.0), r"qform \(no valid affine\).* --trust sform \("),
    "NaN in the sform": (lambda p: spoiled(p, 284, "<f", float("nan")), r"sform \(no valid affine\)"),
    "promises": (lambda p: spoiled(p, 42, "<hhh", 30000, 30000, 30000), "promises 30000 x 30000 x 30000 voxels"),
    "offset": (lambda p: spoiled(p, 108, "<f", 1e9), "promises"),
    "NaN as offset": (lambda p: spoiled(p, 108, "<f", float("nan")), "not a readable NIfTI"),
    "no type": (lambda p: spoiled(p, 70, "<h", 999), "not a readable NIfTI"),
    "bits": (lambda p: spoiled(p, 70, "<h", 1), "not a readable NIfTI"),
    "no rank": (lambda p: spoiled(p, 40, "<h", 0), "3D volume"),
    "no width": (lambda p: spoiled(p, 42, "<h", 0), "3D volume, found shape 0 x 14 x 10"),
    "negative width": (lambda p: spoiled(p, 42, "<h", -5), "3D volume, found shape -5 x 14 x 10"),
    "vectors": (vectors, "3D volume, found shape 12 x 14 x 10 x 1 x 3"),
    "frames": (lambda p: save(p, np.stack([blob()] * 2, axis=-1)), "3D volume, found shape 12 x 14 x 10 x 2"),
    "folder": (unreadable_folder, "a folder, expected an image"),
    "empty": (empty, "it is empty"),
    "compressed": (renamed, r"rename it to \.nii\.gz"),
    "not compressed": (misnamed, "which it is not"),
}
VOXELS = {
    "check sum": (bit_flipped, "truncated or damaged"),
    "beyond float32": (lambda p: save(p, blob() * 1e300), r"values from 0 to|found label 7\.83\d*e\+30"),
    "infinite": (lambda p: save(p, np.where(blob() > 700, np.inf, blob())), "NaN or infinite"),
}
READERS = {"read_volume": read_volume, "read_grid": read_grid, "labels": lambda p: read_volume(p, labels=True)}


CASES = [(kind, reader) for kind in HEADERS | VOXELS for reader in READERS if reader != "read_grid" or kind in HEADERS]


@pytest.mark.parametrize(("kind", "reader"), CASES)
def test_one_line_says_what_is_wrong(tmp_path, capfd, kind, reader):
    make, words = (HEADERS | VOXELS)[kind]
    path = make(tmp_path / "sub-1_T1w.nii")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserError, match=words) as error:
            READERS[reader](path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
    assert capfd.readouterr().err == ""  # nothing else on the terminal


def test_a_bomb_allocates_nothing(tmp_path):
    """A header of 10 GB over a compressed file that could hold some 10 MB."""
    path = spoiled(tmp_path / "a.nii.gz", 42, "<hhh", 1700, 1700, 1700)
    with pytest.raises(UserError, match="promises 1700 x 1700 x 1700"):
        read_volume(path)


@pytest.mark.parametrize("kind", ["sform and qform", "shear", "no codes", "metres", "far origin", "zero column"])
def test_fields_are_read_with_the_same_care(tmp_path, kind):
    path = HEADERS[kind][0](tmp_path / "a.nii")
    image = nib.load(path)
    header = image.header.copy()
    header.set_data_shape((*SHAPE, 1, 3))
    header.set_data_dtype(np.float32)
    field = bytes(header.binaryblock) + bytes(4) + bytes(int(np.prod(SHAPE)) * 12)
    path.write_bytes(field)
    with pytest.raises(UserError, match=HEADERS[kind][1]):
        read_field(path)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(n, t) for t in ("u1", "i1", "u2", "i4", "u4", "f4", "f8", "i8", "u8", ">i2", ">f4") for n in ("a.nii.gz",)]
    + [("a.img", "i2"), ("a.nii", "i2"), ("a.NII", "i2"), ("n2", "i2"), ("a.mgz", "f4")],
)
def test_what_was_read_before_still_is(tmp_path, name, dtype):
    array = (blob() // 8).astype(dtype)
    kind = {"n2": nib.Nifti2Image, "a.mgz": nib.MGHImage}.get(name, nib.Nifti1Pair if "img" in name else None)
    if kind is None:
        header = nib.Nifti1Header(endianness=">" if ">" in dtype else "<")
        header.set_data_dtype(dtype)
        image = nib.Nifti1Image(array, RAS, header)
        image.set_qform(RAS, 1)
    else:
        image = kind(array, RAS.astype(np.float32))
    path = tmp_path / ("a.nii.gz" if name == "n2" else name)
    nib.save(image, path)
    volume, grid = read_volume(path)
    corner = np.linalg.inv(grid.affine) @ RAS @ [6, 7, 5, 1]
    assert volume[(0, *np.rint(corner[:3]).astype(int))] == array[6, 7, 5] > 0
    assert read_volume(path, labels=True)[0].max() == array.max()


def test_what_comes_after_a_compressed_file_is_ignored(tmp_path):
    path = save(tmp_path / "a.nii.gz")
    path.write_bytes(path.read_bytes() + b"some more")
    assert read_volume(path)[0].max() == blob().max()


@pytest.mark.parametrize("slope", [0.0, float("nan"), float("inf")])
def test_no_slope_is_none(tmp_path, slope):
    path = spoiled(tmp_path / "a.nii", 112, "<ff", slope, 0.0)
    assert read_volume(path)[0].max() == blob().max()


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    folder = tmp_path_factory.mktemp("template")
    return save(folder / "tpl-Toy_T1w.nii"), save(folder / "tpl-Toy_dseg.nii", (blob() > 0).astype(np.uint8))


@pytest.fixture(scope="module")
def commands(template, tmp_path_factory):
    """What each command does with the file of a subject, or of something else."""
    registrar = Registrar(load(), load_template(), device="cpu")
    pipeline, out = Pipeline([Resample(spacing=4.0)], load_template()), tmp_path_factory.mktemp("out")
    good = template[0]

    def data(root, image, labels=None, **options):
        for name, source in (("sub-1", image), ("sub-2", good), ("sub-3", good)):
            folder = root / name / "anat"
            folder.mkdir(parents=True)
            (folder / f"{name}_T1w{''.join(source.suffixes)}").symlink_to(source)
            if labels is not None:
                (folder / f"{name}_dseg{''.join(labels.suffixes)}").symlink_to(labels)
        chosen = {"template": str(template[0]), "template_labels": template[1], "val_subjects": ["1"]} | options
        module = RegistrationDataModule(root, **chosen)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module.setup("fit")
        if module.problems:
            assert list(module.problems) == ["sub-1"]  # the others go on
            raise UserError(module.problems["sub-1"])

    def preprocess(root, image):
        preprocess_scan(Scan("sub-1", "sub-1", image), out, pipeline)

    def evaluate(root, image, labels=None):
        brains = BrainSet(good)
        brains.scans = [Scan("sub-1", "sub-1", image, labels), *brains.scans]
        store = Store("set", brains, out / "work")
        store.fill()
        assert len(store) == 1  # the other one goes on
        raise UserError(brains.problems["sub-1"])

    return {
        "register": lambda root, p: registrar.prepare(p),
        "register, labels": lambda root, p: registrar.prepare(good, p),
        "preprocess": preprocess,
        "evaluate": evaluate,
        "evaluate, first": lambda root, p: BrainSet(p),
        "evaluate, labels": lambda root, p: evaluate(root, good, p),
        "fit": data,
        "fit, labels": lambda root, p: data(root, good, p),
        "template": lambda root, p: load_template(p),
        "template, labels": lambda root, p: load_template(good, p),
    }


COMMANDS = ["register", "register, labels", "preprocess", "evaluate", "evaluate, first", "evaluate, labels"]
COMMANDS += ["fit", "fit, labels", "template", "template, labels"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", ["sform and qform", "shear", "no codes", "metres", "far origin", "complex", "RGB",
                                  "zero column", "zero column, good qform", "promises"])  # fmt: skip
def test_every_command_reads_with_the_same_checks(tmp_path, commands, command, kind):
    make, words = HEADERS[kind]
    path = make(tmp_path / "x.nii")
    with pytest.raises(UserError, match=words) as error:
        commands[command](tmp_path / "root", path)
    assert "\n" not in str(error.value)


def test_training_with_a_choice(tmp_path, template):
    for name in ("sub-1", "sub-2", "sub-3"):
        save(tmp_path / name / "anat" / f"{name}_T1w.nii", sform=SHIFTED, codes=(2, 2))
    options = {"template": str(template[0]), "template_labels": template[1], "val_subjects": ["1"]}
    with (
        pytest.raises(UserError, match=r"none of its 3 images can be read: .*--data\.trust"),
        pytest.warns(UserWarning),
    ):
        RegistrationDataModule(tmp_path, **options).setup("fit")
    for trust, affine in (("sform", SHIFTED), ("qform", RAS)):
        data = RegistrationDataModule(tmp_path, **options, trust=trust)
        data.setup("fit")
        corner = data.grid.affine[:3, 3]
        assert np.allclose(corner, affine[:3, 3], atol=1e-3) and not data.problems


def test_preprocessing_with_a_choice(tmp_path):
    save(tmp_path / "a.nii", qform=SHIFTED, codes=(2, 1))
    scan, template = Scan("sub-1", "sub-1", tmp_path / "a.nii"), load_template()
    centres = {}
    for trust in ("sform", "qform"):  # the second one takes nothing over from the first
        preprocess_scan(scan, tmp_path, Pipeline([Resample(spacing=8.0)], template, choice=HeaderChoice(trust)))
        made = nib.load(next(tmp_path.glob("sub-1/anat/*_space-*_T1w.nii.gz")))
        centres[trust] = apply_affine(made.affine, np.argwhere(np.asarray(made.dataobj) > 300)).mean(axis=0)
    np.testing.assert_allclose(centres["qform"] - centres["sform"], (7, 0, 0), atol=1)
    with pytest.raises(UserError):  # nor does a run without a choice
        preprocess_scan(scan, tmp_path, Pipeline([Resample(spacing=8.0)], template))


def test_the_program_passes_a_choice_on(tmp_path, monkeypatch):
    seen = {}
    command = import_module("cortexgen.commands.preprocess")
    monkeypatch.setattr(command, "preprocess_cohort", lambda *a, **k: seen.update(choice=a[2].choice) or [])
    monkeypatch.setattr(command, "read_tsv", lambda path: [])
    nib.save(nib.AnalyzeImage(blob(), None), tmp_path / "scan.img")
    main(["preprocess", str(tmp_path / "scan.img"), str(tmp_path / "o"), "--orientation", "las", "--trust", "qform"])
    assert seen["choice"] == HeaderChoice("qform", "LAS")


def test_register_refuses_in_one_line(tmp_path, capsys):
    path = save(tmp_path / "sub-1_T1w.nii", qform=SHIFTED, codes=(2, 1))
    with pytest.raises(SystemExit) as stop:
        main(["register", str(path), str(tmp_path / "out")])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cortexgen: error")]
    assert stop.value.code == 1 and len(lines) == 1 and "--trust sform or --trust qform" in lines[0]
    with pytest.raises(SystemExit):
        main(["register", str(path), str(tmp_path / "b"), "--orientation", "LLS"])
    assert "one letter of L/R" in capsys.readouterr().err
