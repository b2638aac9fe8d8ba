"""The exception tree. Every message names the item, the fact and the next thing to try.

All arguments go to `super().__init__`, so that an error survives the pickle round trip between Ray actors.
"""


class ExplainError(Exception):
    """Root of every error that heatreel raises on purpose: `item: fact; try remedy`."""

    def __init__(self, item: str, fact: str, remedy: str) -> None:
        super().__init__(item, fact, remedy)

    @property
    def item(self) -> str:
        """What it is about: a file, a model, a setting."""
        return str(self.args[0])

    @property
    def fact(self) -> str:
        """What is so."""
        return str(self.args[1])

    @property
    def remedy(self) -> str:
        """What to try next."""
        return str(self.args[2])

    def __str__(self) -> str:
        return f"{self.item}: {self.fact}; {self.remedy}"


class ConfigError(ExplainError):
    """A setting, a command-line argument or a spec file is wrong (exit code 2)."""


class DecodeError(ExplainError):
    """A source cannot be opened or read. The other inputs of the run go on."""


class ModelError(ExplainError):
    """A black box cannot be built, or answers with something that is not a score."""


class NumericsError(ExplainError):
    """A computation left its domain: not finite, not positive definite, negative variance."""


class ManifestError(ExplainError):
    """A run folder exists already, is damaged, or does not belong to these inputs."""


class ResourceError(ExplainError):
    """Memory, disk or an actor gave out."""


class DiskFullError(ResourceError):
    """There is no room to write. It concerns every video, not only the one at hand."""
