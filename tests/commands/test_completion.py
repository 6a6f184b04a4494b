"""Completion, as a shell does it."""

import shutil
import subprocess

import pytest

from cortexgen.cli import run
from cortexgen.commands import COMMANDS, VERBS
from cortexgen.errors import UserError

# What bash does at a key press, with the words so far.
PRESS = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
function=$(complete -p cortexgen | sed 's/.*-F \\([^ ]*\\).*/\\1/')
$function cortexgen "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """Makes each shell's script once."""
    folder, made = tmp_path_factory.mktemp("completion"), {}

    def make(shell, capsys):
        if shell not in made:
            run(["completion", shell])
            made[shell] = folder / shell
            made[shell].write_text(capsys.readouterr().out)
        return made[shell]

    return make


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("cortexgen ", {*COMMANDS, *VERBS}),
        ("cortexgen register --ref", {"--refine", "--refine_intensity", "--refine-intensity"}),
        ("cortexgen generate out --warped", {"--warped_labels", "--warped-labels"}),
        ("cortexgen generate out --num-", {"--num-samples"}),
        ("cortexgen register --affine ", {"auto", "always", "never"}),
        ("cortexgen register --checkpoint register-m", {"register-mni152-2mm@1"}),
        ("cortexgen fit --config paper/g", {"paper/generate.yaml"}),
        ("cortexgen fit --config ./th", {"./theirs.yaml"}),
        ("cortexgen fit --model Diffuse", {"DiffuseMorphModule"}),
        ("cortexgen fit --data.augm", {"--data.augmentation"}),
        ("cortexgen predict --model.ref", {"--model.refine", "--model.refine_intensity"}),
        ("cortexgen fit --trainer.max_s", {"--trainer.max_steps"}),
        ("cortexgen evaluate th", {"theirs.yaml"}),
        ("cortexgen simulate --qu", {"--quiet"}),
        ("cortexgen weights v", {"verify"}),
        ("cortexgen weights verify register-m", {"register-mni152-2mm@1"}),
    ],
)
def test_bash_completes(line, expected, script, capsys, tmp_path):
    (tmp_path / "theirs.yaml").touch()
    press = ["bash", "-c", PRESS, "bash", str(script("bash", capsys)), *line.split(" ")]
    done = subprocess.run(press, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert expected <= {*done.stdout.splitlines()}
    last = line.split(" ")[-1]
    assert all(word.startswith(last) for word in done.stdout.split())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_are_in_the_shells_language(shell, script, capsys):
    path = script(shell, capsys)
    text = path.read_text()
    assert all(word in text for word in (*COMMANDS, *VERBS, "field_spacing", "trainer.max_steps", "data.root"))
    if shutil.which(shell):
        subprocess.run([shell, "-n", str(path)], check=True, capture_output=True)


def test_without_shtab_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "shtab", None)
    with pytest.raises(UserError, match=r"pip install 'cortexgen\[completion\]'"):
        run(["completion", "bash"])
