"""PIRATE and PIRATE+: the denoiser learns, the iterations register, from the command line as in Python."""

import pytest
import torch

from cortexgen import registry
from cortexgen.cli import run
from cortexgen.errors import UserError
from cortexgen.io import Grid, read_field_grid
from cortexgen.io.bids import read_tsv
from cortexgen.losses import local_ncc
from cortexgen.modules.baselines import PirateModule, PiratePlusModule
from cortexgen.spatial import antialias, integrate, warp
from cortexgen.weights import load_checkpoint

SMALL = ("--model.width", "8", "--model.depth", "3")
SHAPE = (17, 15, 13)


def fields(count: int, seed: int) -> torch.Tensor:
    """Smooth ones of 1.5 voxels, `[count, 3, 9, 8, 7]`."""
    noise = torch.randn(count, 3, 9, 8, 7, generator=torch.Generator().manual_seed(seed))
    smooth = antialias(noise, (5, 5, 5))
    return 1.5 * smooth / smooth.std()


@pytest.fixture
def pair():
    """A textured image, and the same moved by 1.2 voxels along H."""
    image = antialias(torch.rand(1, 1, *SHAPE, generator=torch.Generator().manual_seed(0)), (5, 5, 5))
    image = (image - image.min()) / (image.max() - image.min())
    return image, warp(image, torch.zeros(1, 3, *SHAPE) + torch.tensor([0.0, 1.2, 0.0]).view(1, 3, 1, 1, 1))


@pytest.fixture(scope="module")
def trained(registered, cohort, verb, tmp_path_factory):
    """Checkpoints of both, barely trained, by the presets."""
    root = tmp_path_factory.mktemp("pirate")
    verb(
        *("fit", "baselines/pirate.yaml", "--data.root", registered[1]),
        *("--trainer.default_root_dir", root / "pirate", *SMALL),
    )
    pirate = root / "pirate" / "checkpoints" / "last.ckpt"
    verb(
        *("fit", "baselines/pirateplus.yaml", "--data.root", cohort, "--start_from", pirate, "--model.iterations", 3),
        *("--trainer.default_root_dir", root / "plus", *SMALL),
    )
    return pirate, root / "plus" / "checkpoints" / "last.ckpt"


def test_noise_is_told_from_a_field_after_a_short_training():
    torch.manual_seed(0)
    module = PirateModule(width=16, depth=3, lr=3e-3)
    module.contract["integration_steps"] = 0
    optimizer, generator = module.configure_optimizers(), torch.Generator().manual_seed(1)
    train, test = fields(16, 0), fields(4, 1)
    noise = torch.randn(test.shape, generator=generator)

    def left() -> float:
        with torch.no_grad():
            noisy = test + noise
            return float((noisy - module.noise(noisy) - test).square().mean())

    before = left()
    for _ in range(80):
        optimizer.zero_grad()
        module._loss({"velocity": train}, torch.randn(train.shape, generator=generator)).backward()
        optimizer.step()
    assert before == pytest.approx(1, abs=0.1) and left() < 0.35  # the identity leaves 1, all of the noise


def test_it_denoises_displacements_unless_velocities_are_asked_for():
    """The network sees what it denoises: the flow of the fields given, or the fields."""
    seen = []
    for steps in (0, 7):
        module = PirateModule(width=8, depth=2, integration_steps=steps)
        module.contract["integration_steps"] = 7
        module.net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        module._loss({"velocity": fields(1, 0)}, torch.zeros(1, 3, 9, 8, 7))
    torch.testing.assert_close(seen[0], integrate(fields(1, 0), 7))
    torch.testing.assert_close(seen[1], fields(1, 0))


@pytest.mark.parametrize("make", [PirateModule, PiratePlusModule])
def test_a_pair_comes_together(make, pair):
    torch.manual_seed(0)
    module = make(width=8, depth=2, iterations=60, step=0.1, weight=0.1, smoothness=0.3)
    with torch.no_grad():
        module.net[0].weight *= 0.01  # an untrained denoiser that says next to nothing
    moving, fixed = pair
    solved = module.solve(moving, fixed)
    assert solved.field.shape == (1, 3, 9, 8, 7) and 1 < solved.iterations <= 60
    before, after = local_ncc(moving, fixed), local_ncc(module.misfit(moving, fixed).warped(solved.field), fixed)
    assert after > before + 0.4 * (1 - before)


