# One image for every command: `docker run -p 7860:7860 -v arena:/data IMAGE` opens the page,
# `docker run -v arena:/data IMAGE tune --help` and the like run the others.
# A CPU-only torch: `docker build --build-arg TORCH_INDEX=<index of CPU builds> .`

FROM python:3.11-slim AS build
ARG TORCH_INDEX=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python -m venv /opt/arena
# The big layers first: they change with the versions, not with the code.
COPY constraints.txt ./
RUN /opt/arena/bin/pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} \
        "$(grep '^torch==' constraints.txt)"
COPY pyproject.toml ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
        > requirements.txt \
    && /opt/arena/bin/pip install -c constraints.txt -r requirements.txt
COPY README.md LICENSE NOTICE ./
COPY arena arena
COPY tuning tuning
COPY serving serving
RUN /opt/arena/bin/pip install --no-deps .

FROM python:3.11-slim
# tini passes signals on and reaps children, so that `docker stop` ends any command at once.
RUN apt-get update \
    && apt-get install -y --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home --home-dir /data user
COPY --from=build /opt/arena /opt/arena
# All that is written lies under /data, so the rest may be mounted read-only.
ENV PATH=/opt/arena/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/data \
    ARENA_HOME=/data/workspace \
    HF_HOME=/data/huggingface \
    GRADIO_TEMP_DIR=/data/gradio \
    MPLCONFIGDIR=/data/matplotlib
WORKDIR /data
USER 1000:1000
VOLUME ["/data"]
EXPOSE 7860
# Of the page; run other commands with `--no-healthcheck`.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/healthz', timeout=4)"]
ENTRYPOINT ["tini", "--", "arena"]
CMD ["up", "--host", "0.0.0.0"]
