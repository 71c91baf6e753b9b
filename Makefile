# `make` lists the recipes. People and CI call the same ones.
# Every cargo call uses the release profile, so that librdkafka and OpenSSL are built once for demo and tests; figures are taken of what
# is shipped, the profile dist, which takes minutes more to build.
CARGO := cargo
ARGS ?=
CHECKS ?= bans licenses sources
# Another version reads deny.toml in another way. This one needs Rust 1.88.
DENY := 0.20.2
# Most tests wait, for joins, sessions and brokers: with one a core the suite takes twice as long.
export RUST_TEST_THREADS ?= 6

.PHONY: help demo test sim test-workflows test-inngest test-alerts lint lint-deploy rehearse fence fmt deny explain bench curves instructions plots soak chaos fuzz stack-up stack-down \
	toolchain fixtures

help: ## list the recipes
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: toolchain ## run the worker on an embedded Kafka and balance the books; ARGS="--events 1000000"
	$(CARGO) run --locked --release -- demo $(ARGS)

# The simulation takes all cores: beside it, tests that wait for real servers would wait too long.
test: toolchain lint lint-deploy test-alerts fence $(if $(ARGS),,sim) ## everything, on real servers that it starts and stops, and a short chaos
	stack/with-stack sh -c 'workflows/check && exec $(CARGO) test --locked --release --features planted $(if $(ARGS),$(ARGS),-- --skip sim::)'
	$(if $(ARGS),,benches/install chaos && $(CARGO) bench --locked --bench bench -- chaos --minutes 0.6 --records 12000 --seed 7)

sim: toolchain ## simulated schedules, each from a seed: ARGS="--seeds 100000 --from 1", or the story of one: ARGS="--seed 4711"
	SIM="$(ARGS)" $(CARGO) test --locked --release --features planted --test integration -- --nocapture --test-threads 1 \
		$(if $(ARGS),--exact sim::no_schedule_loses_or_doubles_anything,sim::)

test-workflows: ## the Inngest functions: types, then tests on a real PostgreSQL and a double of Inngest
	stack/with-stack --only postgres workflows/check $(ARGS)

test-inngest: ## the same scenarios on a real Inngest: INNGEST_TEST_URL, INNGEST_TEST_BIN, or one that it builds (Go)
	stack/with-stack --only postgres workflows/test-inngest

test-alerts: ## the alert rules: what makes each fire, and what must not
	observability/check

lint: toolchain ## format and clippy, warnings denied
	@$(CARGO) clippy --version >/dev/null 2>&1 && $(CARGO) fmt --version >/dev/null 2>&1 || rustup component add clippy rustfmt
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --release --all-targets --features planted -- --deny warnings

lint-deploy: ## Dockerfiles, compose.yaml, render.yaml and the workflows of GitHub Actions, without an engine
	deploy/lint

rehearse: toolchain ## what both Dockerfiles do, without an engine
	deploy/rehearse .
	PATH="$$(dirname "$$(workflows/install)"):$$PATH" deploy/rehearse workflows

fence: toolchain ## the pure rooms build alone
	$(CARGO) check --locked --release --lib --no-default-features

fmt: ## format
	$(CARGO) fmt

deny: toolchain ## licences, sources and banned crates (installs cargo-deny once); CHECKS=advisories
	@$(CARGO) deny --version 2>/dev/null | grep -qx 'cargo-deny $(DENY)' || $(CARGO) install --locked --version $(DENY) cargo-deny
	$(CARGO) deny check $(CHECKS)

explain: toolchain ## explain recorded messages; FILE=messages.jsonl (as `kcat -J` prints them)
	$(CARGO) run --locked --release -- explain $(FILE)

bench: target/bench/worker ## measure the worker against the bare client and what else does its job; ARGS="--rounds 5 --format json"
	$(CARGO) bench --locked --profile dist --bench allocations --no-run
	peers=$$(benches/install peers) && $(CARGO) bench --locked --profile dist --bench bench -- ratios --worker "$(CURDIR)/$<" --peers "$$peers" $(ARGS)

curves: target/bench/worker ## measure what a record costs as things grow, how long it takes, start and drain; ARGS="--rounds 3 --only latency"
	benches/install curves
	$(CARGO) bench --locked --profile dist --bench bench -- curves --worker "$(CURDIR)/$<" $(ARGS)

# As it is shipped. Cargo gives the worker that it builds with benches what tests ask of its dependencies, and puts it in the same
# place: this one is put elsewhere.
.PHONY: target/bench/worker
target/bench/worker: toolchain
	$(CARGO) build --locked --profile dist --bin crm-event-processors
	install -D "$${CARGO_TARGET_DIR:-target}/dist/crm-event-processors" $@

instructions: toolchain ## count the instructions of decode, route, decide and serialise; exits 1 where there are more; ARGS=--accept
	benches/install instructions
	$(CARGO) bench --locked --bench instructions -- $(ARGS)

plots: toolchain ## draw what `make bench` and `make curves` measured, for docs/performance.md
	$(CARGO) bench --locked --profile dist --bench bench -- plots $(ARGS)

soak: toolchain ## the worker under load and disturbances: flat memory, balanced books; ARGS="--minutes 2"
	benches/install
	$(CARGO) bench --locked --bench bench -- soak $(ARGS)

chaos: toolchain ## break everything that two workers need, under load, on real servers; ARGS="--minutes 2 --seed 7"
	benches/install chaos
	$(CARGO) bench --locked --bench bench -- chaos $(ARGS)

fuzz: toolchain ## look for bytes that break a promise, 10 minutes a target; ARGS="--minutes 2 --target envelope"
	fuzz/run $(ARGS)

stack-up: ## start Kafka, Kafka Connect with Debezium, PostgreSQL and Redis, all local and real
	stack/up

stack-down: ## stop what stack-up started
	stack/down

fixtures: ## record the Debezium fixtures again
	stack/record-fixtures

toolchain:
	@stack/toolchain
