import hashlib

import pytest
import torch
from monai.networks.nets import resnet50, resnet101
from torch import nn

from cortexgen.errors import UserError
from cortexgen.metrics.medicalnet import PUBLISHED, MedicalNet, load_medicalnet


def monais(depth, dilated):
    """MONAI's ResNet with MedicalNet's first convolution and, if dilated, its last two stages."""
    options = {"n_input_channels": 1, "conv1_t_stride": 2, "feed_forward": False, "bias_downsample": False}
    network = {50: resnet50, 101: resnet101}[depth](spatial_dims=3, shortcut_type="B", **options)
    if dilated:
        for stage, dilation in ((network.layer3, 2), (network.layer4, 4)):
            for module in stage.modules():
                if isinstance(module, nn.Conv3d):
                    module.stride = (1, 1, 1)
                    if module.kernel_size == (3, 3, 3):
                        module.dilation = module.padding = (dilation,) * 3
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.copy_(0.1 * torch.randn(module.num_features, generator=generator))
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
            module.weight.data.copy_(torch.rand(module.num_features, generator=generator))
    return network.eval()


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A checkpoint as MedicalNet's were saved, with random weights: from a parallel module, with a head."""
    torch.manual_seed(0)
    state = {f"module.{key}": value for key, value in monais(50, dilated=True).state_dict().items()}
    state |= {"module.conv_seg.0.weight": torch.zeros(2048, 32, 2, 2, 2), "module.conv_seg.0.bias": torch.zeros(32)}
    path = tmp_path_factory.mktemp("weights") / "mine.pth"
    torch.save({"ecpoch": 3, "state_dict": state, "optimizer": {"lr": 0.1}}, path)
    return path


@torch.no_grad()
def test_features_are_those_of_monais_network_with_the_dilations_patched_in(published):
    state = torch.load(published, weights_only=True)["state_dict"]
    state = {key.removeprefix("module."): value for key, value in state.items() if "conv_seg" not in key}
    dilated, undilated = monais(50, dilated=True), monais(50, dilated=False)
    dilated.load_state_dict(state)
    undilated.load_state_dict(state)  # strict, and without complaint
    network = load_medicalnet(published)
    volumes = torch.randn(2, 1, 50, 64, 41)
    features = network(volumes)
    assert features.shape == (2, 2048)
    torch.testing.assert_close(features, dilated(volumes), rtol=1e-4, atol=1e-6)
    other = undilated(volumes)
    assert float((features - other).norm() / features.norm()) > 0.05
    assert network.layer4(torch.zeros(1, 1024, 6, 7, 8)).shape == (1, 2048, 6, 7, 8)


@torch.no_grad()
def test_resnet_101_is_told_by_its_blocks(tmp_path):
    torch.manual_seed(0)
    theirs = monais(101, dilated=True)
    torch.save({"state_dict": {f"module.{k}": v for k, v in theirs.state_dict().items()}}, tmp_path / "deep.pth")
    network, volumes = load_medicalnet(tmp_path / "deep.pth"), torch.randn(1, 1, 24, 24, 24)
    torch.testing.assert_close(network(volumes), theirs(volumes), rtol=1e-4, atol=1e-6)
    assert len(network.layer3) == 23


def test_it_has_the_parameters_of_the_published_networks():
    assert sum(p.numel() for p in MedicalNet(50).parameters()) == 46_155_072
    assert len(MedicalNet(50).state_dict()) == 318


def test_the_hash_says_what_the_weights_are(published, tmp_path, monkeypatch):
    digest = hashlib.sha256(published.read_bytes()).hexdigest()
    unknown = load_medicalnet(published)
    assert (unknown.name, unknown.sha256, unknown.verified) == ("mine", digest, False)
    assert "unverified" in unknown.label and digest in unknown.label
    assert load_medicalnet(published, digest.upper()).label == f"mine (sha256 {digest}, verified)"
    with pytest.raises(UserError, match=f"mine.pth: wrong weights: sha256 is {digest}, expected {'0' * 64}"):
        load_medicalnet(published, "0" * 64)
    renamed = tmp_path / "resnet_50.pth"
    renamed.write_bytes(published.read_bytes())
    with pytest.raises(UserError, match=f"sha256 is {digest}, expected {PUBLISHED['resnet_50']}"):
        load_medicalnet(renamed)
    assert load_medicalnet(renamed, digest).verified
    monkeypatch.setitem(PUBLISHED, "resnet_50_23dataset", digest)
    assert load_medicalnet(published).label == f"resnet_50_23dataset (sha256 {digest}, verified)"


def test_what_is_no_checkpoint_of_medicalnets_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none.pth: no such file; .*Tencent/MedicalNet"):
        load_medicalnet(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("not found")
    with pytest.raises(UserError, match=r"text.pth: no checkpoint of MedicalNet's"):
        load_medicalnet(tmp_path / "text.pth")
    torch.save({"state_dict": {"module.conv1.weight": torch.zeros(2)}}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other.pth: not the weights of MedicalNet's ResNet-50 or ResNet-101 \(.*"):
        load_medicalnet(tmp_path / "other.pth")
