"""Table contracts: schemas/<table>.yaml as a typed object, with schemas for Spark and Arrow."""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import yaml
from deltalake import Schema as DeltaSchema
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.resources import resource_folder

if TYPE_CHECKING:
    from pyspark.sql.types import StructType

NAME = re.compile(r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*){0,2}$")

_ARROW: dict[str, pa.DataType] = {
    "string": pa.string(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}


class ContractError(LearnSparkError):
    """Rows, a table or a contract file that violates a table contract."""


class Column(BaseModel):
    """A column: name, Spark SQL type, nullability, meaning and unit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    type: str
    nullable: bool
    meaning: str = Field(min_length=1)
    unit: str | None = None

    @field_validator("name")
    @classmethod
    def _plain(cls, value: str) -> str:
        if not NAME.match(value):
            raise ValueError(f"{value!r} is not a plain column name")
        return value

    @field_validator("type")
    @classmethod
    def _valid(cls, value: str) -> str:
        _arrow_type(value)
        return value

    @property
    def comment(self) -> str:
        """Meaning and unit, for catalogs."""
        return self.meaning if self.unit is None else f"{self.meaning} ({self.unit})"


class RowRule(BaseModel):
    """A row is refused with ``reason`` where the SQL expression ``broken`` is true (null counts as not broken).

    A rule with ``nulls`` refuses no row: it sets this column to null, and the row is counted with the reason. The rule
    is evaluated before the row is written. learn_spark/data/sources defines the columns that the expression may use.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: str = Field(min_length=1)
    broken: str = Field(min_length=1)
    nulls: str | None = None


class Reference(BaseModel):
    """Each value of ``column`` must exist in the column of the same name of ``table``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: str
    table: str


class Evenness(BaseModel):
    """In each group of rows (equal values of ``within``) every value of ``among`` must have the same number of rows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    within: list[str] = Field(min_length=1)
    among: str


class TableRule(BaseModel):
    """A measure of a table version must be in [least, most] (without bounds it is only reported).

    Exactly one of these is measured: ``measure`` (a SQL aggregate); ``repeats_of`` (number of rows that repeat the
    values of these columns; on large tables much cheaper than count(distinct) in a measure); ``references`` (number of
    rows with a missing reference); ``even`` (number of missing rows against the most frequent value of each group);
    ``drift_of`` (another rule's value against its value in the newest earlier version that passed); ``given`` (a number
    from the stage that writes the table).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z]\w*$")
    measure: str | None = None
    repeats_of: list[str] | None = None
    references: Reference | None = None
    even: Evenness | None = None
    drift_of: str | None = None
    change: Literal["ratio", "difference", "share_new"] = "ratio"
    given: str | None = None
    least: float | None = None
    most: float | None = None
    severity: Literal["fail", "warn"] = "fail"
    meaning: str = Field(min_length=1)

    @model_validator(mode="after")
    def _has_one_subject(self) -> TableRule:
        subjects = (self.measure, self.repeats_of, self.references, self.even, self.drift_of, self.given)
        if sum(x is not None for x in subjects) != 1:
            raise ValueError(
                f"the rule {self.name} needs exactly one of measure, repeats_of, references, even, drift_of, given"
            )
        return self

    def fingerprint(self) -> str:
        """A hash (16 hex digits) of the rule without its meaning, so that a new wording evaluates nothing again."""
        return hashlib.sha256(json.dumps(self.model_dump(exclude={"meaning"}), sort_keys=True).encode()).hexdigest()[
            :16
        ]


class Contract(BaseModel):
    """The contract of a table: columns, key, constraints, change data feed, row rules and table rules.

    ``keeps_versions``: neither log nor files are deleted by age, because consumers read old versions by number.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: str
    meaning: str = Field(min_length=1)
    key: list[str] = Field(min_length=1)
    columns: list[Column] = Field(min_length=1)
    constraints: dict[str, str] = Field(default_factory=dict)
    change_data_feed: bool = False
    keeps_versions: bool = False
    row_rules: list[RowRule] = Field(default_factory=list)
    rules: list[TableRule] = Field(default_factory=list)

    @model_validator(mode="after")
    def _names_exist(self) -> Contract:
        names = self.names
        if len(set(names)) != len(names):
            raise ValueError(f"{self.table}: a column name is repeated in {names}")
        for column in self.key:
            if column not in names:
                raise ValueError(f"{self.table}: {column} is not one of its columns {names}")
        nullable = {column.name for column in self.columns if column.nullable}
        if wrong := {rule.nulls for rule in self.row_rules if rule.nulls is not None} - nullable:
            raise ValueError(
                f"{self.table}: a row rule nulls {sorted(wrong)}, which is not one of its nullable columns"
            )
        rules = [rule.name for rule in self.rules]
        if len(set(rules)) != len(rules):
            raise ValueError(f"{self.table}: a rule name is repeated in {rules}")
        for rule in self.rules:
            if rule.drift_of is not None and rule.drift_of not in rules:
                raise ValueError(
                    f"{self.table}: the rule {rule.name} has drift_of {rule.drift_of}, which is not one of its rules"
                )
        return self

    @property
    def names(self) -> list[str]:
        """Names of the columns in order."""
        return [column.name for column in self.columns]

    def rule(self, name: str) -> TableRule:
        """The table rule called ``name``. Raises ContractError, with all names, if there is none."""
        for rule in self.rules:
            if rule.name == name:
                return rule
        raise ContractError(f"{self.table} has no rule {name!r}; it has {', '.join(r.name for r in self.rules)}")

    def arrow_schema(self) -> pa.Schema:
        """The columns as an Arrow schema, nullability included."""
        return pa.schema([pa.field(c.name, _arrow_type(c.type), nullable=c.nullable) for c in self.columns])

    def spark_schema(self) -> StructType:
        """The columns as a Spark schema, nullability included."""
        from pyspark.sql.types import StructType

        # By Delta's form of a schema, which is Spark's: Spark's own parser of type names asks the JVM for each column.
        return StructType.fromJson(json.loads(DeltaSchema.from_arrow(self.arrow_schema()).to_json()))


def _arrow_type(name: str) -> pa.DataType:
    name = name.replace(" ", "")
    if name in _ARROW:
        return _ARROW[name]
    if inner := re.fullmatch(r"array<(.+)>", name):
        return pa.list_(_arrow_type(inner[1]))
    if inner := re.fullmatch(r"map<string,(.+)>", name):
        return pa.map_(pa.string(), _arrow_type(inner[1]))
    raise ValueError(f"{name!r} is not a valid type of a contract ({', '.join(_ARROW)}, array<...>, map<string,...>)")


def parse_contract(tree: Any, where: str) -> Contract:
    """The contract of a parsed YAML tree. Raises ContractError with ``where`` (the file) and the faults."""
    try:
        return Contract.model_validate(tree)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ContractError(f"{where} is not a valid table contract: {faults}") from None


@cache
def contract(table: str) -> Contract:
    """The contract of ``table``. Raises ContractError for an unknown table."""
    path = resource_folder("schemas") / f"{table}.yaml"
    if not NAME.match(table) or not path.is_file():
        raise ContractError(f"there is no table {table!r}; the tables are {', '.join(all_tables())}")
    parsed = parse_contract(yaml.safe_load(path.read_text(encoding="utf-8")), str(path))
    if parsed.table != table:
        raise ContractError(f"{path} describes the table {parsed.table!r}, not {table!r}")
    return parsed


def all_tables() -> list[str]:
    """Names of all tables with a contract, sorted."""
    return sorted(path.stem for path in resource_folder("schemas").glob("*.yaml"))
