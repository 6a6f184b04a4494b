"""Generators, or registrations, trained and measured on one cohort: what `cortexgen benchmark` does."""
