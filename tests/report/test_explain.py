"""``learn-spark recommend``: the released vectors' own arithmetic, worked out by hand, and no release's future."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from learn_spark.core.errors import LearnSparkError, SettingsError
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.read import NoReleaseError
from learn_spark.report.explain import Explanation, explain, moment
from learn_spark.report.titles import plain_title
from tests.report.planted import history_row, plant, release_row
from tests.world import write_config

# Unit vectors: a and b look along the first axis, c between, d and e along the second, f (equal to e) as well.
ITEMS = {"a": [1.0, 0.0], "b": [0.8, 0.6], "c": [0.6, 0.8], "d": [0.28, 0.96], "e": [0.0, 1.0], "f": [0.0, 1.0]}
TITLES = {"a": "Alpha\x1b[31m\n  one", "b": "Bravo", "c": "Charlie", "d": None, "e": "Echo", "f": "Foxtrot"}
EARLY, LATE = datetime(2024, 2, 1, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    found = Workspace.open(str(tmp_path_factory.mktemp("explain") / "workspace"))
    titles = [{"item_id": item, "title": title} for item, title in TITLES.items()]
    plant(found, "items", titles)
    index = plant(found, "item_index", [{"item_id": item, "item_index": n} for n, item in enumerate("fedcba", 1)])
    early = plant(found, "user_histories", [history_row("u", [6]), history_row("1", [1])])
    # By now u has had a, then c and a again; the newest chunk is the row of chunk 0.
    late = plant(
        found, "user_histories", [history_row("v", [4, 6], first_day=1), history_row("v", [4], chunk=1, first_day=0)]
    )
    released = []
    for release, as_of, histories, user in (("r1", EARLY, early, [1.0, 0.0]), ("r2", LATE, late, [0.0, 1.0])):
        common = {"release_id": release, "as_of": as_of, "fingerprint": 0}
        rows = [{**common, "item_id": i, "embedding": v} for i, v in ITEMS.items()]
        outputs = {"item_features": plant(found, "item_features", rows, mode="overwrite")}
        users = [{**common, "user_id": u, "embedding": user} for u in ("u", "v", "1")]
        outputs["user_features"] = plant(found, "user_features", users[: 3 if release == "r2" else 1], mode="overwrite")
        inputs = {"user_histories": histories, "item_index": index}
        released.append(release_row(len(released), release, "released", as_of, inputs=inputs, outputs=outputs))
    plant(found, "releases", [*released, release_row(9, "r3", "withdrawn", EARLY)])
    return found


def offers(found: Explanation) -> list[tuple[str, float]]:
    return [(offer.item_id, offer.score) for offer in found.recommendations]


def test_what_is_seen_is_left_out_and_equal_scores_are_in_the_order_of_the_id(workspace: Workspace) -> None:
    found = explain(workspace, "v", k=3)
    assert (found.release_id, found.as_of) == ("r2", LATE)
    assert [event.item_id for event in found.history] == ["c", "c", "a"]
    assert [f"{event.time:%m-%d}" for event in found.history] == ["01-01", "01-02", "01-03"]
    assert offers(found) == [("e", 1.0), ("f", 1.0), ("d", pytest.approx(0.96))]
    assert [(near.item_id, near.cosine) for near in found.recommendations[0].near] == [
        ("c", pytest.approx(0.8)),
        ("a", pytest.approx(0.0)),
    ]
    (_, _, last) = found.recommendations
    assert [(n.item_id, round(n.cosine, 4)) for n in last.near] == [("c", 0.936), ("a", 0.28)]
    assert (last.title, last.near[1].title) == ("d", "Alpha [31m one")
    # More than there are: all that were not seen.
    assert [item for item, _ in offers(explain(workspace, "v", k=50))] == ["e", "f", "d", "b"]


def test_an_earlier_as_of_is_the_earlier_release_with_its_history_and_its_vectors(workspace: Workspace) -> None:
    found = explain(workspace, "u", k=2, as_of=datetime(2024, 2, 29, tzinfo=UTC))
    assert (found.release_id, [event.item_id for event in found.history]) == ("r1", ["a"])
    assert offers(found) == [("b", pytest.approx(0.8)), ("c", pytest.approx(0.6))]
    assert explain(workspace, "u", as_of=EARLY).release_id == "r1"
    assert explain(workspace, "u", as_of=LATE).release_id == "r2"
    with pytest.raises(NoReleaseError, match=r"no release is as of 2024-01-31 .* or earlier; .* as of 2024-02-01"):
        explain(workspace, "u", as_of=datetime(2024, 1, 31, tzinfo=UTC))
    # A user that came between the two releases.
    with pytest.raises(LearnSparkError, match=r"release r1 .* has no user 'v'; it has 1, such as 'u'"):
        explain(workspace, "v", as_of=EARLY)


def test_the_command_speaks_of_titles_and_ends_with_1_for_an_unknown_user(workspace: Workspace, tmp_path: Path) -> None:
    config = write_config(tmp_path / "c.yaml", raw=tmp_path, workspace=workspace.root, model=tmp_path)

    def learn_spark(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).parent / "learn-spark"), "recommend", "--config", str(config), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    done = learn_spark("--user", "v", "--k", "1")
    assert done.returncode == 0, done.stderr
    assert "History (the newest 3 of 3 events)" in done.stdout
    assert "1  1.0000  Echo [e]\n             near Charlie [c] 0.800; Alpha [31m one [a] 0.000\n" in done.stdout
    assert "\x1b[31m" not in done.stdout
    gone = learn_spark("--user", "nobody")
    assert (gone.returncode, gone.stdout) == (1, "")
    # On a busy machine a line says before that the command is starting.
    said = gone.stderr.splitlines()[-1]
    assert said.startswith("error: release r2 (as of 2024-03-01) has no user 'nobody'; it has 3, such as '1',")


def test_times_and_titles() -> None:
    assert moment("2024-02-01") == EARLY
    assert moment("2024-02-01T02:00:00+02:00") == EARLY
    with pytest.raises(SettingsError, match="--as-of 'tomorrow' is not an ISO time"):
        moment("tomorrow")
    assert plain_title(None) == ""
    assert plain_title(" a\t\x00b\u202e c ") == "a b c"
    assert len(plain_title("word " * 100)) <= 80
    assert plain_title("word " * 100).endswith("word…")
