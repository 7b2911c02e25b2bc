# Kiln's set-up, tests and lints. `make try` is where to start.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

export PATH := $(PATH):$(HOME)/.cargo/bin
export CARGO_TARGET_DIR ?= $(CURDIR)/target
# Dependencies outside of the workspace never change between builds, and the rest is small.
export CARGO_INCREMENTAL ?= 0

SETUP := integration-tests/setup.sh

.PHONY: help build try test lint fuzz fmt deps

help: ## Say what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build kiln and kilnd into target/debug
	@$(SETUP) build
	cargo build --workspace --bins

try: ## Build a first image with a daemon of its own, and look at the cache at work
	@$(SETUP) try
	@$(MAKE) --no-print-directory build
	@integration-tests/try.sh "$$CARGO_TARGET_DIR/debug"

test: ## Run all tests
	@$(SETUP) build
	@$(SETUP) test
	# One build for all that follows: with other targets, cargo would choose other features.
	cargo build --workspace --all-targets
	cargo test --workspace --doc
	@if command -v cargo-nextest >/dev/null; then \
		set -x; cargo nextest run --workspace --no-fail-fast; \
	else \
		set -x; cargo test --workspace --lib --bins --tests --no-fail-fast; \
	fi

lint: ## Check format and lints
	@$(SETUP) build
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- --deny warnings

# What libFuzzer needs to see: which branches were taken, and what was compared with what.
FUZZ_FLAGS := --cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Coverflow-checks
TARGET ?= dockerfile
SECONDS ?= 60

fuzz: ## Look for bytes that break the parser TARGET (integration-tests/fuzz) for SECONDS
	@$(SETUP) build
	RUSTFLAGS='$(FUZZ_FLAGS)' cargo build --package kiln-fuzz --bin fuzz_$(TARGET) --release \
		--no-default-features $(if $(filter cache_config,$(TARGET)),--features cache) \
		--target $$(rustc --print host-tuple) --target-dir "$$CARGO_TARGET_DIR/fuzz"
	mkdir -p "$$CARGO_TARGET_DIR/fuzz/corpus/$(TARGET)"
	"$$CARGO_TARGET_DIR/fuzz/$$(rustc --print host-tuple)/release/fuzz_$(TARGET)" \
		-max_total_time=$(SECONDS) -timeout=10 -rss_limit_mb=4096 -max_len=65536 \
		-artifact_prefix="$$CARGO_TARGET_DIR/fuzz/" "$$CARGO_TARGET_DIR/fuzz/corpus/$(TARGET)" \
		integration-tests/fuzz/seeds/$(TARGET)

fmt: ## Format everything
	cargo fmt --all

deps: ## Install the system packages that building and testing need
	@$(SETUP) build
	@$(SETUP) test
