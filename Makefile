# make demo: everything once, from a fresh clone to meshes.  make test: every test.  make help: the rest.
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed
PINS   := .ci/constraints.txt
TORCH  := $(shell grep '^torch==' $(PINS))
PIP    := PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check
HAVE_VOILA = $(BIN)/python -c 'import voila' 2>/dev/null || $(PIP) -c $(PINS) -e '.[app]' || $(PIP) -e '.[app]'
RECENT := import sys; sys.exit(sys.version_info < (3, 11))
WORKERS ?= 2
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do $$p -c '$(RECENT)' 2>/dev/null && echo $$p && break; done)

.PHONY: help demo results test test-diffusion campaign fuzz photo app bench bench-mesh bench-back bench-photo profile sheet back weights lab doctor clean

help:
	@echo "make demo       build a dataset of procedural people, train on it, reconstruct people nobody trained on"
	@echo "make results    write the numbers of the finished demo, with commit, machine and date, to data/results.json"
	@echo "make test       run every test"
	@echo "make campaign   the tests that run for minutes: 200 kills, 10,000 pickles"
	@echo "make fuzz       read 10,000 damaged files of every format, each within limits of time and memory: minutes"
	@echo "make test-diffusion  install diffusers and transformers, and test the latent diffusion with tiny networks"
	@echo "make photo      what photos need: MediaPipe's networks (53 MB, once) and their runner"
	@echo "make app        the workbench for one photo as a page in the browser, on this machine only"
	@echo "make bench      what distances, views, a subject and reading cost on this machine, other libraries beside them"
	@echo "make bench-mesh what surfaces, textures and their numbers cost, with the newest model"
	@echo "make bench-back what generated backs are worth: images and meshes of held-out people"
	@echo "make bench-photo what each step from a picture to a mesh costs: fitted bodies and painted backs beside true ones"
	@echo "make profile    where the time of a training step goes, on the data set of the demo"
	@echo "make sheet      the first 48 procedural people on one picture, nbs/people_sheet.jpg"
	@echo "make back       train the network that paints backs, on the data set of the demo: about 10 minutes"
	@echo "make weights    train the weights of data/models/recon again: about an hour, in legs of any length"
	@echo "make lab        open JupyterLab on the data explorer"
	@echo "make doctor     what this machine has, and what is missing"
	@echo "make clean      remove the environment and caches; data/ and outputs/ stay"

demo: $(READY)
	@$(BIN)/python -m recon.tools.demo

results: $(READY)
	@$(BIN)/python -m recon.tools.demo results

test: $(READY)
	@$(HAVE_VOILA) || echo "The tests of the page are left out: Voila cannot be installed."
	@$(BIN)/pytest nbs/tests -n $(WORKERS) --dist loadfile

fuzz: $(READY)
	@$(BIN)/python nbs/tests/fuzz.py 10000

test-diffusion: $(READY)
	@$(PIP) -c $(PINS) -e '.[diffusion]' || $(PIP) -e '.[diffusion]'
	@$(BIN)/pytest nbs/tests/test_back.py -k "diffusion or projection"
	@for name in back/sith training/diffusion training/back_estimate tools/speed_back; do \
	  $(BIN)/nbdev_test --path nbs/$$name.ipynb --do_print || exit 1; done

campaign: $(READY)
	@$(BIN)/pytest nbs/tests -m campaign

photo: $(READY)
	@$(PIP) -c $(PINS) -e '.[photo]' || $(PIP) -e '.[photo]'
	@$(BIN)/python -m recon.photo.weights

app: $(READY)
	@$(HAVE_VOILA)
	@$(BIN)/python -m recon.app.serve $(OPTIONS)

bench: $(READY)
	@$(BIN)/python -m recon.tools.bench

bench-mesh: $(READY)
	@$(BIN)/python -m recon.tools.bench_mesh

bench-back: $(READY)
	@$(BIN)/python -m recon.tools.bench_back

bench-photo: photo
	@$(BIN)/python -m recon.tools.bench_photo

profile: $(READY)
	@$(BIN)/python -m recon.tools.profile

sheet: $(READY)
	@$(BIN)/python -m recon.tools.sheet

back: $(READY)
	@$(BIN)/papermill --cwd . nbs/02_train_hallucinate.ipynb outputs/02_train_hallucinate.ipynb

weights: $(READY)
	@$(BIN)/python -m recon.tools.weights

lab: $(READY)
	@$(BIN)/jupyter lab nbs/explore_data.ipynb

doctor: $(READY)
	@$(BIN)/python -m recon.tools.doctor

clean:
	rm -rf $(VENV) build recon.egg-info .pytest_cache .ruff_cache

# Done again when the packages asked for change. Without an NVIDIA GPU, torch comes from its own index of CPU builds,
# a tenth of the size; where that index cannot be reached, from wherever pip looks.
$(READY): settings.ini setup.py pyproject.toml $(PINS)
	@test -n "$(PYTHON)" && $(PYTHON) -c '$(RECENT)' || { \
	  echo "recon needs Python 3.11 or later, and $(or $(PYTHON),python3) is $$($(or $(PYTHON),python3) --version 2>&1 | head -1). Try: make demo PYTHON=/path/to/python3.12"; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { rm -rf $(VENV) && $(PYTHON) -m venv $(VENV); } || { \
	  rm -rf $(VENV); echo "Python's venv module is incomplete; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "Installing torch and the other packages into $(VENV), once: 1 to 6 minutes, 2 to 6 GB ..."
	@if command -v nvidia-smi >/dev/null; then $(PIP) $(TORCH); else \
	  $(PIP) --no-deps --retries 0 --timeout 15 --index-url https://download.pytorch.org/whl/cpu $(TORCH) 2>/dev/null || $(PIP) $(TORCH); fi
	@$(PIP) -c $(PINS) -e '.[dev,photo]' || { echo "The pinned versions do not suit this machine; taking the ranges of settings.ini."; $(PIP) -e '.[dev]'; }
	@$(BIN)/python -m recon.photo.weights || echo "Photos need these networks: type \`make photo\` when the registry can be reached. All else works."
	@touch $@
	@echo "Installed."
