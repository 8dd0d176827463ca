# The environment of requirements.lock, for a clone that is mounted at /project (docs/containers.md):
#   docker build -t cardium .                         a CPU's
#   docker build -t cardium:gpu --build-arg GPU=1 .   with NVIDIA's libraries
#   docker run --rm -it --user "$(id -u):$(id -g)" -v "$PWD:/project" cardium cardium demo
FROM python:3.11-slim-bookworm

ARG GPU=""

# git: for the commit that a run is recorded with, and for DVC.
RUN apt-get update && apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/* \
    && git config --system --add safe.directory /project

WORKDIR /opt/cardium
COPY requirements.lock ./
# As `make setup` does it: uv first, from the lock, hashes and all; then what the lock holds and nothing else.
RUN python -m venv .venv \
    && sed -n '/^uv==/,/^[^ ]/{/^uv==/p;/^    --hash/p;}' requirements.lock > uv.txt \
    && .venv/bin/python -m pip install --quiet --no-cache-dir --require-hashes -r uv.txt \
    && VIRTUAL_ENV=.venv .venv/bin/uv pip sync --quiet --no-cache --compile-bytecode --require-hashes requirements.lock \
    && if [ -n "$GPU" ]; then \
         VIRTUAL_ENV=.venv .venv/bin/uv pip install --quiet --no-cache \
           "tensorflow[and-cuda]==$(sed -n 's/^tensorflow==\([0-9.]*\).*/\1/p' requirements.lock)"; \
       fi \
    && printf '#!/bin/sh\nexec python -m cardium "$@"\n' > .venv/bin/cardium \
    && chmod +x .venv/bin/cardium

# The mounted clone's own code runs, so that the code that DVC and git see is the code that made a result.
ENV PATH=/opt/cardium/.venv/bin:$PATH PYTHONPATH=/project/src PYTHONUNBUFFERED=1 TF_CPP_MIN_LOG_LEVEL=3 HOME=/tmp
WORKDIR /project
USER 1000:1000
CMD ["cardium", "--help"]
