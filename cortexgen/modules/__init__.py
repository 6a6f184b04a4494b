"""The stages as LightningModules."""

from cortexgen.modules.appearance import AppearanceModule
from cortexgen.modules.diffusemorph import DiffuseMorphModule
from cortexgen.modules.features import FeatureModule
from cortexgen.modules.fielddiffusion import FieldDiffusionModule

__all__ = ["AppearanceModule", "DiffuseMorphModule", "FeatureModule", "FieldDiffusionModule"]
