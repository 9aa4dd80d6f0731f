# make quickstart: a model of dish scenes from nothing, in about ten minutes. make test: the whole suite.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PARITY := .venv-parity
BENCH := .venv-bench
AOT := .venv-aot

.PHONY: quickstart test soak parity compile-matrix tpu-kernels bench lint clean

quickstart: $(VENV)/.installed
	$(BIN)/python main.py --config=configs/quickstart.py --workdir=runs/quickstart

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest tests -n auto --maxprocesses 8 --dist loadgroup --durations=50 --durations-min=3

# The long form of the fault and bad-input tests: kills, signals, bit rot, full disks at random moments.
soak: $(VENV)/.installed-test
	$(BIN)/python -m pytest tests/faults tests/bad_input tests/data/test_damage.py --soak

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Checks against torch implementations, in an environment of their own.
parity: $(PARITY)/.installed
	$(PARITY)/bin/python -m pytest parity

# For TPU pods and GPUs that are not here, with their real compilers: kernels, then every config on every topology.
# MATRIX=--quick: each config for the topology that it names.
compile-matrix: $(AOT)/.installed
	$(AOT)/bin/python -m pytest tests/aot tests/kernels/test_tpu_compiled.py tests/invariants/test_docs.py \
		-k "aot or tpu_compiled or compile.md" -n 2 --dist worksteal
	$(AOT)/bin/python benchmarks/compile_matrix.py $(MATRIX)

# The table of docs/tpu-kernels.md.
tpu-kernels: $(AOT)/.installed
	$(AOT)/bin/python benchmarks/tpu_kernels.py

# Speed as ratios to peers, and memory, in an environment of their own. The first one needs FOODDIT_PHOTOS=DIR.
bench: $(BENCH)/.installed
ifdef FOODDIT_PHOTOS
	$(BENCH)/bin/python benchmarks/input_pipeline.py
else
	@echo "benchmarks/input_pipeline.py is left out: FOODDIT_PHOTOS is not set"
endif
	$(BENCH)/bin/python benchmarks/train_step.py
	$(BENCH)/bin/python benchmarks/generation.py
	$(BENCH)/bin/python benchmarks/startup.py
	$(BENCH)/bin/python benchmarks/memory.py
	$(BENCH)/bin/python benchmarks/prepare_memory.py

$(VENV)/.installed: setup.py constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install -q -c constraints.txt -e .[gcs,prep,studio,test]
	touch $@

$(PARITY)/.installed: parity/requirements.txt parity/requirements-references.txt constraints.txt setup.py
	test -x $(PARITY)/bin/python || $(PYTHON) -m venv $(PARITY)
	$(PARITY)/bin/python -m pip install -q -c constraints.txt -r parity/requirements.txt -e .[test]
	$(PARITY)/bin/python -m pip install -q --no-deps --upgrade --target $(PARITY)/references -r parity/requirements-references.txt
	touch $@

$(BENCH)/.installed: benchmarks/requirements.txt constraints.txt setup.py
	test -x $(BENCH)/bin/python || $(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install -q -c constraints.txt -r benchmarks/requirements.txt -e .[prep]
	touch $@

# jax-cuda13-plugin without the CUDA libraries that a GPU would need: 3 GB less, and the compiler is all there is to run.
$(AOT)/.installed: setup.py constraints.txt
	test -x $(AOT)/bin/python || $(PYTHON) -m venv $(AOT)
	$(AOT)/bin/python -m pip install -q -c constraints.txt -e .[aot,test]
	$(AOT)/bin/python -m pip install -q -c constraints.txt --no-deps jax-cuda13-plugin jax-cuda13-pjrt
	touch $@

clean:
	rm -rf $(VENV) $(PARITY) $(BENCH) $(AOT) *.egg-info