def test_the_denoiser_learns_from_where_its_iterations_end(pair):
    """The gradient is that of one iteration at a point held still, and steps along it lower the loss."""
    torch.manual_seed(0)
    module = PiratePlusModule(width=8, depth=2, iterations=25, lr=3e-4, ncc_window=5, gradient_weight=0.0)
    batch = dict(zip(("moving", "fixed"), pair, strict=True))
    losses = []
    optimizer = module.configure_optimizers()
    for _ in range(12):
        optimizer.zero_grad()
        loss = module._losses(batch)["loss"]
        loss.backward()
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in module.net.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 1e-3


def test_weights_start_the_other_and_carry_their_grid(trained, registered):
    pirate, plus = (load_checkpoint(path)[0] for path in trained)
    assert type(pirate) is PirateModule and type(plus) is PiratePlusModule
    written = Grid.from_dict(pirate.contract["grid"]).coarse(2)
    assert written.matches(pirate.frame.velocity_grid) and pirate.frame.steps == 0
    field = next(registered[1].glob("sub-*/anat/*_desc-velocity_field.nii.gz"))
    assert read_field_grid(field).matches(pirate.frame.velocity_grid)
    difference = [float((a - b).abs().max()) for a, b in zip(pirate.parameters(), plus.parameters(), strict=True)]
    assert max(difference) < 1e-3  # two steps of 1e-5


@pytest.mark.parametrize("method", ["pirate", "pirate+"])
def test_the_command_registers_by_a_checkpoint(method, trained, cohort, tmp_path, monkeypatch):
    monkeypatch.setattr(PirateModule, "solve", few(PirateModule.solve))
    monkeypatch.setattr(PiratePlusModule, "solve", few(PiratePlusModule.solve))
    image = next(cohort.glob("sub-0001/anat/*_T1w.nii.gz"))
    checkpoint = trained[method == "pirate+"]
    run(["register", str(image), str(tmp_path / "out"), "--method", method, "--checkpoint", str(checkpoint)])
    (row,) = read_tsv(tmp_path / "out" / "registration.tsv")
    assert row["status"] == "ok" and row["refinement_steps"] <= 3 and row["folded_voxels"] == 0
    assert row["mean_displacement_mm"] > 0.01


def few(solve):
    def call(self, moving, fixed):
        self.iterations = 3
        return solve(self, moving, fixed)

    return call


def test_a_mistake_is_one_line(trained, cohort, registered, verb, tmp_path):
    pirate, plus = trained
    image = str(next(cohort.glob("sub-*/anat/*_T1w.nii.gz")))
    for method, checkpoint, line in (
        ("pirate", None, "pirate: needs checkpoint"),
        ("pirate", plus, r"weights of PIRATE\+; --method pirate needs those of PIRATE$"),
        ("pirate+", pirate, r"weights of PIRATE; --method pirate\+ needs those of PIRATE\+"),
        ("pirate", "register-mni152-2mm", "weights of stage 1; --method pirate needs those of PIRATE"),
        ("network", pirate, "weights of PIRATE, which register by --method pirate"),
    ):
        given = ["--checkpoint", str(checkpoint)] if checkpoint else []
        with pytest.raises(UserError, match=line):
            run(["register", image, str(tmp_path / "no"), "--method", method, *given])
    with pytest.raises(UserError, match=r"pirate\+: takes no mirror; there are checkpoint, iterations, step, weight"):
        run(["register", image, str(tmp_path / "no"), "--method", "pirate+", "--checkpoint", str(plus), "--mirror"])
    with pytest.raises(UserError, match="refine: expected 1 or more, got 0"):
        registry.made("registrations", "pirate", {"checkpoint": pirate, "refine": 0})
    assert registry.made("registrations", "pirate", {"checkpoint": pirate, "refine": 7}).iterations == 7
    with pytest.raises(UserError, match="iterations: expected 1 or more, got 0"):
        registry.made("registrations", "pirate", {"checkpoint": pirate, "iterations": 0})
    where = ("--data.root", registered[1], "--ckpt_path", pirate, "--trainer.default_root_dir", tmp_path, *SMALL)
    with pytest.raises(UserError, match="PIRATE registers images: cortexgen register --method pirate"):
        verb("predict", "baselines/pirate.yaml", *where, "--output", tmp_path / "out")


def test_a_training_that_diverges_says_so():
    module = PirateModule(width=8, depth=2)
    with pytest.raises(UserError, match="the training diverged: its loss is nan at step 0"):
        module.checked(torch.tensor(float("nan")))
