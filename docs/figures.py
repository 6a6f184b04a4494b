"""Makes the pictures of README and site from real brains and generated ones.

    cortexgen generate drawn --num-samples 6 --cohort ds002748 --save-fields
    python docs/figures.py ds002748 drawn

brains.png: held-out people, generated brains, and these with their labels, above the field of the first. field.png:
that field alone, as a deformed grid and as growth.

Real brains in committed pictures are of OpenNeuro ds002748, which is CC0.
"""

import argparse
import io
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image

from cortexgen import figures
from cortexgen.atlas.intensity import normalize
from cortexgen.atlas.template import load_template
from cortexgen.data.cohort import read_cohort
from cortexgen.figures import to_png
from cortexgen.io import read_field, read_volume

HERE = Path(__file__).parent
SHOWN = 6


def stacked(name: str, *parts: Figure) -> None:
    """Write figures below one another, each as wide as the first."""
    images = [Image.open(io.BytesIO(to_png(part, dpi=90))).convert("RGB") for part in parts]
    width = images[0].width
    images = [image.resize((width, round(image.height * width / image.width))) for image in images]
    sheet = Image.new("RGB", (width, sum(image.height for image in images)))
    for k, image in enumerate(images):
        sheet.paste(image, (0, sum(above.height for above in images[:k])))
    sheet.save(HERE / name, optimize=True)


def brains(real: Path, drawn: Path, held_out: list[str]) -> Figure:
    """Held-out people above generated brains, and the latter's labels."""
    people = [s for s in read_cohort(real, "*_T1w.nii*") if s.subject.removeprefix("sub-") in held_out][:SHOWN]
    new = read_cohort(drawn, "*_T1w.nii*", "*_dseg.nii*")[:SHOWN]
    grid = read_volume(new[0].image)[1]
    rows = {
        name: [normalize(read_volume(scan.image)[0], scan.image)[0] for scan in scans]
        for name, scans in (("People (ds002748)", people), ("Generated", new), ("with labels", new))
    }
    labels = {name: [torch.zeros_like(volume) for volume in volumes] for name, volumes in rows.items()}
    labels["with labels"] = [read_volume(scan.labels, labels=True)[0][0] for scan in new if scan.labels]
    return figures.cohort(rows, grid, plane="axial", labels=labels)


def field(drawn: Path) -> tuple[Figure, Figure]:
    """The first generated brain's field: the template's grid in it, and the growth of the template's voxels."""
    scan = read_cohort(drawn, "*_T1w.nii*", "*_dseg.nii*")[0]
    (xfm,) = scan.image.parent.glob("*_to-T1w_mode-image_xfm.nii.gz")
    (growth,) = scan.image.parent.glob("*_desc-logjac_map.nii.gz")
    image, (template, grid) = read_volume(scan.image)[0][0], read_volume(growth)
    grown = figures.log_jacobian_map(template[0], load_template().to(grid).image[0], grid, label="log growth")
    displacement, lies = read_field(xfm)
    return figures.deformed_grid(displacement, lies, image, title="The field of the first"), grown


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("real", type=Path)
    parser.add_argument("drawn", type=Path)
    parser.add_argument("--held-out", default="05,10,15,20,25,30", help="the people shown")
    given = parser.parse_args()
    deformed, growth = field(given.drawn)
    stacked("brains.png", brains(given.real, given.drawn, given.held_out.split(",")), deformed)
    stacked("field.png", deformed, growth)
