#!/bin/sh
# Writes the team stack's passwords, once: `stack/secrets.sh FILE`. A file that is there is left alone.
set -eu
file=$1
[ -e "$file" ] && exit 0
secret() { od -An -tx1 -N24 /dev/urandom | tr -d ' \n'; }
umask 077
cat > "$file.partial" <<END
# Secrets of this team's stack. Lost with this file is the way into its volumes: keep a copy in a safe place.
POSTGRES_PASSWORD=$(secret)
PREFECT_DB_PASSWORD=$(secret)
MLFLOW_DB_PASSWORD=$(secret)
PREFECT_API_AUTH_STRING=team:$(secret)
MLFLOW_TRACKING_USERNAME=admin
MLFLOW_TRACKING_PASSWORD=$(secret)
MLFLOW_FLASK_SERVER_SECRET_KEY=$(secret)
AWS_ACCESS_KEY_ID=holdfast
AWS_SECRET_ACCESS_KEY=$(secret)
END
mv "$file.partial" "$file"
echo "Wrote the stack's passwords to $file."
