"""`cortexgen simulate`: a cohort with known truth."""

from pathlib import Path

from cortexgen.simulation import simulate_cohort


def simulate(out: Path, subjects: int = 60, seed: int = 0, spacing: float = 2.0) -> None:
    """Write a simulated cohort of labelled brains with known fields.

    Random diffeomorphisms of the MNI152 template whose regional volumes vary about as much as real ones do; age moves
    the ventricles and the cortex, sex the size. The result is a BIDS derivative data set; the true velocity fields are
    under `truth/`. A cohort that was interrupted goes on where it stopped.

    Args:
        out: Folder to write to.
        subjects: How many.
        seed: Subject k depends on it and on k alone.
        spacing: Voxel size in millimetres.
    """
    simulate_cohort(out, subjects=subjects, seed=seed, spacing=spacing)
