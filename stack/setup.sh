#!/bin/sh
# Everything the servers must know before a worker starts, run where the workers will work: `stack/setup.sh FILE…`.
# Run again, it brings the deployments up to date and changes nothing else.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
[ -d .dvc ] || dvc init -q --no-scm
dvc config core.analytics false
dvc remote add -q -f -d team s3://holdfast/dvc
dvc remote modify -q team endpointurl "$AWS_ENDPOINT_URL_S3"
if ! prefect work-pool inspect team > /dev/null 2>&1; then
	template=$(mktemp)
	sed "s#WORKSPACE#$PWD#" "$here/process-pool.json" > "$template"
	prefect work-pool create team --type process --base-job-template "$template"
	rm "$template"
fi
(cd "$here/.." && prefect --no-prompt deploy --name '*/team')
holdfast deploy "$@" --pool team
