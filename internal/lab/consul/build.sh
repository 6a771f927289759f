#!/bin/sh
# Builds the Consul agent for the tests into build/consul of the repository, unless it is there and newer than go.mod
# and go.sum. The first build takes up to ten minutes on two cores; later ones link from Go's build cache.
#
#   build.sh          build what is missing; prints the path
set -eu

cd "$(dirname "$0")"
out=$(cd ../../.. && pwd)/build/consul
mkdir -p "${out%/*}"

# Test packages run at the same time: one builds, the others wait and find it done.
exec 9>"$out.lock"
flock 9

if [ ! -x "$out" ] || [ go.mod -nt "$out" ] || [ go.sum -nt "$out" ]; then
  echo "consul: building the agent for the tests" >&2
  nice go build -o "$out.new" github.com/hashicorp/consul
  mv "$out.new" "$out"
fi
echo "$out"
