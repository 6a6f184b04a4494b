"""README and the site: the program takes every command, Python can import what they import, links lead somewhere."""

import ast
import functools
import inspect
import re
import shlex
import textwrap
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

import cortexgen
from cortexgen import cli, commands
from cortexgen.benchmark.models import GENERATORS, REGISTRATIONS, chosen
from cortexgen.commands import listed
from cortexgen.registry import everything, names
from cortexgen.training.cli import CortexgenCLI
from cortexgen.weights.reading import shipped_names

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "cortexgen" / "weights" / "README.md"]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
FENCED = re.compile(r'^( *)```(\w*)(?:[^\n"]*title="([^"]+)")?[^\n]*\n(.*?)^\1```', re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^    [^\n]*\n)+", re.MULTILINE)
LINK = re.compile(r"\]\((?!\w+:|#)([^)\s#]+)")
ANOTHER = {  # names that a function looks up itself
    ("generate", "generator"): lambda: names("generators"),
    ("register", "method"): lambda: names("registrations"),
    ("evaluate", "labels"): lambda: [*names("labellers"), "none"],
    ("benchmark", "labels"): lambda: [*names("labellers"), "none"],
    ("preprocess", "skip"): lambda: [step.name for step in everything("steps").values()],
    ("register", "checkpoint"): lambda: shipped_names("register"),
    ("generate", "checkpoint"): lambda: shipped_names("generate"),
    ("generate", "appearance"): lambda: ["learned", "template", "donors"],
    ("fit", "start_from"): lambda: shipped_names(),
}


class Block(NamedTuple):
    """A block of code, where it begins, its language, and the file that its title names."""

    place: str
    language: str
    file: str | None
    text: str


def blocks(page: Path) -> Iterator[Block]:
    """A page's blocks of code, fenced or indented, those inside of lists, tabs and notes among them."""
    text = page.read_text(encoding="utf-8") + "\n"

    def place(match: re.Match[str]) -> str:
        return f"{page.relative_to(ROOT)}:{text[: match.start()].count(chr(10)) + 1}"

    for match in FENCED.finditer(text):
        yield Block(place(match), match[2], match[3], textwrap.dedent(match[4]))
    for match in INDENTED.finditer(FENCED.sub(lambda match: "\n" * match[0].count("\n"), text)):
        yield Block(place(match), "", None, textwrap.dedent(match[0]))


