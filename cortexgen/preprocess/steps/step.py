"""What all steps have in common."""

import inspect
from abc import ABC, abstractmethod
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar

from cortexgen.atlas.template import Template
from cortexgen.errors import UserError
from cortexgen.preprocess.state import Subject


class Step(ABC):
    """Something done to a scan.

    Attributes:
        name: unique in a pipeline.
        version: raised when the same options give other voxels.
        tools: packages whose version matters.
        after, before: names of the steps that can't come later, or earlier, than this one.
        needs: names of the steps without which this one makes no sense.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    tools: ClassVar[tuple[str, ...]] = ()
    after: ClassVar[tuple[str, ...]] = ()
    before: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def __call__(self, subject: Subject) -> None:
        """Change the subject.

        Raises:
            UserError: if the scan doesn't allow it.
        """

    def check(self, template: Template) -> None:
        """See, before the first scan, that the step can be done.

        Raises:
            UserError: if not: a tool is not installed, or it doesn't lead to this template.
        """
        self.describe()

    def describe(self) -> dict[str, Any]:
        """Name, version, options and the versions of the tools, in plain types.

        Raises:
            UserError: if a tool is not installed.
        """
        options = {key: getattr(self, key) for key in inspect.signature(type(self)).parameters}
        try:
            tools = {tool: version(tool) for tool in self.tools}
        except PackageNotFoundError as error:
            advice = f"pip install 'cortexgen[preprocess]', or leave {self.name} out"
            raise UserError(f"the step {self.name} needs {error.name}, which is not installed: {advice}") from None
        return {"name": self.name, "version": self.version, "options": options, "tools": tools}
