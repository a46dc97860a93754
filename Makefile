# What to do with sagamq: `make demo` to see it, `make bench` to measure it, `make test` to trust it, `make run` to use it.

# dist runs faster than release and takes longer to build: it is shipped and measured. dev compiles faster, and
# shares its work with the tests.
PROFILE ?= release
bench scale: PROFILE = dist
CARGO ?= cargo
folder = $(if $(filter dev,$(PROFILE)),debug,$(PROFILE))

.PHONY: help demo bench scale smoke micro flame test torture test-brokers run lint check

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16 | sed 's/^/make /'

demo: ## run order sagas of eight fates over a RabbitMQ and show them live
	@scripts/setup demo
	$(CARGO) build --profile $(PROFILE) --locked --bin sagamq --examples
	target/$(folder)/sagamq demo

# Further flags, such as --pairs 11 or --in-flight 500: target/dist/sagamq bench --help tells them.
BENCH_FLAGS ?=

bench: ## measure sagamq against a null orchestrator, over a RabbitMQ that does nothing else
	@scripts/setup demo
	$(CARGO) build --profile $(PROFILE) --locked --bin sagamq
	target/$(folder)/sagamq bench --folder target --json target/bench.json --svg target/bench.svg $(BENCH_FLAGS)

scale: ## measure sagamq over 1,000,000 finished instances, and with 100,000 in flight
	@scripts/setup demo
	$(CARGO) build --profile $(PROFILE) --locked --bin sagamq
	target/$(folder)/sagamq bench --folder target --finished 1000000 --open 100000 --json target/scale.json $(BENCH_FLAGS)

smoke: ## tell what a saga costs, in a moment; fails where commits, syncs, messages or bytes have grown
	@scripts/setup test
	$(CARGO) test --locked --test bench -- --nocapture a_saga_stay_within a_commit_is

# A part of a name, such as commit or transition::reply, picks what is measured.
MICRO ?=

micro: ## measure each part of the way of a delivery by itself, in seconds and without a broker
	@scripts/setup build
	$(CARGO) bench --locked --bench micro -- $(MICRO)

flame: ## draw where the orchestrator spends its time, to target/flame.svg; needs perf
	@scripts/setup demo
	@scripts/flame

test: ## run all tests, with a throw-away RabbitMQ of their own
	@scripts/setup test
	$(CARGO) test --locked
	$(CARGO) test --locked --features faults --test faults --test planted

# How long the torture goes on, in minutes; the release figures are for 20 and more.
TORTURE_MINUTES ?= 20

torture: ## kill, cut off and cut the power of everything for TORTURE_MINUTES, and report; needs root
	@scripts/setup test
	LIMIT_TIMES=50 $(CARGO) test --locked --test cli in_a_row
	TORTURE_MINUTES=$(TORTURE_MINUTES) $(CARGO) test --locked --features faults --test faults torture -- --nocapture

# What runs against each version, and where the further versions are.
BROKER_TESTS ?= --features faults --test faults matrix
BROKERS ?= target/brokers

test-brokers: ## run the fault tests against every version of RabbitMQ; needs root, and Debian's mirror
	@scripts/setup test
	@scripts/brokers $(BROKERS)
	@for root in '' $(BROKERS)/trixie $(BROKERS)/sid; do \
	    echo "== RabbitMQ $$(cat "$$root/rabbitmq-version" 2>/dev/null || echo 'as installed')"; \
	    SAGAMQ_TEST_BROKER_ROOT=$$root $(CARGO) test --locked $(BROKER_TESTS) || exit 1; \
	done

run: ## run the orchestrator against your broker (SAGAMQ_BROKER__URL or sagamq.yaml)
	@scripts/setup build
	$(CARGO) run --profile $(PROFILE) --locked --bin sagamq -- run

lint: ## check format, lints, licences and advisories
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --locked -- -D warnings
	$(CARGO) clippy --all-targets --locked --features faults -- -D warnings
	@scripts/deny

check: lint test ## all that a change must pass
