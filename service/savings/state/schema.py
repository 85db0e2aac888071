"""Tables of the file of sums, and the statements that change them.

The version is that of the first two tables, which all versions share: later ones have added tables
and left those as they were, so servers of both can use one file. Strata are in the high bits of
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
    f"PRAGMA user_version = {VERSION}",  # also shows that the file can be written
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
    """Whether the file holds nothing yet."""
    return not _tables(connection)


def check_schema(connection: sqlite3.Connection) -> None:
    """Refuse a file that is of something else; raises sqlite3.DatabaseError."""
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
            raise sqlite3.DatabaseError(f"it is of something else: it has a table {name!r}")
        if name in expected and _columns(connection, name) != expected[name]:
            raise sqlite3.DatabaseError(f"its table {name!r} is of something else")


def _tables(connection: sqlite3.Connection) -> list[str]:
    found = connection.execute(
        "SELECT name FROM sqlite_schema "
        "WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'"
    )
    return [str(name) for (name,) in found]


def _columns(connection: sqlite3.Connection, table: str) -> Table:
    statement = 'SELECT name, type, "notnull", pk FROM pragma_table_info(?)'
    return connection.execute(statement, (table,)).fetchall()
