from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from pipeline.config import SHORT_KEYS, Config, changed_config, dotted_keys, load_config, make_config
from pipeline.config_files import default_yaml, schema_json
from stages.errors import ConfigError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        found |= flat(value, f"{key}.") if isinstance(value, dict) and value else {key: value}
    return found


def test_the_default_file_holds_every_key_with_its_default() -> None:
    written = yaml.safe_load((CONFIGS / "default.yaml").read_text(encoding="utf-8"))
    assert flat(written) == flat(Config().model_dump(mode="json"))
    assert load_config(CONFIGS / "default.yaml") == Config()


def test_the_generated_files_are_up_to_date() -> None:
    assert (CONFIGS / "default.yaml").read_text(encoding="utf-8") == default_yaml(), "run `make files`"
    assert (CONFIGS / "schema.json").read_text(encoding="utf-8") == schema_json(), "run `make files`"


@pytest.mark.parametrize("name", ["image.yaml", "smoke.yaml"])
def test_the_example_configurations_are_valid(name: str) -> None:
    assert load_config(CONFIGS / name) != Config()


def test_overrides_win_over_options_and_options_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("budget: 32\ntarget: '7'\nengine:\n  retries: 9\n")
    config = load_config(file, options={"budget": 64, "target": "cat"}, overrides=["perturb.budget=128", "seed=5"])
    assert (config.budget, config.seed) == (128, 5)
    assert config.target == "cat"
    assert config.engine.retries == 9


def test_an_override_is_read_as_yaml() -> None:
    config = load_config(
        overrides=["engine.window_clips=null", "engine.batch_deadline_s=0.5", "score.substrate=freeze"]
    )
    assert config.engine.window_clips is None
    assert config.engine.batch_deadline_s == 0.5
    assert config.score.substrate == "freeze"


def test_how_a_run_is_carried_out_may_change_on_resume_and_is_no_other_run() -> None:
    began = load_config(overrides=["budget=64", "engine.retries=9", "model.options={size: 3}"])
    how = {"engine.address": "head:6379", "score.device": "cpu"}
    changed = changed_config(began, options=how, overrides=["score.batch_size=8", "budget=64"])
    assert (changed.engine.address, changed.engine.retries, changed.score.batch_size) == ("head:6379", 9, 8)
    assert changed.fingerprint() == began.fingerprint()


def test_a_run_that_began_elsewhere_asks_what_the_new_cluster_offers() -> None:
    old = ["engine.kind=local", "engine.resources.score={num_cpus: 2, custom: {a100: 1}}"]
    began = load_config(overrides=old)
    new = ["engine.resources={score: {custom: {h100: 1}}}"]
    changed = changed_config(began, options={"engine.address": "head:6379"}, overrides=new)
    assert changed.engine.kind == "ray"
    assert changed.engine.resources.score.custom == {"h100": 1}
    assert changed.engine.resources.score.num_cpus == 2
    assert changed_config(began, overrides=["engine.resources.score.custom={}"]).engine.resources.score.custom == {}


def test_a_run_of_an_earlier_version_whose_family_was_not_heard_is_taken_up_again() -> None:
    stored = Config().model_dump(mode="json")
    stored["perturb"]["family"], stored["refine"]["prior"] = "mixture", "rise"
    assert changed_config(make_config(stored)).perturb.family == "mixture"


@pytest.mark.parametrize("override", ["budget=65", "model.options={size: 4}", "render.scale=2", "target=cat"])
def test_what_a_run_has_computed_rests_on_the_rest(override: str) -> None:
    began = load_config(overrides=["budget=64", "model.options={size: 3}"])
    with pytest.raises(ConfigError, match=r"was .* when the run began.*start a new run"):
        changed_config(began, overrides=[override])


@pytest.mark.parametrize("chooser", ["prior=rise", "method=borex"])
def test_a_mask_family_that_would_not_be_heard_is_refused(chooser: str) -> None:
    assert load_config(overrides=["perturb.family=mixture"]).perturb.family == "mixture"
    with pytest.raises(ConfigError, match=r"perturb\.family: mixture has no effect"):
        load_config(overrides=["perturb.family=mixture", chooser])


def test_every_short_key_stands_for_a_setting() -> None:
    assert set(SHORT_KEYS.values()) <= set(dotted_keys())


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("bugdet=5", "budget"),
        ("engine.windowclips=5", "engine.window_clips"),
        ("score.side_by_side=true", "render.side_by_side"),
        ("scoer.substrate=blur", "score"),
    ],
)
def test_an_unknown_key_names_the_nearest(override: str, nearest: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=[override])
    assert f"did you mean {nearest}?" in str(caught.value)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("budget=many", "perturb.budget"),
        ("engine.retries=-1", "engine.retries"),
        ("engine.kind=spark", "engine.kind"),
        ("score.substrate=black", "score.substrate"),
        ("engine=5", "engine"),
    ],
)
def test_a_value_that_does_not_fit_names_its_key_and_shows_the_value(override: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=[override])
    assert caught.value.item == key
    assert override.partition("=")[2] in caught.value.fact


@pytest.mark.parametrize("override", ["budget", "=3", "budget: 3"])
def test_an_override_without_key_and_value_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match="key=value"):
        load_config(overrides=[override])


def test_a_key_below_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="not a section"):
        load_config(overrides=["target=cat", "target.name=dog"])


def test_files_that_are_missing_or_not_yaml_say_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "missing.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("engine: [1,\nbudget: 3\n")
    with pytest.raises(ConfigError, match="not YAML at line"):
        load_config(broken)
    listed = tmp_path / "list.yaml"
    listed.write_text("- budget\n")
    with pytest.raises(ConfigError, match="holds no settings"):
        load_config(listed)


def test_options_of_a_box_reach_it_as_text() -> None:
    config = load_config(overrides=["model.options.clip_len=8", "model.options.mean=[0, 0, 0]"])
    assert config.model.options == {"clip_len": "8", "mean": "[0, 0, 0]"}


def test_a_configuration_survives_the_trip_through_a_manifest() -> None:
    config = load_config(overrides=["budget=64", "engine.resources.score.custom={a100: 1}"])
    assert Config.model_validate(config.model_dump(mode="json")) == config


def test_the_fingerprint_covers_what_changes_a_number_and_nothing_else() -> None:
    same = load_config(overrides=["engine.kind=ray", "score.device=cpu", "score.batch_size=3", "render.crf=30"])
    assert same.fingerprint() == Config().fingerprint()
    for override in ("seed=1", "score.substrate=mean", "score.precision=bf16", "target=cat", "model.weights=a.pt"):
        assert load_config(overrides=[override]).fingerprint() != Config().fingerprint(), override


def test_every_setting_says_what_it_is() -> None:
    silent = [key for key, description in described_keys(Config, "") if not description]
    assert silent == []


def described_keys(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str | None]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from described_keys(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field.description
