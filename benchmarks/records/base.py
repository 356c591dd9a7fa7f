"""What every stored result has: when, where, with what and by which command it came to be."""

import msgspec

SCHEMA_VERSION = 2


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An immutable part of a result; unknown keys are refused."""


class Machine(Record, frozen=True, kw_only=True):
    """Where it ran."""

    cpu: str
    num_cores: int
    memory_bytes: int
    system: str
    features: tuple[str, ...]


class Run(Record, frozen=True, kw_only=True):
    """When, where, with what and by which command something was measured."""

    schema_version: int = SCHEMA_VERSION
    date: str
    command: str
    commit: str
    machine: Machine
    versions: dict[str, str]


class Result(Record, frozen=True, kw_only=True, tag_field="kind"):
    """What one command measured; each kind of result is a subclass with a tag of its own."""

    run: Run
