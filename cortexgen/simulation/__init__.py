"""Labelled brains with known truth."""

from cortexgen.simulation.cohort import simulate_cohort

__all__ = ["simulate_cohort"]
