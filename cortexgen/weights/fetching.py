"""Weights from an address into one's own folder, when they are asked for and never else."""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cortexgen.errors import UserError
from cortexgen.io.atomic import atomic
from cortexgen.runner.verbosity import note, verbosity
from cortexgen.weights.catalogue import (
    AT,
    FOLDER,
    SCHEMES,
    SUFFIX,
    Weights,
    described,
    own_folder,
    shipped,
    shipped_names,
)

CARD = ".json"
SHA256 = re.compile(r"sha256=([0-9a-fA-F]{64})")


def fetch(address: str) -> Weights:
    """Weights and their card, into the folder of `CORTEXGEN_WEIGHTS`, if the checksum is the card's.

    Arguments:
        address: "https://.../NAME.safetensors", or "doi:10.5281/zenodo.1234/NAME.safetensors" of a Zenodo, figshare or
            Dataverse record; the card NAME.json lies beside it. What follows "#sha256=" must be the file's checksum
            too: it says that the file is the one that somebody meant, the card alone only that it arrived whole.

    Raises:
        UserError: if no folder is set, the address is none of weights, it doesn't answer, the checksums differ, or
            other weights of that name are there, which stay.
        OSError: if the folder can't be written to.
    """
    location, _, fragment = address.partition("#")
    name, checked = _name(location), SHA256.fullmatch(fragment)
    if not name.removesuffix(SUFFIX) or not name.endswith(SUFFIX) or not name.isprintable():
        raise UserError(f"{ascii(address)[1:-1]}: expected https://.../NAME{SUFFIX}, or doi:.../NAME{SUFFIX}")
    if fragment and not checked:
        raise UserError(f"{address}: after # only sha256= and 64 digits may follow")
    folder = own_folder()
    if folder is None:
        raise UserError(f"{address}: where to? {FOLDER} must name a folder for weights")
    path = folder / name
    told = path.with_suffix(CARD)
    with atomic(told) as card:
        _retrieve(_beside(location), card, bar=False)
        about = described(card.with_suffix(SUFFIX))
        if about.problem or not about.sha256:
            raise UserError(f"{_beside(location)}: {'not a card of weights' if about.problem else 'without a sha256'}")
        base = path.stem.partition(AT)[0]
        if base in shipped_names() and described(shipped(base)).version == about.version:
            raise UserError(f"{address}: the package has weights of that name and version; name these differently")
        if checked and checked[1].lower() != about.sha256:
            raise UserError(f"{address}: the card's sha256 is {about.sha256:.12}..., asked was {checked[1]:.12}...")
        if told.exists() and told.read_bytes() != card.read_bytes():
            raise UserError(f"{told}: another card is there already; it stays until you move it")
        if path.exists():
            if about._replace(path=path).verify():
                raise UserError(f"{path}: other weights are there already; they stay until you move them")
            note(f"{path}: there already")
        else:
            with atomic(path) as file:
                _retrieve(location, file, bar=True)
                if about._replace(path=file).verify():
                    raise UserError(f"{location}: damaged, its sha256 is not that of its card")
    return described(path)


def _name(location: str) -> str:
    """The file's name in an address; "" where that is none that weights can be fetched from."""
    try:
        parts = urlsplit(location)
    except ValueError:  # brackets without an end
        return ""
    path = unquote(parts.path)
    whole = path.count("/") > 1 if parts.scheme == "doi" else bool(parts.netloc)  # doi:PREFIX/RECORD/NAME
    return Path(path).name if parts.scheme in SCHEMES and whole else ""


def _beside(location: str) -> str:
    """The address of the card."""
    parts = urlsplit(location)
    return parts._replace(path=parts.path.removesuffix(SUFFIX) + CARD).geturl()


def _retrieve(location: str, path: Path, bar: bool) -> None:
    import pooch  # slow to import
    from requests import RequestException

    downloader = pooch.DOIDownloader if location.startswith("doi:") else pooch.HTTPDownloader
    try:
        downloader(progressbar=bar and verbosity() != "quiet")(location, str(path), None)
    except (RequestException, ValueError, LookupError) as error:  # the last two: of a DOI, or an archive's answer
        raise UserError(f"{location}: can't be fetched ({' '.join(str(error).split())[:200]})") from None
