# The workflow, with the versions that pyproject.toml pins. Build and use it: docs/container.md.
FROM python:3.11-slim-bookworm

# https://download.pytorch.org/whl/cpu gives torch without CUDA.
ARG PIP_EXTRA_INDEX_URL=""

WORKDIR /opt/safety-regions
COPY . .
RUN pip install --no-cache-dir --editable .

# Snakemake and the Hub write below these folders; the home of an unknown user cannot be written.
ENV XDG_CACHE_HOME=/tmp/cache HF_HOME=/study/.huggingface
WORKDIR /study
ENTRYPOINT ["snakemake", "--snakefile", "/opt/safety-regions/Snakefile"]
CMD ["--help"]
