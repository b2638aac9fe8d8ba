"""The Stage protocol: what every step of the pipeline looks like, with or without Ray."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

RequestT = TypeVar("RequestT", contravariant=True)
ResultT = TypeVar("ResultT", covariant=True)


class Settings(BaseModel):
    """A section of the configuration: parsed once, frozen; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one worker of a stage occupies. `num_gpus` may be a fraction; `labels`: what its node must be."""

    num_cpus: float = 1.0
    num_gpus: float = 0.0
    custom: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


class Stage(Protocol[RequestT, ResultT]):
    """A plain object that turns one request into one result.

    A stage is built from its configuration alone and may cache what makes it faster (an open reader, a clip on the
    device), but its answer depends on the request only: a new worker gives the same result as the one that died.
    """

    def setup(self) -> None:
        """Load what is costly (models, banks), once, in the process that will do the work."""

    def process(self, request: RequestT, /) -> ResultT:
        """Answer one request. Raises ExplainError for bad data; anything else is a bug."""
        ...

    def close(self) -> None:
        """Give back files, devices and memory. Called once; safe after a failed setup."""
