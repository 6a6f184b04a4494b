"""Weights files: what goes in comes out, and others are refused."""

import hashlib
import json
import shutil
import sys
import types
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from cortexgen.atlas.template import load_template
from cortexgen.cli import run
from cortexgen.data.style import measure_style
from cortexgen.errors import UserError
from cortexgen.generation.appearance import Shape
from cortexgen.generation.learned import LearnedAppearance
from cortexgen.io import Grid
from cortexgen.modules import DiffuseMorphModule
from cortexgen.spatial import folded, integrate
from cortexgen.weights import (
    APPEARANCE,
    GENERATE,
    REGISTER,
    card,
    load,
    load_checkpoint,
    load_generator,
    load_registration,
    load_weights,
    save_weights,
    shipped,
    shipped_names,
    start,
)

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


def described(path):
    """The description in a weights file."""
    with safe_open(path, framework="pt") as content:
        return json.loads(content.metadata()["cortexgen"])


def rewritten(path, tensors=None, **changes):
    """A weights file with another description; None takes an entry away."""
    content = {k: v for k, v in (described(path) | changes).items() if v is not None}
    with safe_open(path, framework="pt") as file:
        state = {key: file.get_tensor(key) for key in file.keys()} if tensors is None else tensors  # noqa: SIM118
    save_file(state, path, {"cortexgen": json.dumps(content)})


class Mine(DiffuseMorphModule):
    """Somebody else's stage."""


BROKEN = {
    "an unknown module": ({"module": "Transformer", "class_path": None}, "its module Transformer cannot be imported"),
    "an absent package": ({"class_path": "no.such.Thing"}, "its module no.such.Thing cannot be imported"),
    "another class": ({"class_path": "pathlib.Path"}, "its module pathlib.Path is no StageModule"),
    "a function": ({"class_path": "os.system"}, "its module os.system is no StageModule"),
    "no module": ({"module": None}, "its description is damaged"),
    "no contract": ({"contract": None}, "its description is damaged"),
    "a contract without grid": ({"contract": {"template": {"hash": ""}}}, "its description is damaged"),
    "other hyper-parameters": ({"hyper_parameters": {"width": 3}}, "does not fit this version's DiffuseMorphModule"),
    "wrong hyper-parameters": ({"hyper_parameters": {"encoder": "x"}}, "does not fit this version's"),
    "other shapes": ({"hyper_parameters": {"code": "fixed"}}, "does not fit this version's DiffuseMorphModule"),
    "no parameters": ({"tensors": {"x": torch.zeros(1)}}, "does not fit this version's DiffuseMorphModule"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_description_that_does_not_fit_is_said_in_a_line(kind, tmp_path, module):
    path, (changes, reason) = tmp_path / "w.safetensors", BROKEN[kind]
    save_weights(path, module)
    rewritten(path, **changes)
    with pytest.raises(UserError, match=rf"w\.safetensors: {reason}") as error:
        load(path)
    assert "\n" not in str(error.value)


def test_files_that_hold_something_else(tmp_path, module):
    path = tmp_path / "w.safetensors"
    save_file({"x": torch.zeros(1)}, path, {"cortexgen": "{no json"})
    with pytest.raises(UserError, match="its description is damaged"):
        load(path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match="the file is empty"):
        load(path)
    with pytest.raises(UserError, match="a folder, expected"):
        load(tmp_path)
    for content in ({"state_dict": {}, "pytorch-lightning_version": "2"}, [1], torch.zeros(1), {"cortexgen": {}}):
        torch.save(content, tmp_path / "a.ckpt")
        with pytest.raises(UserError, match=r"a\.ckpt: (not written by cortexgen|a damaged checkpoint, without state)"):
            load(tmp_path / "a.ckpt")


def test_a_pickle_that_runs_code_is_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"cortexgen": Bomb()}, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match=r"a\.ckpt: not a checkpoint that can be read"):
        load(tmp_path / "a.ckpt")
    assert not (tmp_path / "ran").exists()


