# sqllease: what a contributor runs. `make` lists the targets.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c

# The modules of this repository; the root one is the library.
MODULES := . demo integration integration/sqlite integration/e2e bench lab livepage/browsertest

# Where the library must build, although no test runs there: see docs/support.md.
PLATFORMS := linux/arm64 linux/386 darwin/arm64 windows/amd64

GOLANGCI_VERSION := v2.15.0
GOLANGCI_DIR := $(CURDIR)/.cache/golangci-lint-$(GOLANGCI_VERSION)
GOLANGCI := $(GOLANGCI_DIR)/golangci-lint

FUZZTIME ?= 10s
BENCH ?= .
COUNT ?= 6

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "%-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## see it at work, with nothing to install: make demo ARGS="-duration 15s"
	@scripts/run-demo.sh $(ARGS)

# The oldest Go that go.mod allows, and the newest, whose database/sql/driver has
# interfaces that older ones lack.
OLDEST := go$(shell sed -n 's/^go //p' go.mod)
NEWEST := go1.27.4

.PHONY: test
test: announce test-unit test-versions test-page test-integration e2e ## every test; installs the servers it needs

.PHONY: announce
announce:
	@scripts/announce.sh $(OLDEST) $(NEWEST)

.PHONY: test-unit
test-unit: ## the tests that need nothing but Go and a C compiler for the race detector
	go vet ./...
	@$(MAKE) --no-print-directory test-newest
	go test ./internal/advisor # one goroutine, and much to work out
	go test -tags sqllease_no_assembly . ./internal/callstack ./livepage
	cd demo && go test ./...
	cd bench && go test ./...
	cd lab && go test -run 'Page|Refused|Claims' .

.PHONY: test-versions
test-versions: ## the library's tests with other versions of Go, at once: their time is virtual
	@$(MAKE) --no-print-directory -j3 -O test-oldest test-installed test-stuck

.PHONY: test-oldest
test-oldest: ## the library's tests with the oldest Go that go.mod allows
	GOTOOLCHAIN=$(OLDEST) go vet . ./livepage && GOTOOLCHAIN=$(OLDEST) go test . ./livepage

.PHONY: test-installed
test-installed: ## the library's tests with the Go that is installed
	go test . ./livepage

# The race detector of older ones crashes now and then where timers are set in virtual time:
# golang/go issue 78156.
.PHONY: test-newest
test-newest: ## the tests with the newest Go and its race detector
	GOTOOLCHAIN=$(NEWEST) go vet ./...
	GOTOOLCHAIN=$(NEWEST) go test -race $$(go list ./... | grep -v /internal/advisor)

.PHONY: test-stuck
test-stuck: ## what is reported of the deadlock that Go 1.27.0 has in database/sql
	scripts/stuck.sh

.PHONY: test-integration
test-integration: ## the tests on real servers, drivers and ORMs; needs a C compiler for SQLite
	scripts/install-servers.sh
	cd integration && go test -p 1 ./...
	cd integration/sqlite && go test ./...

.PHONY: test-page
test-page: ## the live page, with clicks and keys in a headless browser
	scripts/install-browser.sh
	cd livepage/browsertest && go test -count 1 ./...

.PHONY: page-pictures
page-pictures: ## draw docs/livepage-*.png in a headless browser
	scripts/install-browser.sh
	cd livepage/browsertest && go run ./draw ../../docs

.PHONY: faults
faults: ## have servers, proxies and networks misbehave, and write what applications see into docs/lifetime.md
	scripts/install-servers.sh
	cd integration && go test -count 1 -v -run TestFaults ./faults -write

.PHONY: lab
lab: ## measure the advisor, lanes and overload control in virtual time, and write that into docs/sizing.md and docs/overload.md; ten minutes on a quiet machine
	cd lab && go test -count 1 -timeout 60m -v -write .

.PHONY: sizing
sizing: ## try limits on MariaDB and PostgreSQL, ask the advisor, and write that into docs/sizing.md; some minutes, on a quiet machine
	scripts/install-servers.sh
	cd integration && go test -count 1 -timeout 30m -v ./sizing -write

SOAK ?= 30m
.PHONY: soak
soak: ## random faults against MariaDB under load, and a look for what leaked: make soak SOAK=5m
	scripts/install-servers.sh
	cd integration && go run ./soak -duration $(SOAK)

