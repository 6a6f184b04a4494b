"""The stages as LightningModules."""

from cortexgen.modules.appearance import AppearanceModule
from cortexgen.modules.diffusemorph import DiffuseMorphModule
from cortexgen.modules.fielddiffusion import FieldDiffusionModule

__all__ = ["AppearanceModule", "DiffuseMorphModule", "FieldDiffusionModule"]
