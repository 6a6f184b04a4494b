"""How a cohort is run: threads, devices, processes."""
