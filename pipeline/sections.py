"""The sections of the configuration that belong to the machinery; each stage's section lives with its stage."""

import json
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from stages.base import Resources, Settings

EngineKind = Literal["auto", "local", "ray"]

GIB = 1024**3


def _as_text(options: object) -> object:
    """Numbers and lists as the text that the constructors of boxes read."""
    if not isinstance(options, Mapping):
        return options
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in options.items()}


class ModelConfig(Settings):
    """Which black box is explained (docs/usage.md)."""

    name: str = Field(
        default="demo", description="demo, torchvision:NAME, pytorchvideo:NAME, python:FILE_OR_MODULE:FACTORY"
    )
    weights: str | None = Field(
        default=None, description="a local file, or the name of published weights; null: the box's own"
    )
    spec_file: str | None = Field(
        default=None, description="YAML with the box's spec; null: the one shipped for the model"
    )
    labels_file: str | None = Field(default=None, description="class names, one a line; null: those of the spec")
    options: Annotated[dict[str, str], BeforeValidator(_as_text)] = Field(
        default_factory=dict,
        description="single values of the spec such as {clip_len: 8}, or arguments of a python: box",
    )


class WorkerResources(Settings):
    """What one Ray worker of a stage occupies."""

    num_cpus: float = Field(default=1.0, ge=0, description="CPUs that Ray sets aside; fractions are fine")
    num_gpus: float | None = Field(
        default=None, ge=0, description="null: one for a scorer where there are GPUs, else none"
    )
    custom: dict[str, float] = Field(default_factory=dict, description="Ray's custom resources, such as {a100: 1}")
    labels: dict[str, str] = Field(
        default_factory=dict, description="labels that the node must have, such as {market-type: spot}"
    )

    def resolve(self, default_gpus: float = 0.0) -> Resources:
        """The resources with the open number of GPUs filled in."""
        gpus = default_gpus if self.num_gpus is None else self.num_gpus
        return Resources(num_cpus=self.num_cpus, num_gpus=gpus, custom=dict(self.custom), labels=dict(self.labels))


class StageResources(Settings):
    """Resources of one worker, by stage."""

    decode: WorkerResources = WorkerResources()
    score: WorkerResources = WorkerResources()
    refine: WorkerResources = WorkerResources()
    sink: WorkerResources = WorkerResources(num_cpus=0.5)
    coordinator: WorkerResources = WorkerResources(num_cpus=0.5)


class ScreenConfig(Settings):
    """Which clips are explained when not all can be: a first look at all of them, and limits for the whole run."""

    enabled: bool = Field(default=False, description="score every untouched clip first, explain the most telling ones")
    budget_total: int | None = Field(
        default=None, ge=1, description="evaluations of the model in the whole run, screening included; null: any"
    )
    max_minutes: float | None = Field(
        default=None, gt=0, description="begin no clip after so many minutes of a session; null: any"
    )

    @property
    def is_active(self) -> bool:
        """Whether there may be clips that are not explained."""
        return self.enabled or self.budget_total is not None or self.max_minutes is not None


class EngineConfig(Settings):
    """How the work is carried out. Nothing in this section changes a map."""

    kind: EngineKind = Field(default="auto", description="auto: ray for more than a minute of video or with an address")
    address: str | None = Field(default=None, description="a Ray cluster to join: auto, HOST:PORT or ray://HOST:PORT")
    num_coordinators: int | None = Field(
        default=None, ge=1, description="loops that share the videos; null: one for every 16 scorers"
    )
    num_decoders: int | None = Field(default=None, ge=1, description="null: from the machine or the cluster")
    num_scorers: int | None = Field(
        default=None,
        ge=1,
        description="null: one per GPU or custom resource, as the cluster grows and shrinks",
    )
    num_refiners: int | None = Field(default=None, ge=1, description="null: from the machine or the cluster")
    num_sinks: int | None = Field(default=None, ge=1, description="writers of films and tables; null: from the machine")
    resources: StageResources = StageResources()
    has_shared_folder: bool = Field(
        default=False, description="every node sees the sources and the run folder: readers and writers may be anywhere"
    )
    window_clips: int | None = Field(
        default=None, ge=1, description="clips in flight for each coordinator; null: measured while running, up to 256"
    )
    window_bytes: int = Field(default=1 * GIB, ge=1, description="bytes of decoded clips in flight on a machine")
    videos_in_flight: int = Field(default=4, ge=1, description="videos that are read at the same time")
    queued_batches: int = Field(default=2, ge=1, description="scoring batches queued or running on each scorer")
    batch_deadline_s: float = Field(default=2.0, gt=0, description="longest wait of a round for a full batch")
    score_timeout_s: float = Field(
        default=600.0, gt=0, description="a batch that takes longer is taken from its scorer"
    )
    retries: int = Field(default=2, ge=0, description="further attempts after an error of a worker or of the box")
    backoff_s: float = Field(
        default=0.5, ge=0, description="wait before the first retry; doubles with each further one"
    )
    max_failures: int | None = Field(
        default=None, ge=0, description="more failed inputs than this end the run; null: any"
    )
    startup_s: float = Field(
        default=300.0, gt=0, description="longest wait for a node that offers what a worker occupies"
    )
    auto_ray_s: float = Field(default=60.0, ge=0, description="kind auto: seconds of video above which Ray is started")
