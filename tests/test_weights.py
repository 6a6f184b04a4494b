"""Weights files: what goes in comes out, and others are refused."""

import hashlib
import json

import pytest
import torch

from cortexgen.cli import run
from cortexgen.errors import UserError
from cortexgen.modules import DiffuseMorphModule
from cortexgen.spatial import folded, integrate
from cortexgen.weights import GENERATE, REGISTER, card, load, load_checkpoint, load_weights, save_weights, shipped

CONTRACT = {"template": {"name": "T", "hash": "0" * 64, "classes": ["a", "b"]}, "grid": {}, "preprocessing": []}


@pytest.fixture
def module():
    torch.manual_seed(0)
    module = DiffuseMorphModule(code="features+fixed", denoiser_patch=2, denoiser_width=4, encoder=(4, 8))
    module.contract = CONTRACT
    return module.eval()


def test_a_module_comes_back_as_it_was(tmp_path, module):
    digest = save_weights(tmp_path / "w.safetensors", module)
    again = load_weights(tmp_path / "w.safetensors")
    moving, fixed = torch.rand(2, 1, 1, 9, 10, 11)
    assert torch.equal(again.velocity(moving, fixed), module.velocity(moving, fixed))
    assert again.contract == CONTRACT and again.weights_hash() == module.weights_hash()
    assert save_weights(tmp_path / "v.safetensors", again) == digest  # the same bytes
    assert (tmp_path / "v.safetensors").read_bytes() == (tmp_path / "w.safetensors").read_bytes()


def test_damaged_and_foreign_files_are_refused(tmp_path, module):
    save_weights(tmp_path / "w.safetensors", module)
    content = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"cut\.safetensors: not a safetensors file"):
        load(tmp_path / "cut.safetensors")
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(2)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="not written by"):
        load(tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="no such file"):
        load(tmp_path / "absent.safetensors")
    (tmp_path / "x.ckpt").write_bytes(b"nothing")
    with pytest.raises(UserError, match="not a checkpoint"):
        load(tmp_path / "x.ckpt")


def test_export_of_a_run(tmp_path, registered):
    folder, fields = registered
    checkpoint, out = folder / "checkpoints" / "last.ckpt", tmp_path / "mine.safetensors"
    options = ["--registrations", str(fields / "registration.tsv"), "--data", "simulated brains"]
    run(["export", str(checkpoint), str(out), *options])
    module, steps = load_checkpoint(checkpoint)
    assert load(out).weights_hash() == module.weights_hash()
    content = card(out)
    assert content["steps"] == steps == 2 and content["data"] == "simulated brains"
    assert len(content["split"]["val"]) == 1 and 0 < content["validation"]["dice"] < 1
    assert content["hyper_parameters"]["encoder"] == [4, 8]
    with pytest.raises(UserError, match="is there already"):
        run(["export", str(checkpoint), str(out)])
    with pytest.raises(UserError, match=r"ends in \.safetensors"):
        run(["export", str(checkpoint), str(tmp_path / "mine.pt")])


def test_shipped_weights_and_their_card():
    path = shipped(REGISTER)
    assert path.stat().st_size <= 8e6
    content = json.loads(path.with_suffix(".json").read_text())
    import hashlib

    assert content["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert {"data", "licence", "split", "steps", "validation", "recipe", "hyper_parameters"} <= set(content)
    validation = content["split"]["val"]
    assert validation == [f"sub-{n}" for n in ("05", "10", "15", "20", "25", "30", "35", "40", "50", "55", "60")]
    assert not set(validation) & set(content["split"]["train"]) and len(content["split"]["train"]) == 45


def test_the_generator_that_comes_with_the_package():
    """Small enough, its card fits it, and a sample has no fold and the cohort's spread."""
    path = shipped(GENERATE)
    assert path.stat().st_size < 24e6
    content = card(path)
    assert content["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert content["licence"] == "CC0" and content["recipe"]
    module = load(None, GENERATE)
    module.steps, module.correction = 6, 0.5
    velocity = module.sample(0)
    assert not folded(integrate(torch.stack([velocity, -velocity]))).any()
    scaled = module.normalized(velocity[None])
    assert 0.5 < float(scaled.square().mean().sqrt()) < 1.5
    older = module.sample(0, conditions={"age": 55.0}) - module.sample(0, conditions={"age": 20.0})
    assert float(older.abs().max()) > 0.05


def test_the_generator_that_comes_with_the_package_knows_the_sexes():
    """Its conditions keep their order in the file: drawn head sizes differ as the training cohort's do."""
    module = load(None, GENERATE)
    assert module.encoder.names == list(module.hparams["covariates"])
    spec = module.encoder.specs["brain_volume_ml"]
    volumes = {}
    for sex in ("F", "M"):
        module.conditions = {"sex": sex}
        volumes[sex] = torch.tensor([module.with_head_size(k)["brain_volume_ml"] for k in range(100)])
    share = module.encoder.specs["sex"]["shares"][0]
    overall = share * volumes["F"].mean() + (1 - share) * volumes["M"].mean()
    assert abs(float(overall) - spec["mean"]) < 20
    within = share * volumes["F"].var() + (1 - share) * volumes["M"].var()
    between = share * (1 - share) * (volumes["M"].mean() - volumes["F"].mean()) ** 2
    assert abs(float((within + between).sqrt()) / spec["std"] - 1) < 0.15
    assert 150 < float(volumes["M"].mean() - volumes["F"].mean()) < 230  # ml; the 45 training subjects: 190
