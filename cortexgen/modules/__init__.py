"""The two stages as LightningModules."""

from cortexgen.modules.diffusemorph import DiffuseMorphModule
from cortexgen.modules.fielddiffusion import FieldDiffusionModule

__all__ = ["DiffuseMorphModule", "FieldDiffusionModule"]
