"""One process of a training on one or two: runs `cortexgen` with each list of arguments, and notes what it did.

    python one_rank.py RECORDS.pt ARGUMENTS.json

The environment says which process this is, as torchrun's does.
"""

import json
import sys
from pathlib import Path

import torch

from cortexgen.cli import run
from cortexgen.data.noise import SampleNoise
from cortexgen.modules.base import StageModule

torch.set_num_threads(1)
record = {}


def perturb(module):
    """Networks start with outlets near zero, behind which gradients would be too."""
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)


def note_gradients(module, optimizer):
    record["gradients"].append({name: p.grad.clone() for name, p in module.named_parameters()})


def note_noise(self, draw=SampleNoise.normal):
    noise = draw(self)
    record["noise"] += noise.flatten(1).double().sum(dim=1).tolist()
    return noise


def note_batch(module, batch, batch_idx, start=StageModule.on_train_batch_start):
    record["names"].append(batch["name"])
    return start(module, batch, batch_idx)


StageModule.on_fit_start = perturb
StageModule.on_before_optimizer_step = note_gradients
StageModule.on_train_batch_start = note_batch
SampleNoise.normal = note_noise

records = []
for arguments in json.loads(Path(sys.argv[2]).read_text()):
    record = {"gradients": [], "noise": [], "names": []}
    run(arguments)
    records.append(record)
torch.save(records, sys.argv[1])
