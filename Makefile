# A thin front over CMake, pip and the tools; everything it installs goes into $(VENV).
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BUILD := build/release
SECONDS ?= 3600
# The oldest, a middle and the newest PyTorch of the wheel.
SERIES ?= 2.11 2.13 2.15
bin := $(VENV)/bin
# Without the flags of make: ninja would look for its job server, which recipes do not get.
with_tools := MAKEFLAGS= PATH="$(abspath $(bin)):$$PATH"
stamp := $(VENV)/.spgrad
sudo := $(if $(filter 0,$(shell id -u)),,sudo)
cuda_seconds := $(if $(filter command line,$(origin SECONDS)),--seconds $(SECONDS))
# Sources whose change asks for a new installation.
sources := $(shell find CMakeLists.txt cmake include src python -type f -not -name '*.pyc')

.PHONY: help system-packages demo demo-distributed bench bench-quick bench-distributed bench-cuda sweep-cuda performance-pages check test release-check test-cuda run-cuda soak fuzz coverage mutation docs gallery linkcheck lint format clean install wheel sdist test-wheel test-sdist

# The table of CONTRIBUTING.md: what to type, and what for.
help:
	@sed -n '/^|---|/,/^$$/s/^| \(.*\) | \(.*\) |$$/\1:\n    \2\n/p' CONTRIBUTING.md | tr -d '`'

$(stamp)-tools: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(bin)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(bin)/python -m pip install --quiet --group tools
	touch $@

$(stamp)-environment: $(stamp)-tools
	$(bin)/python -m pip install --progress-bar on --group test
	touch $@

# The kernels need no PyTorch: the first time, they are compiled while it is downloaded.
$(stamp)-kernels: $(stamp)-tools
	$(with_tools) cmake --preset release -DSPGRAD_TORCH=OFF -DSPGRAD_TESTS=OFF
	$(with_tools) cmake --build $(BUILD) --target spgrad_kernels
	touch $@

$(stamp)-installed: $(stamp)-environment $(stamp)-kernels $(sources)
	$(with_tools) $(bin)/python -m pip install --verbose --no-deps --no-build-isolation --force-reinstall \
	  -C build-dir=$(BUILD) -C cmake.define.SPGRAD_TORCH=ON -C cmake.define.SPGRAD_WERROR=ON .
	touch $@

install:
	@$(MAKE) --no-print-directory --jobs=2 $(stamp)-installed

# What `make test` skips where it may: the sanitized tests and the pages on C++.
packages := clang doxygen libclang-rt-dev libomp-dev
system-packages:
	dpkg --status $(packages) > /dev/null 2>&1 || { $(sudo) apt-get update && $(sudo) apt-get install --yes $(packages); }

# Small runs, for two minutes in all.
demo: install
ifndef MATRIX
	$(bin)/python -m examples.digits --quick
	$(bin)/python -m examples.tomography --quick
endif
	$(bin)/python -m benchmarks.comparison $(if $(MATRIX),--matrix "$(MATRIX)",--quick)
	@echo
	@echo "Pictures: $(abspath demo-output)"
	@ls demo-output
	@echo
	@echo "Read next: docs/start.md (which function do I need), docs/switching.md (from other libraries);"
	@echo "further examples: python -m examples.graph_network, examples.precision_matrix, examples.preconditioner;"
	@echo "make docs builds all of it as a site."

demo-distributed: install
	$(bin)/python -m examples.colours

bench: install
	$(bin)/python -m benchmarks.operator $(if $(MATRIX),--matrix "$(MATRIX)")
	$(if $(MATRIX),,$(bin)/python -m benchmarks.operator.columns)
	$(if $(MATRIX),,$(bin)/python -m benchmarks.least_squares)
	$(if $(MATRIX),,$(bin)/python -m benchmarks.graphs)

bench-quick: install
	$(bin)/python -m benchmarks.operator --quick $(if $(MATRIX),--matrix "$(MATRIX)")
	$(if $(MATRIX),,$(bin)/python -m benchmarks.operator.columns --quick)
	$(if $(MATRIX),,$(bin)/python -m benchmarks.least_squares --quick)
	$(if $(MATRIX),,$(bin)/python -m benchmarks.graphs --quick)

