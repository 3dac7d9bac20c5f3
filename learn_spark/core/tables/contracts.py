"""A table's contract: schemas/<table>.yaml read into a typed object, and its forms for Spark and Arrow."""

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
    """Rows or a table that do not keep the table's contract."""


class Column(BaseModel):
    """One column: a Spark SQL type, whether it may be null, what it means, and in which unit."""

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
    def _known(cls, value: str) -> str:
        _arrow_type(value)
        return value


class RowRule(BaseModel):
    """A row is refused with ``reason`` where the SQL expression ``broken`` is true (null counts as not broken).

    It is judged while the row is on its way into the table. learn_spark/data/sources says which columns the
    expression may use.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: str = Field(min_length=1)
    broken: str = Field(min_length=1)


class Reference(BaseModel):
    """Each value of ``column`` must stand in the column of the same name of ``table``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: str
    table: str


class Evenness(BaseModel):
    """Inside each group of rows (same values of ``within``) every value of ``among`` must have as many rows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    within: list[str] = Field(min_length=1)
    among: str


class TableRule(BaseModel):
    """Something about a whole table version must lie in [least, most] (no bound: it is only reported).

    What is looked at is one of: ``measure`` (a SQL aggregate), ``repeats_of`` (how many rows have the values of these
    columns that another has too; at size far cheaper than count(distinct) beside other measures), ``references`` (the
    number of rows that break it), ``even`` (rows that values are short of the fullest in their group), ``drift_of``
    (another rule's value against the one it had in the version that passed before), ``given`` (a number that the stage
    which wrote the table hands over).
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
    def _looks_at_one_thing(self) -> TableRule:
        looked_at = (self.measure, self.repeats_of, self.references, self.even, self.drift_of, self.given)
        if sum(x is not None for x in looked_at) != 1:
            raise ValueError(
                f"the rule {self.name} needs one of measure, repeats_of, references, even, drift_of, given"
            )
        return self

    def fingerprint(self) -> str:
        """16 hex digits that change whenever the rule does."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()[:16]


class Contract(BaseModel):
    """What a table promises: columns, key, constraints, change feed, and the rules that rows and versions keep.

    Of a table that ``keeps_versions`` neither log nor files go by their age: consumers read old versions by number.
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
            raise ValueError(f"{self.table}: a column name stands twice in {names}")
        for column in self.key:
            if column not in names:
                raise ValueError(f"{self.table}: {column} is not one of its columns {names}")
        rules = [rule.name for rule in self.rules]
        if len(set(rules)) != len(rules):
            raise ValueError(f"{self.table}: a rule's name stands twice in {rules}")
        for rule in self.rules:
            if rule.drift_of is not None and rule.drift_of not in rules:
                raise ValueError(f"{self.table}: the rule {rule.name} speaks of {rule.drift_of}, which is no rule")
        return self

    @property
    def names(self) -> list[str]:
        """Names of the columns in order."""
        return [column.name for column in self.columns]

    def rule(self, name: str) -> TableRule:
        """The table rule called ``name``; ContractError names the known ones."""
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
    raise ValueError(f"{name!r} is not a type that contracts know ({', '.join(_ARROW)}, array<...>, map<string,...>)")


def parse_contract(tree: Any, where: str) -> Contract:
    """A contract from its parsed YAML; ContractError names the file and the fault."""
    try:
        return Contract.model_validate(tree)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ContractError(f"{where} is not a valid table contract: {faults}") from None


@cache
def contract(table: str) -> Contract:
    """The contract of ``table``."""
    path = resource_folder("schemas") / f"{table}.yaml"
    if not NAME.match(table) or not path.is_file():
        raise ContractError(f"there is no table {table!r}; known are {', '.join(all_tables())}")
    found = parse_contract(yaml.safe_load(path.read_text(encoding="utf-8")), str(path))
    if found.table != table:
        raise ContractError(f"{path} describes the table {found.table!r}, not {table!r}")
    return found


def all_tables() -> list[str]:
    """Names of all tables that have a contract."""
    return sorted(path.stem for path in resource_folder("schemas").glob("*.yaml"))
