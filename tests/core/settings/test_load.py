"""Settings: what is unknown, of the wrong type or contradictory is named, with the nearest right key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from learn_spark.core.errors import SettingsError
from learn_spark.core.resources import resource_folder
from learn_spark.core.settings import load_settings, save_settings
from learn_spark.core.settings.kinds import fields_of, models_of
from learn_spark.core.settings.load import fingerprint, redacted
from learn_spark.core.settings.schema import Settings
from learn_spark.core.stages.registry import all_stages, find_stage

FILES = (
    "{format: files, path: x, items: {files: i.csv, columns: {item_id: i}}, events: {files: e.csv, columns: "
    "{item_id: i, user_id: u, event_time: t}}}"
)
PRESETS = {"learn-plus"}  # to be put upon a data set's settings


@pytest.mark.parametrize("path", sorted(resource_folder("conf").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_file_loads(path: Path, tmp_path: Path) -> None:
    if path.stem in PRESETS:
        upon = tmp_path / "upon.yaml"
        upon.write_text(f"extends: [{path.with_name('learn.yaml')}, {path}]\n")
        path = upon
    if path.stem == "shop":  # it has no files of its own
        with pytest.raises(SettingsError, match="source: must be given; learn-spark init FOLDER"):
            load_settings(path)
        return
    assert load_settings(path).workspace


@pytest.mark.parametrize(
    ("override", "where", "value"),
    [
        ("quality.rules.interactions.age_days.most=2", ("quality", "rules", "interactions.age_days", "most"), 2.0),
        ("quality.rules.items.rows={least: 5}", ("quality", "rules", "items.rows", "least"), 5.0),
        ("spark.conf.spark.sql.ansi.enabled='false'", ("spark", "conf", "spark.sql.ansi.enabled"), "false"),
        (
            "search.parameters.tower.dropout={low: 0.1, high: 0.5}",
            ("search", "parameters", "tower.dropout", "low"),
            0.1,
        ),
        ("histories.weights.cart=0.5", ("histories", "weights", "cart"), 0.5),
        ("workspace=/tmp/w 100% #e", ("workspace",), "/tmp/w 100% #e"),
        ("workspace='/tmp/w' # mine", ("workspace",), "/tmp/w"),
        ("training.epochs=3 # few", ("training", "epochs"), 3),
    ],
)
def test_an_override_reaches_its_setting(override: str, where: tuple[str, ...], value: object) -> None:
    """Names of rules, parameters and options of Spark contain dots; the end of a folder's name is no comment."""
    node = load_settings("learn", [override]).model_dump()
    for key in where:
        node = node[key]
    assert node == value


def test_two_bounds_of_a_rule_are_both_kept() -> None:
    rule = "quality.rules.interactions.age_days"
    (changed,) = load_settings("learn", [f"{rule}.most=2", f"{rule}.severity=warn"]).quality.rules.values()
    assert (changed.most, changed.severity) == (2.0, "warn")
    with pytest.raises(SettingsError, match=r"quality.rules.interactions.age_days.mst: .*did you mean"):
        load_settings("learn", [f"{rule}={{mst: 2}}"])


@pytest.mark.parametrize(
    ("source", "text", "template"),
    [
        ("{format: movielens, path: x}", "{}", "movie"),
        ("{format: amazon-2018, path: x}", "{template: null}", "amazon"),
        (FILES, "{}", "shop"),
        (FILES, "{max_characters: 10}", "shop"),
        (FILES, "{template: learn-industrial}", "learn-industrial"),
    ],
)
def test_the_template_is_that_of_the_source(source: str, text: str, template: str, tmp_path: Path) -> None:
    """A shop that extends learn.yaml gets no prompt of films; the template's name is in the saved settings."""
    (tmp_path / "own.yaml").write_text(f"extends: learn.yaml\nsource: {source}\ntext: {text}\n")
    settings = load_settings(tmp_path / "own.yaml")
    assert settings.text.template == template
    assert yaml.safe_load(save_settings(settings, tmp_path).read_text())["text"]["template"] == template