.PHONY: e2e
e2e: ## the dashboard and the alert rules, on a real Prometheus; builds it, which takes some minutes once
	scripts/install-prometheus.sh
	cd integration/e2e && go test -count 1 -v ./...

.PHONY: jaeger
jaeger: ## the demo's traces in a real Jaeger; builds it, which takes ten minutes once
	scripts/install-jaeger.sh
	cd integration/e2e && go test -count 1 -tags jaeger -v -run Jaeger .

.PHONY: dashboard
dashboard: ## write dashboards/sqllease.json from its table of panels
	cd integration/e2e && go test -count 1 -v ./internal/board -update

.PHONY: pictures
pictures: ## draw docs/trace*.svg from the demo, and docs/dashboard-*.png by Grafana's components; needs Node.js
	scripts/install-jaeger.sh
	scripts/install-prometheus.sh
	cd integration/e2e && go test -count 1 -tags pictures -v -run Draw .
	scripts/draw-dashboard.sh

.PHONY: lint
lint: $(GOLANGCI) ## gofmt, go vet and golangci-lint over every module
	@unformatted=$$(gofmt -l .); \
	if [[ -n $$unformatted ]]; then \
		printf 'not formatted; run gofmt -w on:\n%s\n' "$$unformatted" >&2; exit 1; \
	fi
	scripts/check-requirements.sh
	go run ./internal/tools/directions . docs/architecture.md
	go run ./internal/tools/support docs/support.md
	cd internal/fidelity && go run ./genmatrix && git diff --exit-code matrix.go
	for module in $(MODULES); do \
		echo "lint $$module"; \
		(cd $$module && go vet ./... && $(GOLANGCI) run --allow-parallel-runners --build-tags pictures ./...); \
	done
	for platform in $(PLATFORMS); do \
		echo "build for $$platform"; \
		GOOS=$${platform%/*} GOARCH=$${platform#*/} go build . ./livepage; \
	done
	GOARCH=arm64 go vet ./internal/callstack

# Built from source, once per version; it may need a newer Go than the library.
$(GOLANGCI):
	@echo 'builds golangci-lint $(GOLANGCI_VERSION) from source into .cache: some minutes, once'
	GOBIN=$(GOLANGCI_DIR) GOTOOLCHAIN=auto \
		go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)

.PHONY: bench
bench: ## measure anew, beside other wrappers, and write the figures into docs/performance.md, README.md and their pictures
	scripts/install-servers.sh
	mkdir -p .cache
	cd integration && go run ./withmariadb ../scripts/measure.sh $(COUNT) >../.cache/measured.txt
	cd bench && go run ./report -measured ../.cache/measured.txt
	cd bench && go tool benchstat -filter .name:Overhead -col /wrapper ../.cache/measured.txt >../.cache/benchstat.txt
	@echo 'as benchstat tells it: .cache/benchstat.txt'

.PHONY: bench-core
bench-core: ## the library's own benchmarks: make bench-core BENCH=Exec
	go test -run '^$$' -bench '$(BENCH)' -benchmem -count $(COUNT) .

.PHONY: wrappers
wrappers: ## what this library and others change of a driver, measured by the same suite
	cd bench && go test -count 1 -v -run WhatWrappers . | sed -n '/differences from/,$$p'

.PHONY: fuzz
fuzz: ## each fuzz target of the library for FUZZTIME (10s)
	for package in $$(go list ./...); do \
		targets=$$(go test -list '^Fuzz' $$package | grep '^Fuzz') || continue; \
		for target in $$targets; do \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$package; \
		done; \
	done

APIDIFF_VERSION := v0.0.0-20261113113407-e3970619a1a4
APIDIFF := $(CURDIR)/.cache/apidiff-$(APIDIFF_VERSION)/apidiff

.PHONY: release-check
release-check: $(APIDIFF) ## what must be so before a version is tagged: make release-check VERSION=v0.1.0
	APIDIFF=$(APIDIFF) scripts/check-release.sh $(VERSION)

$(APIDIFF):
	GOBIN=$(dir $@) GOTOOLCHAIN=auto go install golang.org/x/exp/cmd/apidiff@$(APIDIFF_VERSION)
