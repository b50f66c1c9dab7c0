# Paths stay relative, so that a checkout path may hold spaces.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SHELL := bash

# ROS 2 where it is installed, unless one is sourced already: the nodes' tests run with it, and are skipped without.
ROS_SETUP := $(firstword $(wildcard /opt/ros/jazzy/setup.bash /opt/ros/*/setup.bash))
ROS := $(if $(ROS_DISTRO),,$(if $(ROS_SETUP),source $(ROS_SETUP) &&))
# Its Python packages use some of the system's, such as PyYAML.
VENV_OPTIONS := $(if $(ROS_DISTRO)$(ROS_SETUP),--system-site-packages)
COLCON := $(or $(shell command -v colcon),build/colcon/bin/colcon)
# Two more than cores, since tests of processes wait a lot. At most 5: each takes nearly a gigabyte.
TEST_PROCESSES ?= $(shell n=$$(( $$(getconf _NPROCESSORS_ONLN) + 2 )); echo $$(( n < 5 ? n : 5 )))
PYTEST := $(BIN)/python -m pytest --numprocesses=$(TEST_PROCESSES) --dist=loadgroup
SOAK_MINUTES ?= 30

DEMONSTRATIONS ?= data/pusht_cchi_v7_replay.zarr
FUZZ_CASES ?= 10000
FUZZ_SEED ?= 0

.PHONY: run test ros-test soak seams fuzz results check clean

run: $(VENV)/.installed  ## Evaluate the shipped policy on 10 held-out episodes
	$(BIN)/python -m training.evaluation.evaluate sampler.method=sequential sampler.solver=dpmpp_2m sampler.steps=5 \
		episodes=10 max_steps=300 batch_size=1 output_dir=outputs/run

# The tests' networks are tiny: more threads would only wait for each other.
test ros-test fuzz: export OMP_NUM_THREADS := 1

test: $(VENV)/.installed-test  ## The whole test suite
	$(ROS) $(PYTEST)

ros-test: $(VENV)/.installed-test $(COLCON)  ## Build with colcon, then test the nodes as they are installed
	$(if $(ROS_DISTRO)$(ROS_SETUP),,$(error ros-test needs ROS 2, sourced or under /opt/ros))
	$(ROS) $(COLCON) --log-base build/ros/log build --base-paths . \
		--build-base build/ros/build --install-base build/ros/install
	$(ROS) source build/ros/install/setup.bash && PATH="$$PATH:$$PWD/build/colcon/bin" $(PYTEST) tests/ros_nodes

soak: $(VENV)/.installed  ## Half an hour of episodes in real time, watched; or EPISODES=…, SOAK_MINUTES=…, ARGUMENTS="solver:=…"
	$(if $(ROS_DISTRO)$(ROS_SETUP),,$(error soak needs ROS 2, sourced or under /opt/ros))
	$(ROS) $(BIN)/python -m ros_nodes.soak --output-dir outputs/soak \
		$(if $(EPISODES),--episodes $(EPISODES),--minutes $(SOAK_MINUTES)) $(ARGUMENTS)

seams: $(VENV)/.installed  ## Velocity jumps through joint_trajectory_controller, which ros2_control must be there for
	$(if $(ROS_DISTRO)$(ROS_SETUP),,$(error seams needs ROS 2, sourced or under /opt/ros))
	$(ROS) $(BIN)/python -m ros_nodes.seams

fuzz: $(VENV)/.installed-test  ## Faults injected into files, arguments and messages; or FUZZ_CASES=…, FUZZ_SEED=…
	$(ROS) $(BIN)/python -m tests.fuzz --cases $(FUZZ_CASES) --seed $(FUZZ_SEED) $(ARGUMENTS)

results: $(VENV)/.installed-test $(DEMONSTRATIONS)  ## Every table again, hours; or ARGUMENTS="plan=true", "only=[rivals]"
	$(BIN)/python -m training.benchmark.results demonstrations=$(DEMONSTRATIONS) $(ARGUMENTS)

data/pusht_cchi_v7_replay.zarr: | $(VENV)/.installed
	$(BIN)/python -m training.data.download_demonstrations output_dir=data

check: $(VENV)/.installed-test  ## Format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

$(VENV)/.installed: setup.py pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV_OPTIONS) $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[train]' --constraint constraints.txt
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[test]' --constraint constraints.txt
	touch $@

build/colcon/bin/colcon:
	$(PYTHON) -m venv build/colcon
	build/colcon/bin/python -m pip install --quiet colcon-core colcon-ros colcon-package-information colcon-bash

clean:  ## Remove the environment and what it built; outputs/ stays
	rm -rf $(VENV) build *.egg-info
