"""`cortexgen.register` and `cortexgen.generate` are functions, whatever was imported or called before."""

import subprocess
import sys

SCRIPT = """
import importlib, inspect, pkgutil
import cortexgen

def check(after):
    assert inspect.isfunction(cortexgen.register) and inspect.isfunction(cortexgen.generate), after

import cortexgen.registration, cortexgen.generation
check("the rooms")
import cortexgen.api
check("the functions' own file")

from cortexgen.errors import UserError
for function, places in ((cortexgen.generate, ()), (cortexgen.register, ("a.nii", "b.nii"))):
    try:
        function(*places, checkpoint="nowhere.ckpt")
    except UserError:
        check(function)
    else:
        raise AssertionError("weights that aren't there are no error")

for found in pkgutil.walk_packages(cortexgen.__path__, "cortexgen."):
    importlib.import_module(found.name)
check("everything")
"""


def test_they_stay_functions(tmp_path):
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
