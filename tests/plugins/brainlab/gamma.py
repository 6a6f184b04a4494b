"""A preprocessing step: intensities to a power."""

from cortexgen.preprocess import Step, Subject


class Gamma(Step):
    """Raise intensities to a power.

    Arguments:
        power: 1 changes nothing, 2 darkens.
    """

    name, after, needs = "gamma", ("normalize",), ("normalize",)

    def __init__(self, power: float = 2.0) -> None:
        self.power = power

    def __call__(self, subject: Subject) -> None:
        subject.image = subject.image**self.power
