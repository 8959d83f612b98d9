# syntax=docker/dockerfile:1
# Targets: serving-cpu, serving-gpu, training, serving-cpu-demo (docs/containers.md).
# The base image needs Python 3.11 with venv and pip: all requirements are locked for it. In production, pin it by digest.
ARG BASE_IMAGE=docker.io/library/python:3.11-slim
# The CUDA runtime comes from the locked requirements, so the base image does not need it; name one that has it if you like.
ARG GPU_BASE_IMAGE=${BASE_IMAGE}

# ---- wheels of pawserve and of TensorRT's module, which PyPI has as source only
FROM ${BASE_IMAGE} AS wheels
WORKDIR /build
# With another Python, pip would only report that hashes do not match, as if the packages had been tampered with.
RUN python3 -c "import sys; v = sys.version.split()[0]; \
sys.exit(sys.version_info[:2] != (3, 11) and f'BASE_IMAGE has Python {v}; the requirements are locked for 3.11')"
COPY deploy/containers/requirements/build.txt deploy/containers/requirements/tensorrt-module.txt ./
# For another package index or a proxy, pass --secret id=pip_conf and id=ca_certificates. pip reads them while it runs;
# no layer contains them.
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf --mount=type=secret,id=ca_certificates \
    python3 -m venv tools \
    && tools/bin/pip install --no-cache-dir --require-hashes --only-binary :all: --requirement build.txt \
    && tools/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --require-hashes \
        --requirement tensorrt-module.txt --wheel-dir tensorrt
