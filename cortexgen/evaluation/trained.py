"""Features of the package's own network, region by region in template space, and what it says of each brain."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor

from cortexgen.atlas.template import load_template
from cortexgen.errors import UserError
from cortexgen.evaluation.frame import Frame
from cortexgen.evaluation.store import Store
from cortexgen.io import Grid
from cortexgen.metrics.overlap import dice
from cortexgen.spatial import resample
from cortexgen.weights import FEATURES, load_features

ALIGNED = 0.8  # Dice of what real brains cover with the template's brain, at least


@lru_cache(maxsize=1)
def _loaded(path: str | None, device: str) -> Any:
    return load_features(path).to(device)


class RegionFeatures:
    """A trained `FeatureModule`; other processes read its file themselves.

    Arguments:
        path: of weights, or a name of the package's; `FEATURES` unless given.

    Attributes:
        name, sha256: of the weights.
        distance: what a Fréchet distance of these features is called.
        protocols: that they are measured in.
    """

    distance = "region-feature distance"
    protocols = ("standard",)

    def __init__(self, path: Path | str | None = None) -> None:
        self.path = None if path is None else str(path)
        module = _loaded(self.path, "cpu")
        self.name, self.sha256 = Path(self.path or FEATURES).stem, module.weights_hash()
        self.answers = dict(module.contract["answers"])

    @property
    def label(self) -> str:
        """Name and hash in one line, for tables."""
        return f"{self.name} (sha256 {self.sha256})"

    def measure(self, store: Store, view: Frame, device: str = "cpu") -> dict[int, dict[str, Any]]:
        """ "features" of each brain of a set, and what is answered of each, by its index; kept on disk.

        Raises:
            UserError: if the real brains are not in template space.
        """
        template = load_template()
        covered = float(dice(view.mask, template.to(store.grid).mask, 2)[0])
        if covered < ALIGNED:
            aligned = f"they overlap the template's brain by {covered:.2f} (Dice), expected {ALIGNED} and more"
            raise UserError(f"real brains aren't aligned to {template.name}: {aligned}")
        see = _Seen(self.path, device, store)
        return store.measure(self.name, self.sha256, see)  # type: ignore[return-value]


class _Seen:
    """Of brain i, what `FeatureModule.seen` says."""

    def __init__(self, path: str | None, device: str, store: Store) -> None:
        self.path, self.device, self.store = path, device, store

    def __call__(self, i: int) -> dict[str, Any]:
        module, template = _loaded(self.path, self.device), load_template()
        features, answers = module.seen(on_grid(self.store.image(i), self.store.grid, module.grid), template)
        return {"features": features.double()} | {name: answers[name] for name in module.contract["answers"]}


def on_grid(image: Tensor, found: Grid, grid: Grid) -> Tensor:
    """An image `[1, D, H, W]` on another grid; antialiased."""
    if found.matches(grid):
        return image
    return resample(image[None], found.torch_affine, grid.shape, grid.torch_affine)[0].clamp(0, 1)