def called(text: str) -> Iterator[list[str]]:
    """The arguments of each `cortexgen ...` of a shell's lines; variables stand for 1."""
    for line in re.sub(r"\$\{?\w+\}?", "1", text.replace("\\\n", " ")).splitlines():
        if "cortexgen " not in line:
            continue
        words = shlex.shlex(line, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        call: list[str] = []
        for word in [*words, "&&"]:
            if re.fullmatch(r"[();<>|&]+", word):
                if call and call[0] in ("cortexgen", "srun", "$") and "cortexgen" in call:
                    yield call[call.index("cortexgen") + 1 :]
                call = []
            else:
                call.append(word)


def look(command: str, given: dict[str, Any]) -> None:
    """See that options which a command looks up by name are there."""
    for (whose, option), known in ANOTHER.items():
        for name in listed(str(given.get(option) or "")) if whose == command else []:
            assert Path(name).suffix or name.split("@")[0] in known(), f"--{option} {name}: there are {known()}"
    if command == "benchmark":
        chosen(listed(given.get("models")), REGISTRATIONS if given.get("registration") else GENERATORS, "--models")


@pytest.fixture(scope="module")
def verbs() -> Any:
    """The parser of LightningCLI's verbs; making it takes a second."""
    found = []

    def keep(_: object, parser: Any, __: object) -> None:
        found.append(parser)
        raise InterruptedError

    with pytest.MonkeyPatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(CortexgenCLI, "parse_arguments", keep)
        cli.run(["fit"])
    return found[0]


@pytest.fixture
def program(
    verbs: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[[list[str]], str]:
    """The program, with all that reads its command line and nothing that works; returns what it has against one."""
    load = commands.load

    def idle(name: str) -> Callable[..., None]:
        @functools.wraps(load(name))
        def function(*args: Any, **options: Any) -> None:
            look(name, inspect.signature(load(name)).bind(*args, **options).arguments)

        return function

    def parse(args: list[str]) -> None:
        config = verbs.parse_args(list(args))
        look(config.subcommand, vars(config[config.subcommand]))

    for name in commands.COMMANDS:  # before what they import by name is replaced
        commands.load(name)
    monkeypatch.setattr("cortexgen.commands.arguments.load", idle)
    monkeypatch.setattr("cortexgen.training.cli.run_verb", parse)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # which the program replaces
    monkeypatch.chdir(tmp_path)

    def refused(args: list[str]) -> str:
        try:
            cli.main(args)
        except SystemExit as end:
            return capsys.readouterr().err if end.code else ""
        except AssertionError as error:
            return str(error)
        return ""

    return refused


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_program_takes_every_command(page: Path, program: Callable[[list[str]], str]) -> None:
    found = [block for block in blocks(page) if block.language in ("", "bash", "yaml")]
    for block in found:
        if block.language == "yaml":
            assert yaml.safe_load(block.text), block.place
        if block.file:
            Path(block.file).write_text(block.text, encoding="utf-8")
    calls = [(block.place, args) for block in found if block.language != "yaml" for args in called(block.text)]
    calls = [(place, args) for place, args in calls if args[0] != "COMMAND"]
    wrong = {f"{place}: cortexgen {shlex.join(args)}": program(args) for place, args in calls}
    assert not {call: why for call, why in wrong.items() if why}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("cortexgen generate out --num-brains 3", "num_brains"),
        ("cd x && cortexgen generate out --age old  # comment", "age"),
        ("srun --ntasks 2 cortexgen register '[a,b]' out --method gready", "gready"),
        ("cortexgen generate out \\\n    --checkpoint generate-mni153-2mm", "mni153"),
        ("cortexgen benchmark cohort out --models vaegan,hagam --minutes 1", "hagam"),
        ("cortexgen preprocess raw out --config nowhere.yaml", "nowhere.yaml"),
        ("cortexgen fit --config register.yaml --data.rot cohort", "rot"),
        ("cortexgen fit --config register.yaml --data ADNIDataModule --data.root x --data.visit y", "visit"),
        ("cortexgen fit --config generate.yaml --model.sampler ddim2", "sampler"),
        ("cortexgen traing out", "traing"),
    ],
)
def test_a_command_that_it_doesnt_take_is_seen(line: str, why: str, program: Callable[[list[str]], str]) -> None:
    (args,) = called(line)
    assert why in program(args)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_compiles_and_finds_its_imports(page: Path) -> None:
    for block in blocks(page):
        for node in ast.walk(ast.parse(block.text)) if block.language == "python" else ():
            if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "cortexgen":
                module = import_module(str(node.module))
                for alias in node.names:
                    assert hasattr(module, alias.name) or import_module(f"{node.module}.{alias.name}"), block.place
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("cortexgen.register", "cortexgen.generate"):
                options = {str(keyword.arg): None for keyword in node.keywords}
                function = getattr(cortexgen, ast.unparse(node.func).rpartition(".")[2])
                inspect.signature(function).bind(*node.args, **options)


def test_links_lead_to_files() -> None:
    for page in PAGES:
        text = INDENTED.sub("", FENCED.sub("", page.read_text(encoding="utf-8") + "\n"))
        missing = [link for link in LINK.findall(text) if not (page.parent / link).exists()]
        assert not missing, page


def test_the_reference_is_whole() -> None:
    text = {page.stem: page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md")}
    shown = set(re.findall(r"^::: cortexgen\.commands\.(\w+)\.\1$", text["commands"], re.MULTILINE))
    assert shown == set(commands.COMMANDS)
    assert not [name for name in shipped_names() if f"cortexgen/weights/{name}.json" not in text["weights"]]
    assert not [path for path in (ROOT / "configs").rglob("*.yaml") if path.name not in text["presets"]]


def test_readme_is_a_front_page() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    first, *_ = [args for block in blocks(ROOT / "README.md") for args in called(block.text)]
    assert first[0] == "generate"