def test_a_files_content_counts_and_not_its_name(tmp_path, module, registered):
    save_weights(tmp_path / "w.pt", module)
    assert load(tmp_path / "w.pt").weights_hash() == module.weights_hash()
    checkpoint = registered[0] / "checkpoints" / "last.ckpt"
    shutil.copy(checkpoint, tmp_path / "c.pt")
    assert load(tmp_path / "c.pt").weights_hash() == load(checkpoint).weights_hash()


def test_a_weights_file_of_any_length_is_read(tmp_path, module):
    """It begins with the length of its description, which may look like a pickle's first byte."""
    path = tmp_path / "w.safetensors"
    for more in range(0, 264, 8):  # lengths are multiples of 8
        save_weights(path, module)
        rewritten(path, note="x" * more)
        if path.read_bytes().startswith(b"\x80"):
            break
    assert path.read_bytes().startswith(b"\x80")
    assert load(path).contract == CONTRACT


def test_a_module_of_somebody_else_names_its_class(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "theirs", types.SimpleNamespace(Mine=Mine))
    monkeypatch.setattr(Mine, "__module__", "theirs")
    theirs = Mine(encoder=(4, 8), denoiser_width=4)
    theirs.contract = CONTRACT
    save_weights(tmp_path / "w.safetensors", theirs)
    assert described(tmp_path / "w.safetensors")["class_path"] == "theirs.Mine"
    assert type(load(tmp_path / "w.safetensors")) is Mine
    content = {"hyper_parameters": dict(theirs.hparams), "state_dict": theirs.state_dict(), "global_step": 3}
    theirs.on_save_checkpoint(content)
    torch.save(content, tmp_path / "a.ckpt")
    again, steps = load_checkpoint(tmp_path / "a.ckpt")
    assert type(again) is Mine and steps == 3 and again.weights_hash() == theirs.weights_hash()


def test_checkpoints_from_before_classes_were_named_still_load(tmp_path, registered):
    content = torch.load(registered[0] / "checkpoints" / "last.ckpt", weights_only=True)
    assert content.pop("cortexgen_module") == "cortexgen.modules.diffusemorph.DiffuseMorphModule"
    torch.save(content, tmp_path / "old.ckpt")
    assert type(load(tmp_path / "old.ckpt")) is DiffuseMorphModule


def test_the_other_stages_weights_are_refused():
    with pytest.raises(UserError, match=r"generate.*weights of stage 2; register needs stage 1's, such as register-ds"):
        load_registration(shipped(GENERATE))
    with pytest.raises(UserError, match=r"register.*weights of stage 1; generate needs stage 2's, such as generate-ds"):
        load_generator(REGISTER)


def test_a_fit_begins_with_weights(tmp_path, module):
    save_weights(tmp_path / "w.safetensors", module)
    fresh = DiffuseMorphModule(code="features+fixed", denoiser_patch=2, denoiser_width=4, encoder=(4, 8))
    assert fresh.weights_hash() != module.weights_hash()
    start(fresh, tmp_path / "w.safetensors")
    assert fresh.weights_hash() == module.weights_hash()
    wider = DiffuseMorphModule(code="features+fixed", denoiser_patch=2, denoiser_width=4, encoder=(6, 8))
    with pytest.raises(UserError, match=r"w\.safetensors: its parameter .* is \[.*\], the configuration's is \["):
        start(wider, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"^generate-ds.*: weights of FieldDiffusionModule, the conf"):
        start(fresh, "generate-ds002748-2mm")


def test_export_of_a_run(tmp_path, registered):
    folder, fields = registered
    checkpoint, out = folder / "checkpoints" / "last.ckpt", tmp_path / "mine.safetensors"
    options = ["--registrations", str(fields / "registration.tsv"), "--data", "simulated brains", "--version", "3"]
    run(["export", str(checkpoint), str(out), *options])
    module, steps = load_checkpoint(checkpoint)
    assert load(out).weights_hash() == module.weights_hash()
    content = card(out)
    assert (content["name"], content["version"]) == ("mine", 3)
    assert content["steps"] == steps == 2 and content["data"] == "simulated brains"
    assert len(content["split"]["val"]) == 1 and 0 < content["validation"]["dice"] < 1
    assert content["hyper_parameters"]["encoder"] == [4, 8]
    with pytest.raises(UserError, match="is there already"):
        run(["export", str(checkpoint), str(out)])
    with pytest.raises(UserError, match="--version: expected 2, as in the name mine@2, got 1"):
        run(["export", str(checkpoint), str(tmp_path / "mine@2.safetensors")])
    with pytest.raises(UserError, match=r"ends in \.safetensors"):
        run(["export", str(checkpoint), str(tmp_path / "mine.pt")])


