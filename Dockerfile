# syntax=docker/dockerfile:1
FROM rust:1.95-slim-bookworm AS build
# Crate ring compiles C; the image's linker brings the compiler for it.
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY sagas sagas
COPY examples examples
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --profile dist --locked --bin sagamq \
    && mkdir /out \
    && cp target/dist/sagamq /out/

# The sample services of Docker Compose, which are no part of the image.
FROM build AS build-services
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --examples \
    && mkdir /services \
    && for service in order inventory payment shipping email analytics; do \
         cp "target/release/examples/$service" /services/ || exit 1; \
       done

FROM debian:bookworm-slim AS base
# CA certificates are what amqps:// checks the broker by.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
# A volume that is mounted here for the first time takes over its owner.
RUN useradd --system --uid 10001 --home-dir /var/lib/sagamq --create-home sagamq
USER 10001
WORKDIR /var/lib/sagamq

FROM base AS services
COPY --from=build-services /services/ /usr/local/bin/

# The image, and the last stage, so that it is the one that is built by default.
FROM base AS sagamq
COPY --from=build /out/sagamq /usr/local/bin/
# Definitions are yours: mount them there.
ENV SAGAMQ_DEFINITIONS=/etc/sagamq/sagas \
    SAGAMQ_STORE__PATH=/var/lib/sagamq/store
VOLUME /var/lib/sagamq
EXPOSE 7654
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=12 CMD ["sagamq", "ready"]
STOPSIGNAL SIGTERM
CMD ["sagamq", "run"]
