"""Cohorts, the template, and what feeds the networks."""
