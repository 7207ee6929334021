# syntax=docker/dockerfile:1.7@sha256:a57df69d0ea827fb7266491f2813635de6f17269be881f696fbfdf2d83dda33e
# Three images of one program: `docker build --target cpu|cuda|tensorrt .`; see docker/README.md. No model is inside.
ARG RUST=rust:1.95.0-slim-bookworm@sha256:d7482085ff5b415f84dba5647ae71606650bdef00db7aeb69f4b3d170c3e4082
ARG DEBIAN=debian:bookworm-20260824-slim@sha256:88200866dfff7ea7f5cbcb6ec7c8a701889efe6fe859fe64d6990e4b07ea4171

FROM ${RUST} AS build
WORKDIR /build
COPY docker/build docker/build
RUN docker/build packages
COPY Cargo.toml Cargo.lock ./
RUN --mount=type=cache,target=/usr/local/cargo/registry docker/build dependencies
COPY src src
COPY schemas schemas
COPY LICENSE ./
RUN --mount=type=cache,target=/usr/local/cargo/registry docker/build program /out

FROM build AS onnxruntime-cpu
COPY model/requirements.txt model/
RUN docker/build onnxruntime-cpu /libraries

FROM build AS onnxruntime-cuda
COPY docker/requirements-cuda.txt docker/
RUN docker/build onnxruntime-cuda /libraries

# Stands empty until `--build-context tensorrt-wheel=FOLDER` takes its place.
FROM scratch AS tensorrt-wheel

FROM build AS tensorrt-libraries
ARG TENSORRT_SHA256
RUN --mount=type=bind,from=tensorrt-wheel,target=/wheel docker/build tensorrt /libraries /wheel

FROM ${DEBIAN} AS runtime
RUN --mount=type=bind,source=docker/build,target=/tmp/build \
    /tmp/build runtime-packages && install -d -o 10001 -g 10001 /var/lib/moderato
COPY --from=build /out /
ENV ORT_DYLIB_PATH=/usr/local/lib/moderato/libonnxruntime.so.1.31.1
# The admin port, where `admin.listen` is not on the loopback alone.
EXPOSE 9464
# A number, so that Kubernetes can see that it is not root.
USER 10001:10001
# Process 1 is moderato itself: SIGTERM drains it.
ENTRYPOINT ["/usr/local/bin/moderato"]
CMD ["run", "-c", "/etc/moderato/moderato.yaml"]
ARG DEBIAN
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED
LABEL org.opencontainers.image.title="moderato" \
    org.opencontainers.image.description="Judges posts from Kafka with a Llama-architecture model in ONNX Runtime." \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.created="${CREATED}" \
    org.opencontainers.image.base.name="${DEBIAN}"

FROM runtime AS cuda
COPY --from=onnxruntime-cuda /libraries /
ENV LD_LIBRARY_PATH=/usr/local/lib/moderato/nvidia \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM cuda AS tensorrt
COPY --from=tensorrt-libraries /libraries /
ENV LD_LIBRARY_PATH=/usr/local/lib/moderato/nvidia:/usr/local/lib/moderato/tensorrt

FROM runtime AS cpu
COPY --from=onnxruntime-cpu /libraries /
