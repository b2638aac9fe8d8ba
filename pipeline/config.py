"""The configuration of a run: a YAML file, then the command line's options, parsed once into frozen objects.

Every stage owns its section (`stages.decode.DecodeConfig` and so on); the machinery's are in `pipeline/sections.py`.
A key that does not exist is a ConfigError that names the nearest one.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from pipeline.files import hash_file, hash_json
from pipeline.sections import EngineConfig, ModelConfig, ScreenConfig
from stages.aggregate import AggregateConfig
from stages.base import Settings
from stages.decode import DecodeConfig
from stages.errors import ConfigError
from stages.perturb import METHODS_THAT_ASK, PerturbConfig
from stages.priors import is_file
from stages.refine import RefineConfig
from stages.render import RenderConfig
from stages.score import ScoreConfig

__all__ = ["Config", "EngineConfig", "ModelConfig", "ScreenConfig", "changed_config", "load_config", "make_config"]

# Short names of the settings that are used most, in files, in --set and as options of the command line.
SHORT_KEYS = {
    "budget": "perturb.budget",
    "seed": "perturb.seed",
    "method": "refine.method",
    "prior": "refine.prior",
    "tolerance": "refine.tolerance",
    "substrate": "score.substrate",
    "device": "score.device",
}

# How fast, where and how pretty; nothing of it changes a number of the result.
NOT_IN_FINGERPRINT: Mapping[str, set[str] | bool] = {
    "engine": True,
    "render": True,
    "decode": {"max_open"},
    "score": {"device", "batch_size", "max_batch_bytes", "cached_clips"},
}

# What of it may differ when a run is taken up again: not how films look, of which some may be finished.
_HOW = tuple(
    sorted(
        f"{section}.{name}" if name else section
        for section, names in NOT_IN_FINGERPRINT.items()
        if section != "render"
        for name in (names if isinstance(names, set) else ("",))
    )
)


class Config(Settings):
    """Everything a run depends on besides its inputs."""

    target: str = Field(
        default="top1", description="a class name, an index, top1, second or top3; commas separate several"
    )
    model: ModelConfig = ModelConfig()
    screen: ScreenConfig = ScreenConfig()
    decode: DecodeConfig = DecodeConfig()
    perturb: PerturbConfig = PerturbConfig()
    score: ScoreConfig = ScoreConfig()
    refine: RefineConfig = RefineConfig()
    aggregate: AggregateConfig = AggregateConfig()
    render: RenderConfig = RenderConfig()
    engine: EngineConfig = EngineConfig()

    @model_validator(mode="after")
    def _one_clip_is_affordable(self) -> "Config":
        total = self.screen.budget_total
        if total is not None and total < self.budget:
            raise ValueError(f"screen.budget_total {total} is less than one clip takes, {self.budget} evaluations")
        return self

    @property
    def budget(self) -> int:
        """Evaluations of the box for each clip."""
        return self.perturb.budget

    @property
    def seed(self) -> int:
        """Every random choice derives from this, the clip and the round."""
        return self.perturb.seed

    def fingerprint(self) -> str:
        """SHA-256 over everything that can change a number of the result, the content of a prior's file included.

        Raises ConfigError for a prior's file that cannot be read.
        """
        content = self.model_dump(mode="json", exclude=NOT_IN_FINGERPRINT)
        if is_file(self.refine.prior):
            content["prior_sha256"] = _hash_prior(self.refine.prior)
        return hash_json(content)


def _hash_prior(prior: str) -> str:
    try:
        return hash_file(Path(prior).expanduser())
    except OSError as error:
        raise ConfigError(f"prior {prior}", f"cannot be read ({error.strerror})", "give a .npy or .npz file") from error


def load_config(
    path: Path | None = None, *, options: Mapping[str, object] | None = None, overrides: Sequence[str] = ()
) -> Config:
    """The configuration from a YAML file, then dotted options (`{"refine.method": "rise"}`), then `a.b=c`.

    Raises ConfigError for a file that is not there or is not YAML, an unknown key or a value that does not fit.
    """
    values: dict[str, Any] = {}
    for key, value in ({} if path is None else _read_yaml(path)).items():
        _assign(values, key, value)
    _assign_given(values, options or {}, overrides)
    config = make_config(values)
    _expect_heard(config)
    return config


def changed_config(
    config: Config, *, options: Mapping[str, object] | None = None, overrides: Sequence[str] = ()
) -> Config:
    """`config` with other settings of how it is carried out: another cluster, device or batch.

    Raises ConfigError for a setting that would change a result or the look of a film, besides what `load_config` does.
    """
    values, given = config.model_dump(mode="json"), dict(options or {})
    if given.get("engine.address") is not None:
        given = {"engine.kind": "ray", **given}  # a run that began on threads is to join the cluster
    _assign_given(values, given, overrides)
    changed = make_config(values)
    for key in dotted_keys():
        mine, theirs = (_value_at(one, key) for one in (config, changed))
        if not isinstance(mine, BaseModel) and mine != theirs and not _is_how(key):
            fact = f"was {mine!r} when the run began, and what is computed so far rests on it"
            raise ConfigError(key, fact, f"only {', '.join(_HOW)} may change on resume; else start a new run")
    return changed


def _expect_heard(config: Config) -> None:
    """Not asked of stored configurations: earlier versions ran with such a family, and did not use it."""
    family, method, prior = config.perturb.family, config.refine.method, config.refine.prior
    if family != "auto" and (prior == "rise" or method in METHODS_THAT_ASK):
        chooser = "--prior rise" if prior == "rise" else method
        fact = f"{family} has no effect with {chooser}, which chooses its own masks"
        raise ConfigError("perturb.family", fact, "leave it away")


def _is_how(key: str) -> bool:
    return any(key == how or key.startswith(f"{how}.") for how in _HOW)


def _value_at(config: Config, key: str) -> object:
    found: object = config
    for name in key.split("."):
        found = getattr(found, name)
    return found


def _assign_given(values: dict[str, Any], options: Mapping[str, object], overrides: Sequence[str]) -> None:
    for key, value in options.items():
        _assign(values, key, value)
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {text}", "is not of the form key=value", "write for example --set budget=64")
        try:
            _assign(values, key.strip(), yaml.safe_load(value))
        except yaml.YAMLError:
            raise ConfigError(f"--set {text}", "the value is not YAML", "quote it: --set 'key=\"value\"'") from None


def make_config(values: Mapping[str, Any]) -> Config:
    """Validate nested values; a mistake becomes one ConfigError about its first key."""
    _check_keys(values, Config, ())
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "config"
        given = "" if isinstance(first["input"], dict) else f" (given: {first['input']!r})"
        remedy = "see configs/default.yaml for what it takes"
        raise ConfigError(key, first["msg"].removeprefix("Value error, ") + given, remedy) from None


def dotted_keys(model: type[BaseModel] = Config, prefix: tuple[str, ...] = ()) -> Iterator[str]:
    """Every key of the configuration, sections included, such as `engine` and `engine.kind`."""
    for name, field in model.model_fields.items():
        yield ".".join((*prefix, name))
        if section := _section(field.annotation):
            yield from dotted_keys(section, (*prefix, name))


def _section(annotation: object) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _check_keys(values: Mapping[str, Any], model: type[BaseModel], prefix: tuple[str, ...]) -> None:
    for name, value in values.items():
        key = ".".join((*prefix, str(name)))
        if name not in model.model_fields:
            raise ConfigError(key, "there is no such setting", _nearest(key, (*dotted_keys(), *SHORT_KEYS)))
        section = _section(model.model_fields[name].annotation)
        if section and isinstance(value, Mapping):
            _check_keys(value, section, (*prefix, name))


def _nearest(key: str, known: Iterable[str]) -> str:
    """The remedy for an unknown key: the same last word in another section, else the most similar whole key."""
    candidates = list(known)
    last_words = {candidate.rpartition(".")[2]: candidate for candidate in reversed(candidates)}
    near = get_close_matches(key, candidates, n=1, cutoff=0.75)
    if not near:
        near = [last_words[word] for word in get_close_matches(key.rpartition(".")[2], last_words, n=1, cutoff=0.6)]
    near = near or get_close_matches(key, candidates, n=1, cutoff=0.0)
    return f"did you mean {near[0]}?" if near else "see configs/default.yaml"


def _assign(values: dict[str, Any], key: str, value: object) -> None:
    """Set a dotted key."""
    *sections, last = SHORT_KEYS.get(key, key).split(".")
    for name in sections:
        inner = values.setdefault(name, {})
        if not isinstance(inner, dict):
            raise ConfigError(key, f"{name} is a value, not a section", _nearest(key, dotted_keys()))
        values = inner
    values[last] = _merged(values.get(last), value, ".".join((*sections, last)))


def _merged(old: object, new: object, key: str) -> object:
    """Sections keep what is not given; settings that are mappings themselves (`labels`, `options`) are replaced."""
    is_section = any(known.startswith(f"{key}.") for known in dotted_keys())
    if not (is_section and isinstance(old, dict) and isinstance(new, dict)):
        return new
    return {**old, **{name: _merged(old.get(name), value, f"{key}.{name}") for name, value in new.items()}}


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read ({error.strerror})", "give the path of a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where else ""
        raise ConfigError(str(path), f"is not YAML{line}", "compare it with configs/default.yaml") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(str(path), "holds no settings", "write key: value lines as in configs/default.yaml")
    return content
