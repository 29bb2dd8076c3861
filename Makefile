# Every recipe that people and CI use. `make` alone lists them.

# rustup puts cargo here; a shell that was open before the installation does not have it on its path
TOOLS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/medallion/tools
export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(TOOLS)/bin:$(PATH)

# asked of cargo, because a configuration file can move the target folder too; make before 4.4 does not export to `shell`
TARGET = $(shell PATH='$(PATH)' cargo metadata --format-version 1 --no-deps --locked 2>/dev/null | sed -E 's/.*"target_directory":"([^"]*)".*/\1/')
MEDALLION = $(TARGET)/release/medallion

# the last release when this was written; a newer one may find more
CARGO_DENY_VERSION := 0.20.2

.DEFAULT_GOAL := help
.PHONY: help setup setup-services build run test soak demo check fmt bench bench-astra bench-operators bench-serving bench-stream check-openlineage data-dictionary docs-site clean-lake cassandra cassandra-stop

help: ## list the recipes
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what building needs and is missing, or say what to install
	@scripts/setup.sh

setup-services: ## the same for what tests start: Cassandra, an S3 server, a browser
	@scripts/setup.sh --services

build: setup ## build the release binary (20 to 30 minutes the first time on 2 cores)
	cargo build --release --locked

run: build ## run the project on the sample in landing/ and print the balance and the five answers
	@# exit code 4 means that the data needs a look; the report above it says why
	@$(MEDALLION) run --answers

test: setup-services ## run everything that proves that it works
	cargo test --locked

soak: setup ## random schedules of streams, runs, reruns, operators' commands and kills; SCHEDULES=300
	MEDALLION_SOAK=$(or $(SCHEDULES),300) cargo test --locked --test it soak -- --ignored --nocapture

demo: build ## land generated files at a rate, stream them, show the answers as they change; RATE=2000 events/s
	@MEDALLION=$(MEDALLION) RATE=$(or $(RATE),2000) scripts/demo.sh

cassandra: setup-services ## start a Cassandra on 127.0.0.1:9042, for `medallion --cassandra 127.0.0.1 run`
	@scripts/cassandra.sh start

cassandra-stop: ## stop it
	@scripts/cassandra.sh stop

# cheap checks first: a misplaced `use` should not cost a clippy run
check: setup ## formatting, layers, lints, docs, dependencies
	cargo fmt --check
	scripts/check_layers.sh
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --locked --no-deps
	@$(MAKE) --no-print-directory check-dependencies

.PHONY: check-dependencies
check-dependencies:
	@# into a folder of ours: a check should not change the user's own tools
	@cargo deny --version >/dev/null 2>&1 || cargo install cargo-deny --locked --version $(CARGO_DENY_VERSION) --root $(TOOLS)
	cargo deny --locked check bans licenses sources
	@# advisories live in a database on the network: without it they are not checked, which is said and not hidden
	@if cargo deny --locked fetch db >/dev/null 2>&1; then cargo deny --locked check advisories; \
	else echo "warning: advisories NOT CHECKED, their database could not be fetched" >&2; fi

check-openlineage: build ## validate OpenLineage events of a run of the sample with the official Python client
	MEDALLION_BIN=$(MEDALLION) scripts/check_openlineage.sh

fmt: ## format the code
	cargo fmt

bench: setup ## measure against the by-hand peer and print the ratios
	scripts/bench.sh

bench-serving: setup-services ## measure publishing against the official Python driver
	scripts/bench_serving.sh

bench-operators: setup ## measure a rerun of one date, `status` after 10,000 commits, `explain-row`
	scripts/bench_operators.sh

bench-stream: setup ## measure the stream: throughput, latency from landing to gold, restart, commits, memory
	scripts/bench_stream.sh

BENCH_DATA ?= ../shared/data/cloud_provider_analytics

bench-astra: build setup-services ## measure what the tunnel to Astra costs beside plain TLS
	BENCH_DATA=$(abspath $(BENCH_DATA)) MEDALLION_BENCH_BINARY=$(MEDALLION) \
		cargo test --locked --test it cost_of_the_tunnel -- --ignored --nocapture

data-dictionary: build ## write docs/data_dictionary.md from the SQL and TOML
	@# through a temporary file: a failing command must not leave an empty dictionary behind
	@$(MEDALLION) docs > docs/.data_dictionary.tmp && mv docs/.data_dictionary.tmp docs/data_dictionary.md
	@echo "wrote docs/data_dictionary.md"

docs-site: build ## write the site of the project and its lake to site/index.html
	@$(MEDALLION) docs --html site

clean-lake: ## remove what runs have written to lake/, to start over
	rm -rf lake