bench-distributed: install
	$(bin)/python -m benchmarks.distributed
	$(bin)/python -m benchmarks.distributed.one_rank
	$(bin)/python -m benchmarks.distributed.memory
	OMP_NUM_THREADS=1 $(bin)/python -m torch.distributed.run --standalone --nproc-per-node=2 \
	  -m benchmarks.distributed.plan
	$(bin)/python -m benchmarks.distributed.network
	$(bin)/python -m benchmarks.distributed.validate
	$(bin)/python -m benchmarks.distributed.scaling

bench-cuda: install
	$(bin)/python -m benchmarks.operator.cuda --output benchmark-output/cuda.json $(cuda_seconds)

# The kernels are compiled by the sweep itself.
sweep-cuda: $(stamp)-environment
	$(bin)/python -m benchmarks.kernels.cuda_sweep --output benchmark-output/cuda-sweep.json $(cuda_seconds)

performance-pages: install
	$(bin)/python -m benchmarks.operator.pages

check: install
	$(with_tools) $(bin)/python tests/run.py --check

test: install
	$(with_tools) $(bin)/python tests/run.py

test-cuda: install
	$(bin)/python tests/cuda/run.py --output build/cuda --steps sanity,ranks,tests,memcheck,racecheck \
	  --scale 10 --seconds 3600

run-cuda: install
	$(bin)/python tests/cuda/run.py --output build/cuda

soak: install
	$(bin)/python -m pytest tests/python/test_training.py -k memory_stays_flat --steps=20000 -v -s

release-check: test
	$(with_tools) $(bin)/python tests/run.py --long
	$(MAKE) soak coverage mutation fuzz wheel test-wheel test-sdist

# What it finds lies beside the targets in build/fuzz/tests/kernels/cpu/fuzz.
fuzz: $(stamp)-environment
	$(with_tools) cmake --preset fuzz -DSPGRAD_FUZZ_SECONDS=$(SECONDS)
	$(with_tools) cmake --build --preset fuzz
	$(with_tools) ctest --preset fuzz --parallel 2 --verbose

# The tools of one command only, beside those of all tests.
$(stamp)-environment-%: $(stamp)-environment
	$(bin)/python -m pip install --progress-bar on --group $*
	touch $@

coverage: $(stamp)-environment-coverage
	$(with_tools) $(bin)/python tests/measure_coverage.py

mutation: $(stamp)-environment-mutation
	$(with_tools) $(bin)/python tests/mutation/run.py $(FILES)

docs: install
	$(with_tools) $(bin)/python tests/run.py --only docs
	@echo "open file://$(abspath build/docs/html/index.html)"

gallery: install
	$(bin)/python -m sphinx --fail-on-warning --keep-going --quiet --tag full docs build/docs/html
	@echo "open file://$(abspath build/docs/html/examples/index.html)"

linkcheck: install
	$(bin)/python -m sphinx --builder linkcheck --keep-going --quiet docs build/docs/linkcheck

# The PyTorchs of the wheel are downloaded, where VENV has another one or none; its tools suffice.
$(stamp)-wheel: $(stamp)-tools
	$(bin)/python -m pip install --progress-bar on --group wheel
	touch $@

wheel: $(stamp)-wheel
	$(with_tools) $(bin)/python cmake/make_wheel.py

sdist: $(stamp)-wheel
	$(bin)/python -m build --sdist --no-isolation

test-wheel: $(stamp)-wheel
	$(with_tools) $(bin)/python tests/wheel/run.py --python "$(PYTHON)" $(SERIES)

test-sdist: install sdist
	$(with_tools) $(bin)/python -m pip install --no-index --no-deps --no-build-isolation --upgrade \
	  --no-cache-dir --no-binary spgrad --find-links dist --target build/sdist spgrad
	PYTHONPATH=build/sdist $(bin)/python tests/wheel/program.py

lint: $(stamp)-environment
	$(with_tools) $(bin)/python tests/run.py --only lint

format: $(stamp)-environment
	git ls-files '*.cpp' '*.h' '*.cuh' | xargs $(bin)/clang-format -i
	$(bin)/ruff check --fix --quiet
	$(bin)/ruff format

clean:
	rm -rf build demo-output benchmark-output $(stamp)-installed