COPY pyproject.toml README.md LICENSE ./
COPY serving serving
COPY training training
COPY export export
RUN tools/bin/pip wheel --no-cache-dir --no-deps --no-index --no-build-isolation --wheel-dir pawserve . \
    && python3 -m venv --without-pip app \
    && python3 -m pip --python app/bin/python install --no-cache-dir --no-deps --no-index --no-compile pawserve/*.whl \
    && python3 -m compileall -q --invalidation-mode unchecked-hash app/lib

# ---- shared by the images: a user without privileges, with a fixed number, because Kubernetes does not resolve names
FROM ${BASE_IMAGE} AS runtime
RUN groupadd --gid 65532 pawserve \
    && useradd --uid 65532 --gid pawserve --no-log-init --no-create-home --home-dir /nonexistent \
        --shell /usr/sbin/nologin pawserve \
    && install -d -o pawserve -g pawserve -m 0700 /state \
    && install -d /models
ENV LANG=C.UTF-8 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONSAFEPATH=1

FROM ${GPU_BASE_IMAGE} AS gpu-runtime
RUN python3 -c "import sys; v = sys.version.split()[0]; \
sys.exit(sys.version_info[:2] != (3, 11) and f'GPU_BASE_IMAGE has Python {v}; the requirements are locked for 3.11')"
RUN groupadd --gid 65532 pawserve \
    && useradd --uid 65532 --gid pawserve --no-log-init --no-create-home --home-dir /nonexistent \
        --shell /usr/sbin/nologin pawserve \
    && install -d -o pawserve -g pawserve -m 0700 /state /engines \
    && install -d -o pawserve -g pawserve /work \
    && install -d /models
ENV LANG=C.UTF-8 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONSAFEPATH=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

# ---- training: reads images from /work, writes runs and bundles there. In every image, third-party packages are a layer
# of their own, which changes only with the requirements. The base image's pip installs them; the environment has no pip.
FROM gpu-runtime AS training
# torch contains one file, for its own tests, that only Python 3.12 can compile.
RUN --mount=type=bind,source=deploy/containers/requirements/training.txt,target=/tmp/requirements.txt \
    --mount=type=secret,id=pip_conf,target=/etc/pip.conf --mount=type=secret,id=ca_certificates \
    python3 -m venv --without-pip /opt/pawserve \
    && python3 -m pip --python /opt/pawserve/bin/python install --no-cache-dir --no-compile --require-hashes \
        --only-binary :all: --requirement /tmp/requirements.txt \
    && python3 -m compileall -q --invalidation-mode unchecked-hash -x /torch/testing/_internal/py312_ /opt/pawserve/lib
COPY --from=wheels /build/app/lib /opt/pawserve/lib
ENV PATH=/opt/pawserve/bin:$PATH
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="pawserve training" \
    org.opencontainers.image.description="Fine-tunes image classifiers and exports them to ONNX" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
# Downloaded weights, activations and font caches are written to /work too.
ENV XDG_CACHE_HOME=/work/.cache TORCH_HOME=/work/.cache/torch HF_HOME=/work/.cache/huggingface \
    MPLCONFIGDIR=/work/.cache/matplotlib
WORKDIR /work
USER 65532:65532
ENTRYPOINT ["dumb-init", "--", "python", "-m"]
CMD ["training", "--help"]

# ---- serving on GPUs: the first start builds the TensorRT engines and keeps them in /engines
FROM gpu-runtime AS serving-gpu
ARG NVIDIA_INDEX=https://pypi.nvidia.com
RUN --mount=type=bind,source=deploy/containers/requirements,target=/tmp/requirements \
    --mount=type=bind,from=wheels,source=/build/tensorrt,target=/tmp/tensorrt \
    --mount=type=secret,id=pip_conf,target=/etc/pip.conf --mount=type=secret,id=ca_certificates \
    python3 -m venv --without-pip /opt/pawserve \
    && python3 -m pip --python /opt/pawserve/bin/python install --no-cache-dir --no-compile --require-hashes \
        --only-binary :all: --requirement /tmp/requirements/serving-gpu.txt \
    && python3 -m pip --python /opt/pawserve/bin/python install --no-cache-dir --no-compile --no-deps --no-index \
        /tmp/tensorrt/*.whl \
    && python3 -m pip --python /opt/pawserve/bin/python install --no-cache-dir --no-compile --no-deps \
        --only-binary :all: --extra-index-url "${NVIDIA_INDEX}" \
        --requirement /tmp/requirements/tensorrt-libraries.txt \
    && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/pawserve/lib
COPY --from=wheels /build/app/lib /opt/pawserve/lib
ENV PATH=/opt/pawserve/bin:$PATH
COPY deploy/containers/serve_gpu.py /opt/pawserve/serve_gpu.py
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="pawserve serving-gpu" \
    org.opencontainers.image.description="Serves image classifiers over gRPC and HTTP, on NVIDIA GPUs with TensorRT" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
ENV PAWSERVE_ENGINES=/engines
VOLUME ["/state", "/engines"]
EXPOSE 50051 8080
USER 65532:65532
# The first start builds engines, which takes minutes.
HEALTHCHECK --interval=10s --timeout=8s --start-period=30m --retries=3 \
    CMD ["python", "-m", "serving", "health", "--timeout", "5"]
ENTRYPOINT ["dumb-init", "--", "python", "/opt/pawserve/serve_gpu.py"]
CMD ["serve", "--models", "/models", "--state", "/state", "--listen", "0.0.0.0:50051", "--http", "0.0.0.0:8080"]

# ---- serving on CPUs
FROM runtime AS serving-cpu
RUN --mount=type=bind,source=deploy/containers/requirements/serving-cpu.txt,target=/tmp/requirements.txt \
    --mount=type=secret,id=pip_conf,target=/etc/pip.conf --mount=type=secret,id=ca_certificates \
    python3 -m venv --without-pip /opt/pawserve \
    && python3 -m pip --python /opt/pawserve/bin/python install --no-cache-dir --no-compile --require-hashes \
        --only-binary :all: --requirement /tmp/requirements.txt \
    && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/pawserve/lib
COPY --from=wheels /build/app/lib /opt/pawserve/lib
ENV PATH=/opt/pawserve/bin:$PATH
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="pawserve serving-cpu" \
    org.opencontainers.image.description="Serves image classifiers over gRPC and HTTP, on CPUs" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
VOLUME ["/state"]
EXPOSE 50051 8080
USER 65532:65532
HEALTHCHECK --interval=10s --timeout=8s --start-period=30s --retries=3 \
    CMD ["python", "-m", "serving", "health", "--timeout", "5"]
ENTRYPOINT ["dumb-init", "--", "python", "-m", "serving"]
CMD ["serve", "--models", "/models", "--state", "/state", "--listen", "0.0.0.0:50051", "--http", "0.0.0.0:8080"]

# ---- serving on CPUs with the demo's models inside, to try it out; the other images expect models to be mounted
FROM serving-cpu AS serving-cpu-demo
ARG MODELS=demo/models
COPY ${MODELS} /models
LABEL org.opencontainers.image.title="pawserve serving-cpu-demo"
