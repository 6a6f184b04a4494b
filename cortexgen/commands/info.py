"""`cortexgen info`: what is installed, what the machine offers, what there is to use; for bug reports, too."""

import os
import platform
import re
import shutil
from importlib.metadata import PackageNotFoundError, requires, version
from json import dumps
from pathlib import Path
from typing import Any

import torch

from cortexgen.data.cache import cache_root
from cortexgen.errors import UserError
from cortexgen.runner.precision import native_bfloat16
from cortexgen.training.presets import bundled
from cortexgen.weights.catalogue import FOLDER, catalogue

MIB = 2**20
OPTIONAL = {  # by distribution: what it is for, and how it comes
    "antspyx": ("ANTs: denoising and bias of `preprocess`, `register --method syn`", "preprocess"),
    "deepbet": ("skull stripping of `preprocess`", "preprocess"),
    "dcm2niix": ("studies that come as DICOM, in `preprocess`", "preprocess"),
    "picsl-greedy": ("`register --method greedy`", "compare"),
    "distributed": ("Dask: `--scheduler`, cohorts on many machines", "cluster"),
    "bids-validator-deno": ("the BIDS validator, of `bids`", "bids"),
    "shtab": ("`completion`", "completion"),
}


def info(json: bool = False) -> None:
    """Say what is installed and what the machine offers: versions, devices, weights, caches, presets, optional parts.

    Args:
        json: Print JSON, as bug reports want it.
    """
    facts = gathered()
    print(dumps(facts, indent=2) if json else _text(facts))


def gathered() -> dict[str, Any]:
    """All of it, in plain types."""
    return {
        "versions": {"cortexgen": version("cortexgen"), "python": platform.python_version(), **_needed()},
        "system": {"platform": platform.platform(), "processor": _processor(), "threads": torch.get_num_threads()},
        "devices": _devices(),
        "weights": _weights(),
        "caches": _caches(),
        "presets": bundled(),
        "optional": {
            name: {"version": _version(name), "for": use, "extra": by} for name, (use, by) in OPTIONAL.items()
        },
    }


def _needed() -> dict[str, str | None]:
    """Versions of what the package depends on."""
    lines = [line for line in requires("cortexgen") or [] if "extra ==" not in line]
    return {name: _version(name) for name in (re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in lines)}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        program = shutil.which(name)  # dcm2niix may come without its package
        return f"at {program}" if program else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _devices() -> dict[str, Any]:
    """Each with its memory in MiB, and whether bfloat16 is fast there."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cpu: dict[str, Any] = {"cores": cores, "instructions": torch.backends.cpu.get_cpu_capability()}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        cpu["memory_mib"] = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MIB
    bfloat16 = bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    found: dict[str, Any] = {"cpu": cpu | {"bfloat16": bfloat16}}
    for k in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(k)
        about = {"name": torch.cuda.get_device_name(k), "memory_mib": total // MIB, "free_mib": free // MIB}
        found[f"cuda:{k}"] = about | {"bfloat16": native_bfloat16()}
    if torch.backends.mps.is_available():
        found["mps"] = {"note": "not used: it has no float64; networks run on the CPU"}
    return found


def _weights() -> dict[str, Any]:
    """Of those that have a name; or why they can't be listed."""
    try:
        there = catalogue()
    except UserError as error:
        return {"problem": str(error)}
    entries = [
        {"name": w.name, "version": w.version, "bytes": w.path.stat().st_size, "licence": w.licence, "sha256": w.sha256}
        for w in there
    ]
    return {"folder": os.environ.get(FOLDER), "files": entries}


def _caches() -> dict[str, Any]:
    folder = cache_root()
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    return {"folder": str(folder), "files": len(sizes), "bytes": sum(sizes)}


def _text(facts: dict[str, Any]) -> str:
    def rows(entries: dict[str, Any]) -> list[str]:
        width = max(map(len, entries), default=0)
        return [f"  {name:<{width}}  {value}" for name, value in entries.items()]

    system, weights, caches = facts["system"], facts["weights"], facts["caches"]
    devices = {name: ", ".join(f"{key} {value}" for key, value in d.items()) for name, d in facts["devices"].items()}
    files = {
        f"{w['name']}@{w['version']}": f"{w['bytes'] / 1e6:.1f} MB, {w['licence']}, sha256 {w['sha256']:.12}..."
        for w in weights.get("files", ())
    }
    optional = {
        name: f"{o['version'] or 'missing'}; {o['for']}"
        + ("" if o["version"] else f"; pip install 'cortexgen[{o['extra']}]'")
        for name, o in facts["optional"].items()
    }
    sections = {
        "versions": rows(facts["versions"]),
        "system": rows(system),
        "devices": rows(devices),
        f"weights ({FOLDER}: {weights.get('folder') or 'not set'})": rows(files) or [f"  {weights.get('problem')}"],
        "caches": [f"  {caches['folder']}: {caches['files']} files, {caches['bytes'] / 1e9:.2f} GB"],
        "presets": [f"  {', '.join(facts['presets'])}"],
        "optional": rows(optional),
    }
    return "\n".join(line for title, lines in sections.items() for line in (f"{title}:", *lines))
