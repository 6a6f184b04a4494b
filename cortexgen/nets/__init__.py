"""The networks, in PyTorch and einops alone. All take any D x H x W."""

from cortexgen.nets.appearance_unet import AppearanceUNet
from cortexgen.nets.denoising_unet import Denoised, DenoisingUNet
from cortexgen.nets.field_unet import FieldUNet
from cortexgen.nets.region_cnn import RegionCNN
from cortexgen.nets.velocity_head import VelocityHead

__all__ = ["AppearanceUNet", "Denoised", "DenoisingUNet", "FieldUNet", "RegionCNN", "VelocityHead"]
