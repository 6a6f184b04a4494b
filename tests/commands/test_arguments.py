"""How commands may be spelled."""

import pytest

from cortexgen.commands import arguments
from cortexgen.errors import UserError

AB = '["a", "b"]'


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("generate", ["out", "--num-samples", "3"], ["out", "--num_samples", "3"]),
        ("generate", ["out", "--num-samples=3"], ["out", "--num_samples=3"]),
        ("generate", ["--native-size", "out"], ["--native_size=true", "out"]),
        ("generate", ["out", "--save-fields", "--age", "-5"], ["out", "--save_fields=true", "--age", "-5"]),
        ("generate", ["out", "--native_size", "false"], ["out", "--native_size", "false"]),
        ("register", ["out", "--moving", "a-b", "--fixed", "c"], ["c", "out", "--moving", "a-b"]),
        ("evaluate", ["real", "set", "out"], ["real", '["set"]', "out"]),
        ("evaluate", ["real", "a", "n=b", "out", "--keep"], ["real", '["a", "n=b"]', "out", "--keep=true"]),
        (
            "evaluate",
            ["--keep", "r", "a", "--seed", "3", "b", "o"],
            ["--keep=true", "r", '["a", "b"]', "--seed", "3", "o"],
        ),
        ("evaluate", ["r", "a", "o", "--rescale", "false"], ["r", '["a"]', "o", "--rescale", "false"]),
        ("register", ["out", "--fixed=c-d"], ["c-d", "out"]),
    ],
)
def test_options_with_hyphens_switches_and_fixed(name, given, expected):
    assert arguments(name, given) == expected


def test_evaluate_needs_three_places():
    with pytest.raises(UserError, match=r"expected REAL SYNTHETIC... OUT, got a b"):
        arguments("evaluate", ["a", "b", "--seed", "3"])
