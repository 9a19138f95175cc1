#!/bin/sh
# Runs every fuzz target of the module for the given time each (default 20s).
set -eu
time=${1:-20s}
cd "$(dirname "$0")/.."
found=0
for file in $(git ls-files '*_test.go'); do
	# shellcheck disable=SC2013 # Go identifiers: no spaces in them
	for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$file"); do
		found=$((found + 1))
		echo "== $(dirname "$file") $target"
		go test -tags libvirt_dlopen -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 10x "./$(dirname "$file")"
	done
done
echo "$found fuzz targets"
test "$found" -gt 0