def test_every_knob_has_its_effect_beside_it() -> None:
    lines = (resource_folder("conf") / "learn.yaml").read_text().splitlines()
    knobs = [line for line in lines if line.startswith("  ") and ":" in line.split("#")[0]]
    assert len(knobs) > 40
    assert [line for line in knobs if "#" not in line and not line.strip().startswith("stages:")] == []


OF_A_SOURCE = {"source", "spark", "quality", "exposures", "ranking"}  # other files show these


def test_no_knob_is_left_out() -> None:
    """Of a section with kinds the other kinds' settings are comments, which a reader may uncomment."""
    text = (resource_folder("conf") / "learn.yaml").read_text()
    told = yaml.safe_load(re.sub(r"^  # (\w+: )", r"  \1", text, flags=re.MULTILINE))
    for name, field in fields_of(Settings).items():
        if name not in OF_A_SOURCE and (models := models_of(field)):
            assert sorted(told.get(name, {})) == sorted({key for model in models for key in fields_of(model)}), name
    for name, values in load_settings("learn").model_dump().items():
        if isinstance(values, dict) and name not in OF_A_SOURCE:
            assert sorted(yaml.safe_load(text).get(name, {})) == sorted(values), name


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.epoch=3", "did you mean training.epochs?"),
        ("trainning.epochs=3", "did you mean training?"),
        ("training.patience_=3", "training.patience_: there is no such setting; did you mean training.patience?"),
        ("training.epochs=many", "training.epochs: input should be a valid integer (got 'many')"),
        ("training.epochs=2.5", "training.epochs"),
        ("training.epochs=0", "training.epochs: input should be greater than or equal to 1"),
        ("training.seed=true", "training.seed"),
        ("encoder.model=3", "encoder.model: input should be a valid string"),
        ("tower.item_tower=d", "tower.item_tower"),
        ("embedding_space={kind: raw, dims: 8}", "embedding_space.dims: a setting of embedding_space.kind whitened"),
        ("tower.width=130", "tower: width 130 is not a multiple of heads 4"),
        ("objective.history=1000", "objective.history 1000 is longer than histories.max_length 768"),
        ("objective.target_positions=41", "objective.target_positions 41 cannot be sampled"),
        ("histories.as_of=yesterday", "'yesterday' is not an ISO time"),
        ("workspace=", "workspace"),
        ("training=3", "'training' is a section"),
        ("training.epochs.more=3", "'epochs' is a value, not a section"),
        ("epochs", "is not of the form key=value"),
    ],
)
def test_a_wrong_setting_is_named(override: str, expected: str) -> None:
    with pytest.raises(SettingsError) as error:
        load_settings("learn", [override])
    assert expected in str(error.value)
    assert error.value.exit_code == 2


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as error:
        load_settings("learn", ["training.epoch=3", "tower.layers=none", "feed.batch_size=1"])
    for key in ("training.epoch", "tower.layers", "feed.batch_size"):
        assert key in str(error.value)


def test_a_number_with_an_exponent_is_a_number_and_a_date_stays_text(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        f"extends: {resource_folder('conf') / 'learn.yaml'}\n"
        "training: {learning_rate: 5e-4}\nhistories: {as_of: 1998-03-10}\n"
    )
    settings = load_settings(path)
    assert settings.training.learning_rate == 0.0005
    # 1998-03-10 is day 10,295 since 1970
    assert settings.histories.as_of_micros() == 10_295 * 86_400 * 1_000_000


def test_a_file_extends_another_key_by_key() -> None:
    base, over = load_settings("learn"), load_settings("ads")
    assert over.workspace != base.workspace
    assert over.histories.max_length == base.histories.max_length
    assert over.histories.as_of is not None