def test_weights_of_the_package_go_by_their_names(tmp_path, monkeypatch, module):
    monkeypatch.chdir(tmp_path)
    names = shipped_names()
    assert {REGISTER, GENERATE, "register-ds002748-2mm", "generate-ds002748-2mm"} <= set(names)
    assert type(load_registration("register-ds002748-2mm")) is DiffuseMorphModule
    with pytest.raises(UserError, match=r"^register-mni15: no such file.*" + ", ".join(names) + "$"):
        load_registration("register-mni15")
    with pytest.raises(UserError, match=r"register-ds002748-2mm\.ckpt: no such file"):
        load_registration("register-ds002748-2mm.ckpt")
    save_weights(Path("register-ds002748-2mm"), module)
    assert load("register-ds002748-2mm").weights_hash() == module.weights_hash()  # a file comes first


def test_each_of_the_packages_weights_says_what_it_is_and_under_which_terms():
    about = (shipped(REGISTER).parent / "README.md").read_text()
    assert sum(shipped(name).stat().st_size for name in shipped_names()) < 60e6
    for name in shipped_names():
        content = card(shipped(name))
        assert content["name"] == name and {"data", "recipe", "steps", "hyper_parameters"} <= set(content)
        assert content["sha256"] == hashlib.sha256(shipped(name).read_bytes()).hexdigest()
        assert content["licence"] == ("CC BY-SA 3.0" if "IXI" in content["data"] else "CC0")
        assert "ds002748" in content["data"]
        row = next(line for line in about.splitlines() if line.startswith(f"| `{name}"))
        assert row.rstrip(" |").endswith(content["licence"])
    for words in ("Bezmaternykh", "OpenNeuro ds002748", "brain-development.org", "LICENSE-CC-BY-SA-3.0.txt"):
        assert words in about


@pytest.mark.parametrize("stage", ["register", "generate"])
def test_weights_of_the_public_domain_cohort_are_in_half_precision(stage):
    with safe_open(shipped(f"{stage}-ds002748-2mm"), framework="pt") as content:
        large = [v for k in content.keys() if (v := content.get_tensor(k)).numel() > 10_000]  # noqa: SIM118
    assert large and all(value.dtype is torch.float16 for value in large)


def test_shipped_registration_and_its_card():
    path = shipped(REGISTER)
    assert path.stat().st_size <= 16e6
    content = card(path)
    assert {"split", "validation"} <= set(content)
    train, held_out = content["split"]["train"], content["split"]["val"]
    assert len(train) == 174 and len(held_out) == 40 and not set(train) & set(held_out)
    assert all(name[-1] in "05" for name in held_out) and not any(name[-1] in "05" for name in train)


def test_the_generator_that_comes_with_the_package():
    """Small enough, its card fits it, and a sample has no fold and the cohort's spread."""
    path = shipped(GENERATE)
    assert path.stat().st_size < 24e6
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
    assert list(module.encoder.specs) == list(module.hparams["covariates"])
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


