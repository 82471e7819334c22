#!/bin/sh
# Generates the Go code of every .proto under this folder. Needs protoc
# (Debian: protobuf-compiler); the plugins come from internal/tools/go.mod.
set -eu
cd "$(dirname "$0")/.."
mkdir -p bin/tools
export GOFLAGS=-mod=readonly
(cd internal/tools && go build -o ../../bin/tools/ google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc)
PATH="$PWD/bin/tools:$PATH" protoc -I proto \
	--go_out=. --go_opt=module=github.com/groundswell/groundswell \
	--go-grpc_out=. --go-grpc_opt=module=github.com/groundswell/groundswell \
	$(find proto -name '*.proto' | sort)
