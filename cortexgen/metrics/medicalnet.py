"""MedicalNet's networks (Chen, Ma and Zheng, "Med3D", arXiv:1904.00625) as feature extractors: what FID is measured on.

MONAI's ResNet takes the same weights without complaint and computes something else: its last two stages have stride 2
and no dilation.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cortexgen.errors import UserError
from cortexgen.io.bids import sha256 as file_hash
from cortexgen.spatial.precision import full_precision

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
STAGES = ((64, 1, 1), (128, 2, 1), (256, 1, 2), (512, 1, 4))  # width, stride, dilation
PUBLISHED = {
    "resnet_50_23dataset": "ff48a62219073fb977fd3f4ddfb8dc1367f0ec156c8d6f6c37e205bd683a246e",
    "resnet_50": "5b6189cafbee2f5604a7279b62bc163365aa6a86a377e1dc260a14275cacbd84",
    "resnet_101": "a26bbcf9b2ad35f048b0fa317234c003f171a4d719760e5c4aff9f793654ebcf",
}


class Bottleneck(nn.Module):
    """1 → 3 → 1 convolutions beside a shortcut, a projection (type B) where the shape changes."""

    def __init__(self, channels: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = nn.Conv3d(width, width, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm3d(width)
        self.conv3 = nn.Conv3d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(4 * width)
        self.downsample = None
        if stride > 1 or channels != 4 * width:
            projection = nn.Conv3d(channels, 4 * width, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm3d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        return (self.bn3(self.conv3(y)) + (x if self.downsample is None else self.downsample(x))).relu()


class MedicalNet(nn.Module):
    """MedicalNet's dilated 3D ResNet without its head: the mean of its last stage over space, 2048 features.

    Attributes:
        name: of the weights, "resnet_50" for example.
        sha256: of their file.
        verified: whether that is the one expected.
        path: of the file.
        distance: what a Fréchet distance of these features is called.
        protocols: that they are measured in.
    """

    distance = "FID"
    protocols = ("standard", "paper")

    def __init__(self, depth: int = 50, name: str = "random", sha256: str = "", verified: bool = False) -> None:
        super().__init__()
        self.name, self.sha256, self.verified = name, sha256, verified
        self.path: Path | None = None
        self.conv1 = nn.Conv3d(1, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm3d(64)
        self.maxpool = nn.MaxPool3d(3, 2, padding=1)
        channels = 64
        for stage, (count, (width, stride, dilation)) in enumerate(zip(BLOCKS[depth], STAGES, strict=True), start=1):
            blocks = [Bottleneck(channels, width, stride, dilation)]
            channels = 4 * width
            blocks += [Bottleneck(channels, width, 1, dilation) for _ in range(1, count)]
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))

    def __reduce_ex__(self, protocol: Any) -> Any:  # other processes read the file themselves
        if self.path is None:
            return super().__reduce_ex__(protocol)
        return load_medicalnet, (self.path, self.sha256), {"verified": self.verified}

    @property
    def label(self) -> str:
        """Name and hash in one line, for tables."""
        return f"{self.name} (sha256 {self.sha256}, {'verified' if self.verified else 'unverified'})"

    @full_precision
    def forward(self, volumes: Tensor) -> Tensor:
        """Features `[B, 2048]` of volumes `[B, 1, D, H, W]` in the range that the protocol's input function gives."""
        x = self.maxpool(self.bn1(self.conv1(volumes.float())).relu())
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        return x.mean(dim=(2, 3, 4))


def load_medicalnet(path: Path | str, sha256: str | None = None) -> MedicalNet:
    """MedicalNet with weights from a published checkpoint file (`resnet_50_23dataset.pth`, ...), ready for inference.

    Nothing is downloaded: the files are linked from github.com/Tencent/MedicalNet. A file with one of the published
    names must have the published hash, unless the caller gives another; a file of another name and unknown content is
    read and marked as unverified.

    Arguments:
        path: of the file.
        sha256: what its hash must be.

    Raises:
        UserError: if the file is missing, has the wrong hash, or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; MedicalNet's weights are linked from github.com/Tencent/MedicalNet")
    found, expected = file_hash(path), (sha256 or PUBLISHED.get(path.stem, "")).lower()
    if expected and found != expected:
        raise UserError(f"{path}: wrong weights: sha256 is {found}, expected {expected}")
    published = {value: name for name, value in PUBLISHED.items()}
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        state = {key.removeprefix("module."): value for key, value in content.items()}
    except Exception as error:
        raise UserError(
            f"{path}: no checkpoint of MedicalNet's ({(str(error) or repr(error)).splitlines()[0]})"
        ) from None
    state = {key: value for key, value in state.items() if not key.startswith("conv_seg.")}
    depth = 101 if "layer3.22.conv1.weight" in state else 50
    network = MedicalNet(depth, published.get(found, path.stem), found, bool(expected) or found in published)
    network.path = path
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not the weights of MedicalNet's ResNet-50 or ResNet-101 ({reason})") from None
    return network.eval().requires_grad_(False)
