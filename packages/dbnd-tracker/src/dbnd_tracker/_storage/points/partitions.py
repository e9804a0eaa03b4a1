"""Native partitions of PostgreSQL: the tables of points in parts, by hash of the series."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection

from dbnd import ConfigError
from dbnd_tracker._storage.points.models import Metric

DIVISION: Final = """\
DO $$
DECLARE
    whole text;
BEGIN
    FOREACH whole IN ARRAY ARRAY['metrics', 'segments'] LOOP
        EXECUTE 'LOCK TABLE ' || whole;
        EXECUTE 'CREATE TABLE divided (LIKE ' || whole || ' INCLUDING ALL) PARTITION BY HASH (series_id)';
        FOR part IN 0 .. {partitions} - 1 LOOP
            EXECUTE 'CREATE TABLE ' || whole || '_' || part
                || ' PARTITION OF divided FOR VALUES WITH (MODULUS {partitions}, REMAINDER ' || part || ')';
        END LOOP;
        EXECUTE 'INSERT INTO divided SELECT * FROM ' || whole;
        EXECUTE 'DROP TABLE ' || whole;
        EXECUTE 'ALTER TABLE divided RENAME TO ' || whole;
        EXECUTE 'ALTER TABLE ' || whole || ' RENAME CONSTRAINT divided_pkey TO pk_' || whole;
    END LOOP;
END
$$"""
"""What divides the tables of a database; users run it by hand where these hold something."""
_COUNT: Final = f"SELECT count(*) FROM pg_inherits WHERE inhparent = '{Metric.__tablename__}'::regclass"  # noqa: S608


def divide(connection: Connection, partitions: int) -> None:
    """Divide the tables of points, which are empty, if there are to be several parts and the database has any."""
    if partitions > 1 and connection.dialect.name == "postgresql":
        connection.exec_driver_sql(DIVISION.format(partitions=partitions))


def check_partitions(connection: Connection, partitions: int, name: str) -> None:
    """Find the partitions that the configuration asks for; ConfigError where there are others, or none."""
    if partitions == 1:
        return
    if connection.dialect.name != "postgresql":
        raise ConfigError(
            f"tracker.partitions = {partitions} needs PostgreSQL: leave it at 1 for the SQLite file {name}, or set "
            "tracker.database."
        )
    found = connection.exec_driver_sql(_COUNT).scalar_one()
    if found != partitions:
        raise ConfigError(
            f"tracker.partitions = {partitions}, and the database {name} was made with {found or 'none'}: leave it at "
            f"{found or 1}, or divide the tables as the page “Size a tracker” of the documentation says."
        )
