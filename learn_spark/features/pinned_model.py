"""A trained model with the content of pinned tables: those of the release in force, or the newest ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings import Settings
from learn_spark.core.tables.snapshot import Snapshot, current_version
from learn_spark.core.tables.workspace import Workspace
from learn_spark.encoder.embedding_space import EmbeddingSpace, read_embedding_space
from learn_spark.features.ledger import LedgerRow
from learn_spark.features.read import read_release
from learn_spark.model.trained import require_model

if TYPE_CHECKING:
    from learn_spark.model.store import Model

RELEASED = "released"
TABLES = ("user_histories", "item_index", "item_text", "text_embeddings")


@dataclass(frozen=True)
class PinnedModel:
    """A model and versions of the tables that its vectors are computed from; ``release`` is None for a model that was
    named by its id.
    """

    workspace: Workspace
    settings: Settings
    model: Model
    versions: Mapping[str, int]
    release: LedgerRow | None

    @staticmethod
    def open(
        workspace: Workspace, settings: Settings, which: str = RELEASED, *, release: str = "latest"
    ) -> PinnedModel:
        """The model of a release, or for another ``which`` the model of that id and the newest versions of the tables.

        Its tower's content is not bound. Raises NoReleaseError, and LearnSparkError for an unknown model or table.
        """
        from learn_spark.model.store import load_model

        row = read_release(workspace, release=release) if which == RELEASED else None
        if row is None:
            require_model(workspace, which)
        versions = {}
        for table in TABLES:
            version = current_version(workspace.table(table)) if row is None else row.inputs.get(table)
            if version is not None:
                versions[table] = int(version)
        model_id = which if row is None else row.model_id
        return PinnedModel(workspace, settings, load_model(workspace.place / "models" / model_id), versions, row)

    def snapshot(self, table: str) -> Snapshot:
        """A table at its pinned version. Raises LearnSparkError where the workspace has none."""
        if table not in self.versions:
            raise LearnSparkError(f"{self.workspace.place} has no table {table} yet; run the stages before train")
        return Snapshot.open(self.workspace.table(table), self.versions[table])

    @property
    def space(self) -> EmbeddingSpace:
        """The embedding space of a model that reads content."""
        assert self.model.manifest.space_key is not None
        return read_embedding_space(self.workspace, self.model.manifest.space_key)

    def bind(self) -> None:
        """Give a tower over content the item matrix of the pinned tables."""
        from learn_spark.model.feed.item_matrix import item_matrix, item_matrix_path
        from learn_spark.model.towers.bound import BoundTower

        if not isinstance(self.model.tower, BoundTower):
            return
        path = item_matrix_path(
            self.snapshot("item_index"),
            self.snapshot("item_text"),
            self.snapshot("text_embeddings"),
            template_version=self.model.manifest.template_version,
            encoder_key=self.model.manifest.encoder_key,
            cache=self.workspace.folder("cache", "item_matrix"),
            dtype=self.settings.embedding_space.dtype,
            space=self.space,
        )
        self.model.tower.bind(item_matrix(path))
