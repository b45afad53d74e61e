#!/bin/sh
# As the image postgres begins: a new volume gets a cluster with a password, and what lies in /docker-entrypoint-initdb.d.
set -eu
if [ "$(id -u)" = 0 ]; then
	chown postgres:postgres "$PGDATA"
	exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi
export POSTGRES_USER="${POSTGRES_USER:-postgres}"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
	secret=$(mktemp)
	printf '%s' "${POSTGRES_PASSWORD:?}" > "$secret"
	initdb -E UTF8 --locale=C.UTF-8 -U "$POSTGRES_USER" --auth-local=trust --auth-host=scram-sha-256 --pwfile="$secret"
	rm "$secret"
	echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
	pg_ctl -w -o "-c listen_addresses='' -c unix_socket_directories=/var/run/postgresql" start
	for file in /docker-entrypoint-initdb.d/*.sh; do "$file"; done
	pg_ctl -w -m fast stop
fi
exec postgres -c 'listen_addresses=*' "$@"
