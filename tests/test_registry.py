"""What is registered is found by name, whoever brings it, and a plug-in's fault is one line that names its package."""

from importlib.metadata import EntryPoint

import pytest

from cortexgen import registry
from cortexgen.errors import UserError


@pytest.fixture
def bring(tmp_path, monkeypatch):
    """Puts a package on the path that has one entry point: `bring("steps", "Gamma", "its_module:thing")`."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(kind, name, place, package="theirs"):
        about = tmp_path / f"{package}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[cortexgen.{kind}]\n{name} = {place}\n")

    return install


@pytest.mark.parametrize("kind", registry.BUILT_IN)
def test_everything_built_in_is_there(kind):
    assert list(registry.everything(kind)) == registry.names(kind)
    for name, place in registry.BUILT_IN[kind].items():
        assert registry.find(kind, name) is EntryPoint(name, place, kind).load()


def test_another_package_adds_one_by_an_entry_point(bring):
    bring("steps", "Counter", "collections:Counter")
    assert registry.names("steps") == [*registry.BUILT_IN["steps"], "Counter"]
    assert registry.find("steps", "Counter")("aab")["a"] == 2
    assert "Counter" not in registry.names("metrics")


def test_a_name_that_is_not_there_is_an_error_that_lists_what_is():
    with pytest.raises(UserError, match=r"steps: there is no 'Sharpen'; there are StripSkull, Denoise, .*Normalize"):
        registry.find("steps", "Sharpen")


def test_a_built_in_name_is_not_taken_over(bring):
    bring("steps", "Align", "collections:Counter")
    with pytest.warns(UserWarning, match="steps: 'Align' is cortexgen's own, and not that of theirs"):
        assert registry.find("steps", "Align").__module__ == "cortexgen.preprocess.steps.align"
    assert registry.find("steps", "Crop").__name__ == "Crop"


@pytest.mark.parametrize("place", ["no_such_module:thing", "collections:no_such_thing", "theirs_broken:thing"])
def test_a_plugin_that_cannot_be_imported_is_one_line_naming_its_package(bring, tmp_path, place):
    (tmp_path / "theirs_broken.py").write_text("raise RuntimeError('two\\nlines')\n")
    bring("steps", "Gamma", place)
    with pytest.raises(UserError, match="steps: 'Gamma' of the package theirs can't be imported") as error:
        registry.find("steps", "Gamma")
    assert "\n" not in str(error.value)
    with pytest.warns(UserWarning, match="of the package theirs can't be imported"):
        assert list(registry.everything("steps")) == [*registry.BUILT_IN["steps"]]  # the others are of use


def test_two_packages_of_one_name_and_things_that_make_nothing_are_errors(bring):
    bring("steps", "Counter", "collections:Counter", "one")
    bring("steps", "Counter", "collections:OrderedDict", "two")
    with pytest.raises(UserError, match=r"'Counter' comes from the packages (one and two|two and one); keep"):
        registry.find("steps", "Counter")
    bring("generators", "three", "math:pi", "odd")
    with pytest.raises(UserError, match="generators: 'three' is no class or function, but float"):
        registry.made("generators", "three", {})
    with pytest.raises(UserError, match="deformation-model: needs fields"):
        registry.made("generators", "deformation-model", {"seed": 3})
