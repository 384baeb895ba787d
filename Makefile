# Thin front door: each target is one Invoke task (see: make help, or .venv/bin/invoke --list).
# ENVIRONMENT chooses configs/environments/<name>.yaml, RUNTIME where servers run (process, docker);
# OPTIONS are handed on as they are.
ENVIRONMENT ?= $(or $(OMNIKIT_ENVIRONMENT),local)
OPTIONS ?=
RUNTIME ?=
PYTHON ?= python3
VENV := .venv
# What is said to this make is not for another that a task starts (make bench; builds from source).
OURS := MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES MAKE_TERMOUT MAKE_TERMERR \
  OPTIONS RUNTIME ENVIRONMENT PYTHON
INVOKE := env $(addprefix -u ,$(OURS)) $(VENV)/bin/invoke
STAMP := $(VENV)/.toolkit-installed
DEV_STAMP := $(VENV)/.toolkit-dev-installed

export OMNIKIT_ENVIRONMENT := $(ENVIRONMENT)

.DEFAULT_GOAL := help
.PHONY: help deploy plan status stop restart logs smoke-test config test test-fast lint docs bench clean

help: $(STAMP) ## show what there is
	@$(INVOKE) --list

deploy plan status stop restart logs smoke-test config: $(STAMP)
	@$(INVOKE) $@ $(if $(RUNTIME),--set runtime=$(RUNTIME)) $(OPTIONS)

test test-fast lint docs bench: $(DEV_STAMP)
	@$(INVOKE) $@ $(OPTIONS)

clean: ## stop what runs, then remove what was built or installed inside this folder
	@for agent in build/*/scripts/host_agent.py; do \
	  [ ! -e "$$agent" ] || $(PYTHON) "$$agent" stop --remove >/dev/null || exit 1; \
	done
	rm -rf -- build $(VENV)

$(STAMP): requirements.txt scripts/setup_toolkit.sh
	@PYTHON=$(PYTHON) bash scripts/setup_toolkit.sh $(VENV)
	@touch $@

$(DEV_STAMP): requirements-dev.txt scripts/setup_toolkit.sh
	@PYTHON=$(PYTHON) bash scripts/setup_toolkit.sh --dev $(VENV)
	@touch $@ $(STAMP)
