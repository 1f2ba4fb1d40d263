# Penstock in a container: no shell, no package manager, nobody's user, a root that may be read-only, /data to keep.
#
#   docker build -t penstock .
#   docker run --read-only --cap-drop ALL --security-opt no-new-privileges -e PENSTOCK_API_KEY -v penstock:/data -p 4020:4020 penstock
#
# Pin both images by their digests where builds must be the same tomorrow: --build-arg RUNTIME=...@sha256:...
# Their Pythons must be of the same minor version, and their Debians of the same release.
ARG BUILDER=docker.io/library/python:3.13-slim-trixie
ARG RUNTIME=gcr.io/distroless/python3-debian13:nonroot

FROM ${BUILDER} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY requirements/run.lock requirements/postgres.lock requirements/
# What is installed is what was locked, and nothing is built on the way. The first is what builds the wheel, and stays here.
RUN python -m venv /tools \
    && /tools/bin/pip install --require-hashes --only-binary :all: -r requirements/run.lock \
    && pip install --require-hashes --only-binary :all: --target /app -r requirements/postgres.lock
COPY pyproject.toml README.md LICENSE ./
COPY config config
COPY proxy proxy
RUN /tools/bin/python -m hatchling build -t wheel -d /wheels \
    && pip install --no-deps --no-index --target /app /wheels/penstock-*.whl \
    && rm -rf /app/bin \
    && python -m compileall -q -j 0 /app \
    && install -d -m 0700 /empty/data

FROM ${RUNTIME}
LABEL org.opencontainers.image.title="penstock" \
      org.opencontainers.image.description="One base_url for every model: a streaming, OpenAI-compatible reverse proxy" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /app /app
COPY --from=build --chown=65532:65532 /empty/data /data
ENV PYTHONPATH=/app PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PENSTOCK_HOST=0.0.0.0 PENSTOCK_DATA=/data
WORKDIR /data
VOLUME ["/data"]
EXPOSE 4020
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["/usr/bin/python3", "-P", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + (os.environ.get('PENSTOCK_PORT') or '4020') + '/health/live', timeout=2)"]
ENTRYPOINT ["/usr/bin/python3", "-P", "-m", "proxy.cli.main"]
CMD ["serve"]
