"""How commands may be spelled."""

import pytest

from cortexgen.commands import arguments


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("generate", ["out", "--num-samples", "3"], ["out", "--num_samples", "3"]),
        ("generate", ["out", "--num-samples=3"], ["out", "--num_samples=3"]),
        ("generate", ["--native-size", "out"], ["--native_size=true", "out"]),
        ("generate", ["out", "--save-fields", "--age", "-5"], ["out", "--save_fields=true", "--age", "-5"]),
        ("generate", ["out", "--native_size", "false"], ["out", "--native_size", "false"]),
        ("register", ["out", "--moving", "a-b", "--fixed", "c"], ["c", "out", "--moving", "a-b"]),
        ("register", ["out", "--fixed=c-d"], ["c-d", "out"]),
    ],
)
def test_options_with_hyphens_switches_and_fixed(name, given, expected):
    assert arguments(name, given) == expected