def test_the_appearance_that_comes_with_the_package():
    """Small enough; a brain of the template's own shape has the style that was asked for, and labels in its mask."""
    path = shipped(APPEARANCE)
    assert path.stat().st_size < 20e6
    assert sum(p.stat().st_size for p in path.parent.glob("*.safetensors")) < 60e6
    module = load(None, APPEARANCE)
    template = load_template().to(Grid.from_dict(module.contract["grid"]))
    looks, found = LearnedAppearance(module, steps=4), {}
    for cohort in ("ds002748", "ixi"):
        still = torch.zeros(3, *template.grid.shape)
        generator = torch.Generator().manual_seed(0)
        shape = Shape(
            template.image,
            template.labels,
            template.classes,
            template.grid,
            still,
            1.0,
            {"cohort": cohort},
            lambda _, g=generator: g,
        )
        image, labels, style = looks.render(shape)
        assert not labels[image == 0].any()
        assert 0.9 < float((image > 0).sum() / template.mask.sum()) < 1.25
        measured = measure_style(image, labels, template.classes, 2.0)
        found[cohort] = measured["contrast"]
        assert measured["white"] == pytest.approx(style["white"], rel=0.1)
    assert found["ds002748"] > 1.5 * found["ixi"]  # .41 and .2 in the people


@pytest.mark.parametrize("name", ["x.ckpt", "x.safetensors"])
def test_parameters_that_are_no_numbers_are_refused(name, tmp_path, registered):
    checkpoint = torch.load(registered[0] / "checkpoints" / "last.ckpt", weights_only=True)
    key = next(k for k, v in checkpoint["state_dict"].items() if v.is_floating_point())
    if name == "x.ckpt":
        checkpoint["state_dict"][key].fill_(torch.nan)
        torch.save(checkpoint, tmp_path / name)
    else:
        module = load(registered[0] / "checkpoints" / "last.ckpt")
        module.state_dict()[key].fill_(torch.inf)
        save_weights(tmp_path / name, module)
    with pytest.raises(UserError, match=rf"{name}: .*{key}.* infinite or no number"):
        load_registration(tmp_path / name)


@pytest.mark.parametrize("change", [{"template": "x"}, {"template": {}}, {"integration_steps": "x"}])
def test_a_checkpoint_whose_description_is_damaged_says_so(change, tmp_path, registered):
    checkpoint = torch.load(registered[0] / "checkpoints" / "last.ckpt", weights_only=True)
    checkpoint["cortexgen"] |= change
    torch.save(checkpoint, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match=rf"description is damaged, without a valid {next(iter(change))}"):
        load_registration(tmp_path / "x.ckpt")


def test_a_fit_starts_from_trained_weights(cohort, registered, verb, tmp_path):
    """By a learning rate of zero the trained network is the one that it began with."""
    checkpoint = registered[0] / "checkpoints" / "last.ckpt"
    run_folder = ("--data.root", cohort, "--trainer.default_root_dir", tmp_path / "run")
    verb("fit", "register.yaml", *run_folder, "--model.lr", 0, "--seed_everything", 3, "--start_from", checkpoint)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    begun, trained = load(checkpoint).state_dict(), load(last).state_dict()
    torch.testing.assert_close(trained, begun, rtol=1e-5, atol=1e-8)  # an average of equal numbers
    assert load_checkpoint(last)[1] == 2  # steps of its own


def test_what_the_weights_do_not_have_keeps_its_start(tmp_path, module):
    save_weights(tmp_path / "w.safetensors", module)
    deeper = DiffuseMorphModule(**(dict(module.hparams) | {"head_refine": [16, 16, 16]}))
    before = {name: value.clone() for name, value in deeper.state_dict().items()}
    start(deeper, tmp_path / "w.safetensors")
    new = {name for name in before if name not in module.state_dict()}
    assert new == {"head.refine.2.0.weight", "head.refine.2.0.bias"}
    for name, value in deeper.state_dict().items():
        assert torch.equal(value, before[name] if name in new else module.state_dict()[name])


@pytest.mark.parametrize(
    "weights, message",
    [
        (GENERATE, "weights of FieldDiffusionModule, the configuration's is DiffuseMorphModule"),
        (REGISTER, r"its parameter [\w.]+ is \[[\d, ]+\], the configuration's is (\[|missing)"),
        ("nowhere", "no such file"),
    ],
)
def test_weights_that_a_fit_cannot_start_from(weights, message, cohort, verb, tmp_path):
    where = ("--data.root", cohort, "--trainer.default_root_dir", tmp_path / "run")
    with pytest.raises(UserError, match=f"^{weights}: {message}"):
        verb("fit", "register.yaml", *where, "--start_from", weights)
    assert not (tmp_path / "run").exists()
