# FAISS Memory in a container; see docs/docker.md. `docker compose up -d` builds and runs it.
# For amd64 and arm64: every locked package has a wheel for both.

# The locked packages, each checked by its hash.
FROM docker.io/library/python:3.11-slim AS packages
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends binutils tini \
 && rm -rf /var/lib/apt/lists/*
RUN /usr/local/bin/python3 -m venv --symlinks /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /build
COPY requirements.lock ./
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --quiet --no-compile --require-hashes -r requirements.lock

# The model: fetched, checked, its graphs built. Serving needs the graphs and not the weights.
FROM packages AS model
COPY engine ./engine
COPY scripts/__init__.py scripts/setup_model.py ./scripts/
COPY scripts/model ./scripts/model
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m scripts.setup_model --model-dir /opt/model \
 && rm /opt/model/model.safetensors /opt/model/.lock

# This project's own code.
FROM packages AS project
COPY requirements-build.lock pyproject.toml README.md LICENSE ./
COPY engine ./engine
COPY wire ./wire
COPY deployments ./deployments
COPY mcp_server ./mcp_server
COPY integrations/openclaw-skill.md ./integrations/openclaw-skill.md
COPY scripts ./scripts
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --quiet --no-compile --require-hashes -r requirements-build.lock \
 && pip install --quiet --no-deps --no-build-isolation --target /opt/app .
COPY deploy/image/healthcheck.py LICENSE /opt/app/

# The packages without what serving never imports.
FROM packages AS stripped
# boto3, for CLOUD_SYNC_ENABLED. A whole Ray, for clusters: its command line, agents and dashboard.
ARG ENABLE_CLOUD_SYNC=true
ARG FULL_RAY=false
COPY deploy/image/strip_packages.py deploy/image/compile_imports.py ./
RUN python strip_packages.py /opt/venv --cloud-sync "$ENABLE_CLOUD_SYNC" --full-ray "$FULL_RAY"
RUN python compile_imports.py

FROM docker.io/library/python:3.11-slim
LABEL org.opencontainers.image.title="FAISS Memory" \
      org.opencontainers.image.description="Persistent semantic memory for AI assistants, on your own machine" \
      org.opencontainers.image.licenses="MIT"
COPY --from=packages /usr/bin/tini-static /usr/bin/tini
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp faiss \
 && install -d -m 0700 -o faiss -g faiss /data \
 && install -d /workspace
COPY --from=model /opt/model /opt/model
COPY --from=stripped /opt/venv /opt/venv
COPY --from=project /opt/app /opt/app
# STOP_TIMEOUT_S is less than the 10 seconds that `docker stop` waits.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/app \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    HOST=0.0.0.0 \
    PORT=8000 \
    ALLOW_NO_AUTH=true \
    ALLOWED_HOSTS=localhost,127.0.0.1,[::1],faiss-memory \
    DATA_DIR=/data \
    WORKSPACE_DIR=/workspace \
    MODEL_DIR=/opt/model \
    STOP_TIMEOUT_S=8
WORKDIR /opt/app
# By number, so that Kubernetes can tell that it is not root.
USER 10001:10001
VOLUME ["/data", "/workspace"]
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=4 \
    CMD ["python", "-I", "-S", "/opt/app/healthcheck.py"]
ENTRYPOINT ["tini", "--"]
# Containers log to stdout; the launcher, a command, to stderr.
CMD ["/bin/sh", "-c", "exec python -m scripts.serve 2>&1"]
