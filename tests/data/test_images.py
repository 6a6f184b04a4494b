"""A cohort's images as generators of images see them."""

from pathlib import Path

import pytest
import torch

from cortexgen.data.images import ImageDataModule
from cortexgen.data.loading import load_scan
from cortexgen.errors import UserError


def prepared(cohort: Path, **options: object) -> ImageDataModule:
    data = ImageDataModule(cohort, val=1, **options)  # type: ignore[arg-type]
    data.setup("fit")
    return data


def test_samples_are_the_images_with_covariates(cohort: Path) -> None:
    data = prepared(cohort)
    for batch, scan in zip(data.val_dataloader(), data.side("val"), strict=True):
        assert set(batch) == {"image", "name", "covariates"}
        assert torch.allclose(batch["image"][0], load_scan(scan, data.native, data.grid), atol=1e-3)  # float16
        assert batch["covariates"] == [scan.covariates] and batch["name"] == [scan.name]
        assert float(batch["image"].min()) >= 0 and float(batch["image"].max()) <= 1


def test_half_of_training_is_mirrored(cohort: Path) -> None:
    data = prepared(cohort, val_subjects=["0001"])
    images = {scan.name: data.image_of(scan) for scan in data.side("train")}
    seen = set()
    torch.manual_seed(0)
    for _ in range(6):
        for batch in data.train_dataloader():
            image, own = batch["image"][0], images[batch["name"][0]]
            assert torch.equal(image, own) or torch.equal(image, own.flip(-1))
            seen.add(torch.equal(image, own))
    assert seen == {True, False}
    still = prepared(cohort, mirror=False)
    assert all(
        torch.equal(b["image"][0], still.image_of(s))
        for b in still.train_dataloader()
        for s in still.scans
        if s.name == b["name"][0]
    )


def test_the_contract_has_both_grids(cohort: Path) -> None:
    whole, box = prepared(cohort), prepared(cohort, crop="brain")
    for data in (whole, box):
        assert data.contract()["image_grid"] == whole.grid.to_dict()
        assert data.contract()["grid"] == data.grid.to_dict()
    assert all(a < b for a, b in zip(box.grid.shape, whole.grid.shape, strict=True))
    coarse = prepared(cohort, spacing=10.0)
    assert coarse.image_grid.matches(coarse.grid) and coarse.image_grid.spacing == pytest.approx([10.0] * 3)


def test_people_are_those_of_training_without_names(cohort: Path) -> None:
    data = prepared(cohort)
    people = data.people(["age", "sex"])
    assert len(people) == 4 and all(set(row) == {"age", "sex"} for row in people)
    assert sorted(row["age"] for row in people) == sorted(s.covariates["age"] for s in data.side("train"))
    assert list(data.encoder(["age"]).specs) == ["age"]
    with pytest.raises(UserError, match="height"):
        data.encoder(["height"])