def test_a_file_extends_several_the_last_first(tmp_path: Path) -> None:
    """A data set's settings, a preset upon them, and the file's own upon both."""
    plus = load_settings("beauty-plus")
    assert (plus.tower.kind, plus.source.format, plus.training.rule) == ("learn-plus", "files", "refit")
    (tmp_path / "preset.yaml").write_text("tower: {layers: 3, width: 64}\ntraining: {epochs: 7}\n")
    (tmp_path / "own.yaml").write_text(
        f"extends: [{resource_folder('conf') / 'learn.yaml'}, preset.yaml]\ntower: {{layers: 1}}\n"
    )
    own = load_settings(tmp_path / "own.yaml")
    assert (own.tower.layers, own.tower.width, own.training.epochs) == (1, 64, 7)
    assert own.tower.heads == load_settings("learn").tower.heads


def test_a_file_anywhere_extends_a_preset_by_name_but_a_file_beside_it_first(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text("extends: [learn.yaml, learn-plus.yaml]\n")
    assert load_settings(tmp_path / "shop.yaml").tower.kind == "learn-plus"
    (tmp_path / "learn-plus.yaml").write_text("tower: {layers: 1}\n")
    shop = load_settings(tmp_path / "shop.yaml")
    assert (shop.tower.kind, shop.tower.layers) == ("learn", 1)


def test_a_preset_is_named_even_where_a_file_has_its_name(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(f"extends: conf/shop.yaml\nsource: {FILES}\ntraining: {{epochs: 7}}\n")
    settings = load_settings(tmp_path / "shop.yaml")
    assert (settings.training.epochs, settings.tower.kind) == (7, "learn-plus")
    (tmp_path / "shop.yaml").write_text("extends: shop.yaml\n")
    with pytest.raises(SettingsError, match=r"extends itself.*conf/shop\.yaml"):
        load_settings(tmp_path / "shop.yaml")


def test_bad_files_are_named(tmp_path: Path) -> None:
    cases = {
        "loop.yaml": ("extends: loop.yaml\n", "extends itself"),
        "twice.yaml": ("workspace: a\nworkspace: b\n", "given twice"),
        "list.yaml": ("- 1\n", "must contain settings"),
        "broken.yaml": ("a: [1\n", "not valid YAML"),
        "python.yaml": ("a: !!python/object/apply:os.system [echo]\n", "not valid YAML"),
        "lost.yaml": ("extends: nowhere.yaml\n", "there is no file"),
    }
    for name, (text, expected) in cases.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(SettingsError, match=expected):
            load_settings(tmp_path / name)
    with pytest.raises(SettingsError, match="quickstart"):
        load_settings("quickstar")


def test_saved_settings_load_to_the_same_and_hide_secrets(tmp_path: Path) -> None:
    settings = load_settings("learn", ["spark.conf.spark.hadoop.fs.s3a.secret.key=abc123"])
    path = save_settings(settings, tmp_path)
    assert "abc123" not in path.read_text()
    assert redacted(settings)["spark"]["conf"]["spark.hadoop.fs.s3a.secret.key"] == "***"
    plain = load_settings("learn")
    assert load_settings(save_settings(plain, tmp_path)) == plain
    assert yaml.safe_load(path.read_text())["training"]["epochs"] == plain.training.epochs


def test_the_fingerprint_follows_its_sections_only() -> None:
    base = load_settings("learn")
    other = load_settings("learn", ["training.epochs=2"])
    assert fingerprint(base, ["tower", "text"]) == fingerprint(other, ["text", "tower"])
    assert fingerprint(base, ["training"]) != fingerprint(other, ["training"])


@pytest.mark.parametrize("override", ["training.tracking=[mlflow]", "mlflow.uri=http://other:5000", "mlflow.model=x"])
def test_no_stage_runs_again_for_a_setting_of_tracking(override: str) -> None:
    plain, tracked = load_settings("quickstart"), load_settings("quickstart", [override])
    assert plain != tracked
    for stage in all_stages():
        assert fingerprint(plain, stage.sections) == fingerprint(tracked, stage.sections), stage.name
    # That of another setting of the same section is another one.
    train = find_stage("train").sections
    assert fingerprint(plain, train) != fingerprint(load_settings("quickstart", ["training.seed=1"]), train)
