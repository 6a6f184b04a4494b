"""NIfTI files compressed fast: zlib takes longer over a pair's fields than the network over the pair."""

from pathlib import Path

import nibabel as nib

from cortexgen.io.atomic import atomic

try:
    from isal.igzip import compress
except ImportError:  # where there is no wheel of it
    from gzip import compress  # type: ignore[assignment]

LEVEL = 1  # of 0 to 3 (isal) or 9 (gzip); the others take longer for files that are as large


def save_image(image: nib.Nifti1Image, path: Path) -> None:
    """Write an image atomically, compressed if its name ends in .gz; the same bytes for the same voxels and header."""
    content = image.to_bytes()
    with atomic(path) as temporary:
        temporary.write_bytes(compress(content, LEVEL, mtime=0) if Path(path).suffix == ".gz" else content)
