# make test    everything: format, lints, fast tests, then releases on a real control plane
# make demo    three releases on the real control plane, with a live table (KEEP=1 leaves it running)
# make soak    the property tests with long seeds (CASES=20000), and BAKES=1000 releases of 72 hours in virtual time
# make bench   figures, of the operator on the real API server too (STACK_BENCH=rules,looks,evidence,readings,dashboard needs no such thing)
# make crds    writes the generated CRDs, for the repository and for the chart
#
# Everything that is needed besides Rust, Go, Python, npm and the shell's usual tools is fetched and built, and kept in
# the user's cache folder; see tests/stack/components.sh. What a machine cannot provide is named there, with the variable
# that gives its path.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

CARGO ?= cargo
# Tests wait more than they compute: more of them at once than there are processors.
REAL_THREADS ?= 6
CASES ?= 20000
BAKES ?= 1000
SLOW := real stack_smoke
ALL := $(patsubst tests/%.rs,%,$(wildcard tests/*.rs)) $(patsubst tests/%/main.rs,%,$(wildcard tests/*/main.rs))
FAST := $(sort $(filter-out $(SLOW),$(ALL)))
# Parts of the bench; all of them when none is named.
comma := ,
PARTS := $(subst $(comma), ,$(STACK_BENCH))
NETNS := tests/stack/in-netns.sh
STEP = @printf '\n== %s  %s\n' "$$(date +%T)"

.PHONY: help test components lint fast build real smoke demo soak bench crds

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -9

# The components come first because their first build takes longest. Without one of them everything else is still
# tested, and the tests that need it say which one is missing.
test:
	$(STEP) 'components of the real control plane'
	@$(MAKE) components || echo 'some components are missing: the real tests will name them'
	@$(MAKE) lint
	@$(MAKE) fast
	@$(MAKE) smoke
	@$(MAKE) real
	$(STEP) 'everything passed'

components:
	@tests/stack/components.sh >/dev/null

lint:
	$(STEP) 'format and lints'
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --no-default-features --lib --bins -- -D warnings

fast:
	$(STEP) 'fast tests'
	$(CARGO) test --locked --lib --bins $(FAST:%=--test %)
	$(CARGO) test --locked --doc

build:
	$(STEP) 'programs'
	$(CARGO) build --locked --bins --examples
	$(CARGO) test --locked --no-run $(SLOW:%=--test %)

smoke: build
	$(STEP) 'tests of the real control plane itself'
	$(NETNS) $(CARGO) test --locked --offline --test stack_smoke

real: build
	$(STEP) 'releases on the real control plane'
	$(NETNS) $(CARGO) test --locked --offline --test real -- --test-threads=$(REAL_THREADS)

demo: components
	$(CARGO) build --locked --quiet --bins --examples
	@$(NETNS) target/debug/examples/stack-demo

soak:
	PROPTEST_CASES=$(CASES) $(CARGO) test --locked --release --lib
	PROPTEST_CASES=$(CASES) VOICEROLLOUT_BAKE_SEEDS=$(BAKES) $(CARGO) test --locked --release $(FAST:%=--test %) -- --include-ignored

bench: $(if $(PARTS),$(if $(filter verdicts callers release size,$(PARTS)),components),components)
	$(CARGO) build --locked --release --bins --examples
	@$(NETNS) target/release/examples/stack-bench

crds:
	$(CARGO) run --locked --quiet -- crd --dir crds
	$(CARGO) run --locked --quiet -- crd --dir charts/voicerollout/files/crds
