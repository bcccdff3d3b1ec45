# Not built yet: no Docker daemon ran where this file was written.
#
# CPU:   docker build -t alexnet .
#        docker run --rm -v "$PWD/runs:/alexnet/runs" alexnet
# CUDA:  docker build -t alexnet --build-arg BASE=nvidia/cuda:13.0.1-base-ubuntu24.04 .
#        docker run --rm --gpus all --shm-size 1g -v "$PWD/runs:/alexnet/runs" alexnet
#
# The default command is `make figure1`. Any other takes its place: docker run ... alexnet .venv/bin/alexnet-train --help
ARG BASE=ubuntu:24.04
FROM ${BASE}

# gcc and python3-dev: on a GPU, Triton compiles the normalisation. git: run.json names the commit.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        ca-certificates gcc git libc6-dev make python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /alexnet
COPY . .
RUN make .venv/.ok

CMD ["make", "figure1"]
