"""Sections of several kinds: each kind has its own settings, and a change of kind drops those of the one before."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from learn_spark.core.errors import SettingsError
from learn_spark.core.resources import resource_folder
from learn_spark.core.settings import Settings, load_settings, save_settings
from learn_spark.core.settings.kinds import fields_of, models_of, sections_with_kinds
from learn_spark.core.settings.load import fingerprint
from learn_spark.core.settings.tower import HSTUTowerSettings, LearnPlusTowerSettings, SASRecTowerSettings

LEARN = resource_folder("conf") / "learn.yaml"


def refused(*overrides: str, config: Path | str = "learn") -> str:
    with pytest.raises(SettingsError) as error:
        load_settings(config, overrides)
    return str(error.value)


def extending(path: Path, text: str, *bases: Path) -> Path:
    path.write_text(f"extends: [{', '.join(map(str, bases or (LEARN,)))}]\n{text}\n")
    return path


def test_these_sections_have_kinds() -> None:
    assert {name: (kinds.key, kinds.default) for name, kinds in sections_with_kinds(Settings).items()} == {
        "source": ("format", None),
        "embedding_space": ("kind", "whitened"),
        "histories": ("protocol", "leave_last_out"),
        "tower": ("kind", "learn"),
        "index": ("kind", "flat"),
        "exposures": ("from", "interactions"),
    }


@pytest.mark.parametrize("kind", ["sasrec", "hstu"])
def test_a_tower_over_ids_has_neither_item_tower_nor_blending(kind: str) -> None:
    tower = load_settings("learn", [f"tower.kind={kind}"]).tower
    assert isinstance(tower, SASRecTowerSettings | HSTUTowerSettings)
    assert not {"item_tower", "output_dim", "blending", "ids"} & set(tower.model_dump())
    assert {"similarity", "positions", "reranker", "kind"} <= set(tower.model_dump())


@pytest.mark.parametrize(
    ("override", "named"),
    [
        (
            "tower={kind: sasrec, item_tower: b}",
            "tower.item_tower: a setting of tower.kind learn, and tower.kind is sasrec",
        ),
        ("tower.ids=false", "tower.ids: a setting of tower.kind learn-plus, and tower.kind is learn"),
        ("tower.similarity=dot", "a setting of tower.kind learn-plus, sasrec, hstu or bsarec, and tower.kind is learn"),
        ("tower={kind: hstu, blending: {}}", "a setting of tower.kind learn or learn-plus, and tower.kind is hstu"),
        ("tower={layers: 1, similarity: dot}", "and tower.kind is learn"),  # the default kind
        (
            "embedding_space={kind: centred, ridge: 1.0}",
            "embedding_space.kind whitened, and embedding_space.kind is centred",
        ),
        ("index.nprobe=3", "index.nprobe: a setting of index.kind ivf or ivf_pq, and index.kind is flat"),
        (
            "histories.held_out=0.1",
            "a setting of histories.protocol time_split, and histories.protocol is leave_last_out",
        ),
        ("source.time_unit=s", "a setting of source.format files, and source.format is movielens-100k"),
        ("tower.kind=gru", "tower.kind: must be one of learn, learn-plus, sasrec, hstu, bsarec (got 'gru')"),
        ("tower.kind=[a]", "tower.kind: must be one of learn, learn-plus, sasrec, hstu, bsarec (got ['a'])"),
        ("tower.kind=", "tower.kind: must be given, one of learn, learn-plus, sasrec, hstu, bsarec"),
        ("histories.protocol=time_split", "histories.split_time: must be given"),
        ("tower={kind: learn-plus, blending: {trend_days: 30}}", "needs histories.protocol time_split"),
        ("source={path: x}", "source.format: must be given, one of movielens-100k"),
        ("tower={kind: learn-plus, reranker: {reech: 1}}", "did you mean tower.reranker.reach?"),
        (
            "tower={kind: sasrec, simlarity: dot}",
            "tower.simlarity: there is no such setting; did you mean tower.similarity?",
        ),
        ("tower.output_dimm=1", "did you mean tower.output_dim?"),
    ],
)
def test_a_setting_of_another_kind_is_named_with_the_kinds_that_have_it(override: str, named: str) -> None:
    assert named in refused(override)


def test_a_section_that_is_a_value_is_named(tmp_path: Path) -> None:
    assert "tower: must be a section" in refused(config=extending(tmp_path / "a.yaml", "tower: 3"))


def test_a_file_that_changes_the_kind_drops_the_settings_of_the_kind_before(tmp_path: Path) -> None:
    base = extending(tmp_path / "base.yaml", "tower: {width: 64, item_tower: b, output_dim: 32}")
    tower = load_settings(extending(tmp_path / "rival.yaml", "tower: {kind: sasrec, similarity: dot}", base)).tower
    assert isinstance(tower, SASRecTowerSettings)
    assert (tower.width, tower.similarity) == (64, "dot")  # what both kinds have stays
    # What the file gives itself is checked, and so is all where the kind stays as it is.
    named = "tower.item_tower: a setting of tower.kind learn, and tower.kind is sasrec"
    assert named in refused(config=extending(tmp_path / "c.yaml", "tower: {kind: sasrec, item_tower: b}", base))
    rival = tmp_path / "rival.yaml"
    assert named in refused(config=extending(tmp_path / "d.yaml", "tower: {item_tower: b}", rival))
    assert named in refused(config=extending(tmp_path / "e.yaml", "tower: {kind: sasrec, item_tower: b}", rival))


def test_what_was_dropped_does_not_come_back(tmp_path: Path) -> None:
    plus = extending(tmp_path / "plus.yaml", "tower: {kind: learn-plus, id_dropout: 0.3}")
    rival = extending(tmp_path / "rival.yaml", "tower: {kind: hstu}", plus)
    tower = load_settings(extending(tmp_path / "again.yaml", "tower: {kind: learn-plus}", rival)).tower
    assert isinstance(tower, LearnPlusTowerSettings)
    assert tower.id_dropout == 0.0


def test_a_preset_of_another_kind_goes_upon_a_data_set(tmp_path: Path) -> None:
    shop = extending(tmp_path / "shop.yaml", "tower: {item_tower: c}\nembedding_space: {kind: whitened, dims: 8}")
    preset = tmp_path / "preset.yaml"
    preset.write_text("tower: {kind: learn-plus, ids: false}\nembedding_space: {kind: raw}\n")
    settings = load_settings(extending(tmp_path / "own.yaml", "", shop, preset))
    assert isinstance(settings.tower, LearnPlusTowerSettings)
    assert settings.tower.ids is False
    assert settings.embedding_space.model_dump() == {"kind": "raw", "dtype": "float32"}


def test_the_command_line_follows_the_same_rule() -> None:
    settings = load_settings("learn", ["tower.kind=sasrec", "embedding_space.kind=raw", "index.kind=hnsw"])
    assert (settings.tower.kind, settings.embedding_space.kind, settings.index.kind) == ("sasrec", "raw", "hnsw")
    # Whatever their order, a setting that is set one by one is checked.
    for overrides in (["tower.kind=sasrec", "tower.item_tower=b"], ["tower.item_tower=b", "tower.kind=sasrec"]):
        assert "tower.item_tower: a setting of tower.kind learn" in refused(*overrides)
    # A section that is set as a whole is as a file's: a later change of the kind drops what it does not have.
    tower = load_settings("learn", ["tower={kind: learn, item_tower: b, width: 32}", "tower.kind=hstu"]).tower
    assert (tower.kind, tower.width) == ("hstu", 32)


def test_null_for_a_setting_of_another_kind_is_no_setting() -> None:
    assert load_settings("learn", ["tower={kind: sasrec, blending: null}"]).tower.reads_content is False
    assert "there is no such setting" in refused("tower={kind: sasrec, blendin: null}")


@pytest.mark.parametrize("config", ["learn", "beauty-sasrec", "beauty-cold", "beauty-plus", "online-retail"])
def test_saved_settings_of_every_kind_load_to_the_same(config: str, tmp_path: Path) -> None:
    settings = load_settings(config)
    path = save_settings(settings, tmp_path)
    assert load_settings(path) == settings
    for name, kinds in sections_with_kinds(Settings).items():
        section = yaml.safe_load(path.read_text())[name]
        assert set(section) == set(kinds.fields(section[kinds.key]) or {})


def test_the_fingerprint_follows_the_kind_and_its_settings_alone() -> None:
    def of(*overrides: str) -> str:
        return fingerprint(load_settings("learn", overrides), ["tower", "index", "histories"])

    assert of() == of("tower.kind=learn", "index.kind=flat") == of("tower.blending=")
    distinct = {
        of(),
        of("tower.kind=sasrec"),
        of("tower.kind=hstu"),
        of("tower.kind=sasrec", "tower.similarity=dot"),
        of("index.kind=ivf"),
        of("index.kind=ivf", "index.nprobe=3"),
        of("histories={protocol: time_split, split_time: 2024-01-01}"),
        of("histories={protocol: time_split, split_time: 2024-01-01, targets: 3}"),
    }
    assert len(distinct) == 8


def test_every_field_of_every_section_has_a_description() -> None:
    without = []

    def look(model: type, path: str) -> None:
        for name, field in fields_of(model).items():
            if not field.description:
                without.append(f"{path}{name}")
            for inner in models_of(field):
                look(inner, f"{path}{name}.")

    look(Settings, "")
    assert without == []
