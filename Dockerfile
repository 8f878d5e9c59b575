# docker build -t fmrisynth .                              CPU
# docker build -t fmrisynth:cuda --build-arg DEVICE=cuda . CUDA
#
# BASE_IMAGE     a slim Python >= 3.11
# DEVICE         cpu: a CPU build of torch where pip finds one, else the index's own build, which
#                also runs without a GPU but is several times larger; cuda: the index's own build
# TORCH_PIP_ARGS more arguments for the pip call that installs torch, such as where to find a build
ARG BASE_IMAGE=python:3.12-slim-bookworm

FROM ${BASE_IMAGE} AS build
ARG DEVICE=cpu
ARG TORCH_PIP_ARGS=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python3 -m venv /opt/fmrisynth
ENV PATH=/opt/fmrisynth/bin:${PATH}
COPY constraints.txt ./
# `===` compares text: it leaves out builds with a label such as +cpu
RUN version="$(sed -n 's/^torch==//p' constraints.txt)" \
    && case "${DEVICE}" in \
        cpu) pip install ${TORCH_PIP_ARGS} "torch==${version}+cpu" \
            || pip install ${TORCH_PIP_ARGS} "torch==${version}" ;; \
        cuda) pip install ${TORCH_PIP_ARGS} "torch===${version}" ;; \
        *) echo "DEVICE is ${DEVICE}; expected cpu or cuda" >&2; exit 64 ;; \
    esac
COPY pyproject.toml README.md LICENSE ./
COPY fmrisynth fmrisynth
# a project that only runs needs no installer: pip is removed at the end
RUN pip install --constraint constraints.txt ".[validator]" \
    && python -m pip uninstall --yes pip \
    && cp LICENSE /opt/fmrisynth/LICENSE
# TemplateFlow's atlas where the network has it: two files for each space. 69 says that it does not
# answer; the app works without. What its client makes besides, thousands of stubs, stays here.
RUN { TEMPLATEFLOW_HOME=/src/templateflow python -P -m fmrisynth.evaluation.runs.atlas /opt/templateflow \
        || [ $? -eq 69 ]; } \
    && chmod -R a+rX /opt/templateflow

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="fmrisynth" \
      org.opencontainers.image.description="Learns task fMRI from a BIDS dataset and writes synthetic runs" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/fmrisynth /opt/fmrisynth
COPY --from=build /opt/templateflow /opt/templateflow
# Nothing in HOME counts, since any user may run this and Apptainer brings the host's HOME along.
# Caches go to /tmp, the one place that is writable when the root is not. Not so that of deno, which
# runs the BIDS validator: it holds code, and Apptainer's /tmp is open to all users of the host. It
# has to be named, or deno stops where there is no HOME; where nobody can write, deno does without.
ENV PATH=/opt/fmrisynth/bin:${PATH} \
    PYTHONNOUSERSITE=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MPLCONFIGDIR=/tmp/matplotlib \
    DENO_DIR=/opt/fmrisynth/deno \
    DENO_NO_UPDATE_CHECK=1 \
    TEMPLATEFLOW_HOME=/opt/templateflow \
    TEMPLATEFLOW_AUTOUPDATE=0
ENTRYPOINT ["/opt/fmrisynth/bin/fmrisynth"]
