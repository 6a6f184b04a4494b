"""What can be compared is there: its presets, and the published rows beside it."""

from datetime import timedelta
from pathlib import Path

import pytest
from lightning.pytorch.callbacks import Timer

from cortexgen.benchmark.models import GENERATORS, REGISTRATIONS, Budget, Model, chosen
from cortexgen.errors import UserError
from cortexgen.evaluation.published import BASELINES
from cortexgen.registry import names
from cortexgen.training.presets import find_preset


@pytest.mark.parametrize("name", [*GENERATORS, *REGISTRATIONS])
def test_its_parts_are_there(name: str) -> None:
    models: list[Model] = [known[name] for known in (GENERATORS, REGISTRATIONS) if name in known]
    for model in models:
        for config in (config for fit in model.fits for config in fit.configs):
            assert Path(find_preset(config)).is_file()
        assert model.given.get("generator", "fields") in names("generators")
        assert model.given.get("method", "network") in names("registrations")


def test_every_generator_of_the_papers_table_is_compared() -> None:
    assert set(BASELINES) <= {model.title for model in GENERATORS.values()}


@pytest.mark.parametrize("minutes", [0.25, 20, 61.5, 3000])
def test_a_budget_of_minutes_is_what_the_trainer_counts(minutes: float) -> None:
    words = Budget(minutes=minutes).words()
    limit = words[words.index("--trainer.max_time") + 1]
    assert Timer(duration=str(limit))._duration == timedelta(minutes=minutes).total_seconds()
    assert words[words.index("--trainer.max_steps") + 1] == -1


def test_a_budget_of_steps_is_not_limited_by_time() -> None:
    words = Budget(steps=7).words()
    assert words[words.index("--trainer.max_steps") + 1] == 7
    assert words[words.index("--trainer.max_time") + 1] == "null"


def test_an_unknown_name_is_said() -> None:
    assert list(chosen(["hagan", "vaegan"], GENERATORS, "--models")) == ["hagan", "vaegan"]
    with pytest.raises(UserError, match="--models: there is no biggan; there are vaegan"):
        chosen(["biggan"], GENERATORS, "--models")
