"""One process of trainings on one or two: runs `cortexgen` with each list of arguments, and keeps the parameters.

python gan_rank.py STATES.pt ARGUMENTS.json
"""

import json
import sys
from pathlib import Path

import torch

from cortexgen.cli import run

torch.set_num_threads(1)
states = []
for arguments in json.loads(Path(sys.argv[2]).read_text()):
    model = run(arguments).model
    optimizers = [optimizer.state_dict()["state"] for optimizer in model.trainer.optimizers]
    states.append({"parameters": dict(model.named_parameters()), "optimizers": optimizers})
torch.save(states, sys.argv[1])
