"""Tables of the state file, and the statements that change them.

The version number is that of the first two tables, which all versions share. Later versions only
added tables, so servers of different versions can share a file. The stratum is in the high bits of
``random_group`` (`contents.cell`).
"""

import sqlite3

__all__ = ["ADD", "FORGET", "JUDGE", "JUDGE_ANY", "NOTE", "SCHEMA", "check_schema", "is_blank"]

VERSION = 2

SCHEMA = (
    """
CREATE TABLE IF NOT EXISTS sums (
    series TEXT, model TEXT, policy TEXT, random_group INTEGER, name TEXT, value REAL NOT NULL,
    PRIMARY KEY (series, model, policy, random_group, name)
) WITHOUT ROWID
""",
    """
CREATE TABLE IF NOT EXISTS recent (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    series TEXT NOT NULL, model TEXT NOT NULL, policy TEXT NOT NULL, value REAL NOT NULL
)
""",
    "CREATE INDEX IF NOT EXISTS recent_by_series ON recent (series, model, policy, id)",
    """
CREATE TABLE IF NOT EXISTS switched_off (
    model TEXT, policy TEXT, since REAL NOT NULL, why TEXT NOT NULL,
    PRIMARY KEY (model, policy)
) WITHOUT ROWID
""",
    """
CREATE TABLE IF NOT EXISTS verdicts (
    model TEXT, policy TEXT, fingerprint TEXT, since REAL NOT NULL, why TEXT NOT NULL,
    PRIMARY KEY (model, policy, fingerprint)
) WITHOUT ROWID
""",
    "CREATE TABLE IF NOT EXISTS secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    """
CREATE TABLE IF NOT EXISTS strata (
    number INTEGER PRIMARY KEY, model TEXT NOT NULL, since REAL NOT NULL, facts TEXT NOT NULL
)
""",
    """
CREATE TABLE IF NOT EXISTS writers (
    id TEXT PRIMARY KEY, flushes INTEGER NOT NULL
) WITHOUT ROWID
""",
    f"PRAGMA user_version = {VERSION}",  # also tests that the file is writable
)
ADD = """
INSERT INTO sums VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET value = value + excluded.value
"""
JUDGE_ANY = """
INSERT INTO switched_off VALUES (:model, :policy, :since, :why) ON CONFLICT DO NOTHING
"""
JUDGE = """
INSERT INTO verdicts VALUES (:model, :policy, :fingerprint, :since, :why) ON CONFLICT DO NOTHING
"""
NOTE = "INSERT INTO recent (series, model, policy, value) VALUES (?, ?, ?, ?)"
FORGET = """
DELETE FROM recent WHERE series = :series AND model = :model AND policy = :policy AND id <= (
    SELECT id FROM recent WHERE series = :series AND model = :model AND policy = :policy
    ORDER BY id DESC LIMIT 1 OFFSET :kept
)
"""

Table = list[tuple[object, ...]]


def is_blank(connection: sqlite3.Connection) -> bool:
    """Return whether the database has no tables."""
    return not _tables(connection)


def check_schema(connection: sqlite3.Connection) -> None:
    """Reject a database with another schema; raises sqlite3.DatabaseError."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version not in (0, VERSION):
        raise sqlite3.DatabaseError(f"version {version}, not {VERSION}")
    ours = sqlite3.connect(":memory:")
    for statement in SCHEMA:
        ours.execute(statement)
    expected = {name: _columns(ours, name) for name in _tables(ours)}
    ours.close()
    for name in _tables(connection):
        if name not in expected and version != VERSION:
            raise sqlite3.DatabaseError(f"it is not a state file: it has a table {name!r}")
        if name in expected and _columns(connection, name) != expected[name]:
            raise sqlite3.DatabaseError(f"it is not a state file: table {name!r} differs")


def _tables(connection: sqlite3.Connection) -> list[str]:
    found = connection.execute(
        "SELECT name FROM sqlite_schema "
        "WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'"
    )
    return [str(name) for (name,) in found]


def _columns(connection: sqlite3.Connection, table: str) -> Table:
    statement = 'SELECT name, type, "notnull", pk FROM pragma_table_info(?)'
    return connection.execute(statement, (table,)).fetchall()
