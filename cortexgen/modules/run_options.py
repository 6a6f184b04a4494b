"""Run-time options that trained weights carry: what they are drawn with unless somebody says otherwise."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cortexgen.modules.base import StageModule

SAMPLING = "sampling"  # their place in the contract


class Carried:
    """An attribute of a module: the value that was set, else the one in the module's contract, else a default.

    Setting it to None takes the setting back.

    Arguments:
        default: for weights that carry none.
    """

    def __init__(self, default: Any) -> None:
        self.default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self.name, self.place = name, f"_chosen_{name}"

    def __get__(self, module: "StageModule | None", owner: type) -> Any:
        if module is None:
            return self
        chosen = module.__dict__.get(self.place)
        return module.contract.get(SAMPLING, {}).get(self.name, self.default) if chosen is None else chosen

    def __set__(self, module: "StageModule", value: Any) -> None:
        module.__dict__[self.place] = value
