"""Queries Parquet files by DuckDB, as whoever analyses verdicts would.

    duck.py SQL

Prints one line of JSON, a list, for each row.
"""

import json
import sys

import duckdb

for row in duckdb.sql(sys.argv[1]).fetchall():
    print(json.dumps(row, default=str))
