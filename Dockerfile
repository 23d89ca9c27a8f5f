# dia-server in a container, run by an unprivileged user; see docs/operations.md.
#
#   docker build --target gpu -t dia-server:gpu .
#   docker build --target cpu -t dia-server:cpu .
#
# Both install the PyTorch of constraints.txt. PyPI has its CUDA build; the argument TORCH_INDEX names an
# index with other builds, such as PyTorch's for CPUs, which saves gigabytes. The argument EXTRAS names further extras
# of pyproject.toml, separated by spaces: EXTRAS=cluster adds Ray.

FROM python:3.11-slim AS build
ARG TORCH_INDEX=""
ARG EXTRAS=""
WORKDIR /build
RUN python -m venv /opt/dia-server
# dependencies in their own layer: they take gigabytes and rarely change
COPY pyproject.toml constraints.txt ./
RUN python -c 'import sys, tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; e = p["optional-dependencies"]; print(*p["dependencies"], *(line for name in dict.fromkeys(["postgres", "storage", *sys.argv[1:]]) for line in e[name]), sep="\n")' $EXTRAS > requirements.txt
RUN /opt/dia-server/bin/pip install --no-cache-dir --disable-pip-version-check \
    --constraint constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} --requirement requirements.txt
COPY README.md LICENSE ./
COPY src src
COPY migrations migrations
RUN /opt/dia-server/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps .
# with this file the server does not warn that it listens everywhere: --publish decides which machines connect
RUN touch /opt/dia-server/container-image

FROM python:3.11-slim AS base
RUN useradd --uid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin dia \
    && install --directory --owner dia --group dia /data
COPY --from=build /opt/dia-server /opt/dia-server
ENV PATH="/opt/dia-server/bin:$PATH" \
    PYTHONUNBUFFERED=1 \
    DIA_HOST=0.0.0.0 \
    DIA_PORT=7860 \
    DIA_DATA_DIR=/data \
    HF_HOME=/data/huggingface \
    NUMBA_CACHE_DIR=/data/cache/numba \
    TRITON_CACHE_DIR=/data/cache/triton \
    TORCHINDUCTOR_CACHE_DIR=/data/cache/inductor
WORKDIR /data
VOLUME /data
EXPOSE 7860
USER dia
# liveness, not readiness: a server may download its model for an hour
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['DIA_PORT'] + '/health/live', timeout=4)"]
ENTRYPOINT ["dia-server"]
CMD ["serve"]

FROM base AS cpu

FROM base AS gpu
USER root
# Triton compiles a small launcher for each of its kernels
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
USER dia
