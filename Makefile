# Groundswell. `make` alone prints this help.
# A test whose output is filtered must still fail.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
export GOFLAGS := -mod=readonly
TOOLS  := cd internal/tools && go build -o ../../bin/tools/
PKGS   := ./...
LEAN   := -trimpath -ldflags '-s -w' -tags grpcnotrace

.DEFAULT_GOAL := help
.PHONY: help build demo test test-full check race sim model mutants fuzz bench bench-agent bench-fleet bench-cluster fmt generate arch e2e faults soak tidy clean crash

help: ## print this help
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

build: ## build dctl, dcoord, dagent and the example into bin/ (needs Go alone)
	@mkdir -p bin
	go build -o bin/ -trimpath ./cmd/dctl ./cmd/dcoord
	go build -o bin/ $(LEAN) ./cmd/dagent
	CGO_ENABLED=0 go build -o bin/ -trimpath -ldflags '-s -w' ./examples/www

demo: build ## a whole fleet on this machine: deploy, roll back, fail over
	bin/dctl dev $(DEMO)

test: build ## the test suite but for what takes long (under 5 minutes)
	go test -short -timeout 280s $(PKGS)

test-full: build ## the suite with the race detector and long simulations
	go test -race -timeout 20m $(PKGS)
	$(MAKE) sim SEEDS=5000

check: ## format, vet, staticcheck, arch, generated code current
	@$(TOOLS) mvdan.cc/gofumpt honnef.co/go/tools/cmd/staticcheck
	@out=$$(bin/tools/gofumpt -l $$(git ls-files '*.go' | grep -v '\.pb\.go$$')); \
	  if [ -n "$$out" ]; then echo "not formatted (make fmt):"; echo "$$out"; exit 1; fi
	go vet $(PKGS)
	bin/tools/staticcheck $(PKGS)
	go test ./internal/arch
	@$(MAKE) --no-print-directory generate-current

.PHONY: generate-current
generate-current:
	@if command -v protoc >/dev/null; then sh proto/generate.sh && git diff --exit-code -- proto && echo "generated code is current"; \
	else echo "protoc is not installed: generated code not checked"; test -z "$$CI"; fi

race: ## the concurrent packages under the race detector
	go test -race -timeout 10m ./coordinator/... ./internal/rpc ./internal/gossip ./internal/identity ./artifacts/... ./cmd/dctl

sim: ## seeded simulation of the core: SEEDS=n from BASE=n, in SHARDS=n after each other, or SEED=n for one
	@for i in $$(seq 0 $$(($(or $(SHARDS),1) - 1))); do \
	  BASE=$$(($(or $(BASE),1) + i * $(or $(SEEDS),2000))) SEEDS=$(or $(SEEDS),2000) \
	    go test ./deploy -count 1 -run TestSimulation -v -timeout 90m | grep -v '^=== ' || exit 1; done

soak: build ## what takes too long for CI: 20,000 seeds from two bases, every fault at every step, fleets looked at again after 30 s
	$(MAKE) sim SEEDS=5000 SHARDS=4
	$(MAKE) sim SEEDS=5000 SHARDS=4 BASE=1000001
	$(MAKE) e2e QUIET=30s
	$(MAKE) mutants
	$(MAKE) faults FAULTS=all
	MUTANTS="under faults" go test ./internal/mutants -parallel 1 -count 1 -v -timeout 60m | grep -E 'killed|SURVIVED|not run|^(FAIL|ok)'

model: ## explicit-state model checking of the core, on the real code (under 10 minutes)
	@MODEL=1 go test ./deploy -run TestModel -v -timeout 20m | grep --line-buffered -v '^=== '

mutants: ## rules taken out of the source one by one, each noticed by its test (PART=0/3: every third)
	@MUTANTS=$(or $(MUTANT),all) go test ./internal/mutants -count 1 -v -timeout 60m | grep -E 'killed|SURVIVED|snippet|not run|^(FAIL|ok)'

crash: ## end the agent at every record, effect and operation: kill, full disk, failing disk, power loss
	go test ./agent ./agent/release ./agent/journal ./hooks -run 'Crash|Kill' -v -timeout 10m | grep -E '^(---|ok|FAIL|    [a-z_]+\.go)'
	SWEEP=all go test -count 1 -timeout 20m -run TestSweep -v ./agent/sweep | grep -E '^(---|ok|FAIL)|sweep'

# Counted, not timed: Go's fuzzer can call its own end of time a failure ("context deadline exceeded").
fuzz: ## every fuzz target for FUZZTIME runs each (default 20000x)
	@for p in $$(git grep -l '^func Fuzz' -- '*_test.go' | xargs -n1 dirname | sort -u); do \
	  for f in $$(grep -ho '^func Fuzz[A-Za-z0-9]*' $$p/*_test.go | cut -d' ' -f2); do \
	    go test ./$$p -run '^$$' -fuzz "^$$f$$" -fuzztime $(or $(FUZZTIME),20000x) -fuzzminimizetime 10x || exit 1; done; done; \
	echo "fuzz: no finding"

bench: ## benchmarks of the packages
	go test -run '^$$' -bench . -benchtime 1x ./deploy ./coordinator/state

bench-agent: build ## what the agent costs, beside plain tools (3 minutes)
	BENCH_BIN=$(CURDIR)/bin go test -count 1 -timeout 15m -run 'TestBench' -v ./agent | grep -vE '^(=== |---|ok|PASS)'

bench-fleet: build ## 50 agent processes: all at once, and in 5 waves
	bin/dctl dev --bench --agents 50

bench-cluster: build ## simulated hosts on three coordinators: joining, deploying, coming back (HOSTS=10000)
	bin/dctl bench --hosts $(or $(HOSTS),10000) --deployments 1 --waves 6 --joins --kill-leader 1 --reconnect $(BENCH)

e2e: build ## end-to-end tests with real processes; every fleet is looked at again after QUIET (10s)
	QUIET=$(or $(QUIET),10s) go test -count 1 -timeout 30m ./internal/e2e

faults: ## clients of a cluster whose leader is broken in every way; FAULTS=all at each step (25 minutes), or by name
	FAULTS="$(or $(FAULTS),each)" go test -count 1 -timeout 60m -run TestClientsUnderFaults -v ./internal/e2e | grep -E -e '----|faults: |^(---|FAIL|ok)|_test.go:.*(broken|shown|lost|waited)'

arch: ## the rules of the house, and the longest files and functions
	go test ./internal/arch -run . -v | grep -E 'lines|FAIL|ok|median|_test.go'

fmt: ## format the code
	@$(TOOLS) mvdan.cc/gofumpt
	bin/tools/gofumpt -w $$(git ls-files '*.go' | grep -v '\.pb\.go$$')

generate: ## generate Go code from proto/ (needs protoc)
	sh proto/generate.sh

tidy: ## tidy go.mod of the product and of the tools
	GOFLAGS= go mod tidy
	cd internal/tools && GOFLAGS= go mod tidy

clean: ## remove what was built
	rm -rf bin
