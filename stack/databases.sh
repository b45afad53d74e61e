#!/bin/sh
# Run by PostgreSQL's container when its volume is new: a database and a user for each server.
set -eu
psql -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d postgres \
	-v prefect="$PREFECT_DB_PASSWORD" -v mlflow="$MLFLOW_DB_PASSWORD" <<'END'
CREATE ROLE prefect LOGIN PASSWORD :'prefect';
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow';
CREATE DATABASE prefect OWNER prefect;
CREATE DATABASE mlflow OWNER mlflow;
CREATE DATABASE mlflow_users OWNER mlflow;
END
