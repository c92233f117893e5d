#!/usr/bin/env bash
# Runs a command with an S3 cluster of its own: four nodes of MinIO on this
# machine, one drive each, of which any one may fail. It builds MinIO once,
# with Go; curl must be there too.
#
#	./cluster.sh go test -race ./...
#	./cluster.sh go run ./bench
#
# The command finds in its environment S3_ENDPOINT (the URL of one node),
# S3_ENDPOINTS (of all), S3_BUCKET, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
# AWS_REGION and S3_CLUSTER, a directory with 1 to 4, the nodes: kill -9 the
# process in N/pid to see how it is without node N, run N/start to have it back.
set -euo pipefail
[ $# -gt 0 ] || { echo "usage: $0 COMMAND [ARGS...]" >&2; exit 2; }

version=v0.0.0-20260212201848-7aac2a2c5b7c
cache=${XDG_CACHE_HOME:-$HOME/.cache}/imagestore
minio=$cache/minio-$version
if [ ! -x "$minio" ]; then
	echo "$0: building MinIO, which takes some minutes" >&2
	mkdir -p "$cache"
	build=$(mktemp -d "$cache/build-XXXXXX")
	trap 'rm -rf "$build"' EXIT
	GOBIN=$build go install -trimpath "github.com/minio/minio@$version"
	mv "$build/minio" "$minio"
	rm -rf "$build"
fi

# Every job gets a process group of its own: Ctrl-C is then for this script
# alone, and what the command leaves running can be found.
set -m
S3_CLUSTER=$(mktemp -d)
command=''
finish() {
	status=$?
	trap '' INT TERM HUP
	[ "$status" = 0 ] || tail -n 20 "$S3_CLUSTER"/*/log >&2 || true
	{
		jobs -pr | xargs kill -KILL
		if [ -n "$command" ]; then # its group has the nodes that it has started again
			kill -KILL -- "-$command"
			for ((try = 0; try < 100; try++)); do kill -0 -- "-$command" && sleep 0.1; done
		fi
		wait
	} 2>/dev/null || true
	rm -rf "$S3_CLUSTER"
	exit "$status"
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

listens() { (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
S3_ENDPOINTS='' drives=()
for n in 1 2 3 4; do
	# Below the ephemeral ports, so that no other program gets a node's port while
	# the node is down.
	while port=$((5000 + 5000 * n + RANDOM % 5000)); listens "$port"; do :; done
	S3_ENDPOINTS+=${S3_ENDPOINTS:+ }http://127.0.0.1:$port
	drives+=("http://127.0.0.1:$port$S3_CLUSTER/$n/drive")
done
secret() { od -An -N16 -tx1 /dev/urandom | tr -d ' \n'; }
S3_ENDPOINT=${S3_ENDPOINTS%% *} S3_BUCKET=images
AWS_ACCESS_KEY_ID=$(secret) AWS_SECRET_ACCESS_KEY=$(secret) AWS_REGION=us-east-1
AWS_EC2_METADATA_DISABLED=true # no other source of credentials
export AWS_EC2_METADATA_DISABLED S3_CLUSTER S3_ENDPOINT S3_ENDPOINTS S3_BUCKET AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_REGION
unset AWS_PROFILE AWS_SESSION_TOKEN # they would not go with these

n=0
for url in $S3_ENDPOINTS; do
	n=$((n + 1)) node=$S3_CLUSTER/$n
	mkdir -p "$node/drive"
	# MINIO_CI_CD lets a drive be a directory of the root filesystem, and
	# _MINIO_SERVER_LOCAL a node in a container have a loopback address.
	cat >"$node/start" <<-END
		#!/bin/sh
		echo \$\$ >$node/pid
		export MINIO_ROOT_USER=$AWS_ACCESS_KEY_ID MINIO_ROOT_PASSWORD=$AWS_SECRET_ACCESS_KEY
		export MINIO_CI_CD=1 MINIO_UPDATE=off MINIO_BROWSER=off _MINIO_SERVER_LOCAL=${url#http://}
		exec $minio server --quiet --config-dir $node --address ${url#http://} ${drives[*]} >>$node/log 2>&1
	END
	chmod 700 "$node/start"
	"$node/start" &
done

deadline=$((SECONDS + 120))
for url in $S3_ENDPOINTS; do
	until curl --noproxy '*' -sf -o /dev/null -m 5 "$url/minio/health/cluster"; do
		[ $SECONDS -lt $deadline ] || { echo "$0: the cluster does not become healthy" >&2; exit 1; }
		sleep 0.2
	done
done
put() {
	curl --noproxy '*' -sSf -o /dev/null -m 30 --retry 5 --aws-sigv4 "aws:amz:$AWS_REGION:s3" -K - \
		-X PUT -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' "$S3_ENDPOINT/$1" --data-binary "$2" \
		<<<"user = $AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY"
}
put "$S3_BUCKET" ''
# In a bucket without versions, MinIO undoes a PUT that was cut off or that too
# few drives have taken by removing the object, and what it replaced is lost.
put "$S3_BUCKET?versioning=" '<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>'

# One package after the other: the tests of one kill nodes that those of another
# need.
export GOFLAGS="${GOFLAGS:-} -p=1"
"$@" &
command=$!
wait "$command"
