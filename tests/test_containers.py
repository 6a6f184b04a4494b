"""The recipes of containers: what they install and how they run; built where a program for that is there."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def instructions(tmp_path_factory):
    """Of the Dockerfile, in their order: name and value."""
    parse = pytest.importorskip("dockerfile_parse", reason="dockerfile-parse is not installed")
    copy = tmp_path_factory.mktemp("docker")  # the parser opens its file for writing
    shutil.copy(ROOT / "Dockerfile", copy)
    return [(step["instruction"], step["value"]) for step in parse.DockerfileParser(str(copy)).structure]


def apptainer() -> dict[str, list[str]]:
    """The definition's sections; its header is under ""."""
    sections: dict[str, list[str]] = {"": []}
    name = ""
    for line in (ROOT / "apptainer.def").read_text(encoding="utf-8").splitlines():
        if line.startswith("%"):
            name = line[1:].strip()
            sections[name] = []
        elif line.strip() and not line.startswith("#"):
            sections[name].append(line.strip())
    return sections


def installed(commands: list[str]) -> list[str]:
    """What `pip install` is given in shell commands, options aside."""
    parts = [shlex.split(part) for command in commands for part in command.split("&&")]
    words = [part[2:] for part in parts if part[:2] == ["pip", "install"]]
    assert all("--no-cache-dir" in line for line in words)
    return [word for line in words for word in line if not word.startswith(("-", "https:"))]


def test_the_image_is_pinned_small_and_not_roots(instructions):
    by_name = dict(instructions)
    base = re.fullmatch(r"python:(\d+\.\d+)\.\d+-slim-\w+", by_name["FROM"])
    assert base and tuple(map(int, base[1].split("."))) >= (3, 10)
    names = [name for name, _ in instructions if name != "COMMENT"]
    assert names[0] == "FROM" and names.count("FROM") == 1 and "ADD" not in names
    assert by_name["ENTRYPOINT"] == '["cortexgen"]' and by_name["USER"] not in ("root", "0")
    assert names.index("USER") > max(k for k, name in enumerate(names) if name == "RUN")
    shell = [value for name, value in instructions if name == "RUN"]
    for command in shell:
        subprocess.run(["sh", "-n", "-c", command], check=True)  # its grammar
        assert "sudo" not in command and "apt-get upgrade" not in command


def test_both_recipes_install_what_the_project_asks_for(instructions):
    ours = {Requirement(line).name: Requirement(line) for line in PROJECT["dependencies"]}
    for commands in ([value for name, value in instructions if name == "RUN"], apptainer()["post"]):
        torch, package = installed(commands)
        assert Requirement(torch).specifier == ours["torch"].specifier
        extras = package.removeprefix("/src[").removesuffix("]").split(",")
        assert {*extras} <= PROJECT["optional-dependencies"].keys()
    header = dict(line.split(": ") for line in apptainer()[""])
    assert header == {"Bootstrap": "docker", "From": dict(instructions)["FROM"]}
    assert apptainer()["runscript"] == ['exec cortexgen "$@"']


def test_what_is_copied_is_there_and_not_ignored(instructions):
    copied = [value.split()[:-1] for name, value in instructions if name == "COPY"]
    sources = {source for line in copied for source in line}
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert sources == allowed == {line.split()[0] for line in apptainer()["files"]}
    assert all((ROOT / source).exists() for source in sources)
    assert {PROJECT["readme"], "LICENSE", "pyproject.toml", "cortexgen", "configs"} <= sources


@pytest.mark.slow
@pytest.mark.parametrize("program", ["docker", "podman", "buildah", "apptainer"])
def test_it_is_built_and_runs(program, tmp_path):
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    if subprocess.run([program, "info" if program != "apptainer" else "version"], capture_output=True).returncode:
        pytest.skip(f"{program} is installed, and cannot run here")
    image = str(tmp_path / "c.sif") if program == "apptainer" else "cortexgen-test"
    build = ["build", image, "apptainer.def"] if program == "apptainer" else ["build", "-t", image, "."]
    subprocess.run([program, *build], check=True, cwd=ROOT)
    if program != "buildah":
        call = [program, "run", *([] if program == "apptainer" else ["--rm"]), image, "--version"]
        said = subprocess.run(call, check=True, capture_output=True, text=True).stdout
        assert said.strip() == f"cortexgen {PROJECT['version']}"


@pytest.mark.slow
def test_the_steps_that_install_work_in_an_empty_environment(instructions, tmp_path):
    """What RUN installs, from whatever index pip is set to: PyTorch's own need not be reachable."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    for wanted in installed([value for name, value in instructions if name == "RUN"]):
        wanted = wanted.replace("/src", str(ROOT))
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-cache-dir", wanted], check=True, cwd=tmp_path)
    call = [python, "-m", "cortexgen", "--version"]
    said = subprocess.run(call, check=True, capture_output=True, text=True, cwd=tmp_path)
    assert said.stdout.strip() == f"cortexgen {PROJECT['version']}"
