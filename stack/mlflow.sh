#!/bin/sh
# MLflow's server, which asks for a user and a password. Its options of authentication are read from a file only.
set -eu
umask 077
cat > "$HOME/auth.ini" <<END
[mlflow]
default_permission = READ
database_uri = postgresql://mlflow:$MLFLOW_DB_PASSWORD@$POSTGRES_HOST/mlflow_users
admin_username = $MLFLOW_TRACKING_USERNAME
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
grant_default_workspace_access = false
END
export MLFLOW_AUTH_CONFIG_PATH="$HOME/auth.ini" MLFLOW_AUTH_ADMIN_PASSWORD="$MLFLOW_TRACKING_PASSWORD"
exec mlflow server --app-name basic-auth --host "$MLFLOW_HOST" --port "$MLFLOW_PORT" --workers 2 \
	--allowed-hosts "$MLFLOW_ALLOWED_HOSTS" \
	--backend-store-uri "postgresql://mlflow:$MLFLOW_DB_PASSWORD@$POSTGRES_HOST/mlflow" \
	--artifacts-destination s3://holdfast/mlflow
