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
    && cargo build --release --locked --examples \
    && mkdir /out \
    && cp target/dist/sagamq /out/ \
    && for service in order inventory payment shipping email analytics; do \
         cp "target/release/examples/$service" /out/ || exit 1; \
       done

FROM debian:bookworm-slim
COPY --from=build /out/ /usr/local/bin/
COPY sagas /etc/sagamq/sagas
# A volume that is mounted here for the first time takes over its owner.
RUN useradd --system --uid 10001 --home-dir /var/lib/sagamq --create-home sagamq
USER 10001
WORKDIR /var/lib/sagamq
ENV SAGAMQ_DEFINITIONS=/etc/sagamq/sagas \
    SAGAMQ_STORE__PATH=/var/lib/sagamq/store
VOLUME /var/lib/sagamq
EXPOSE 7654
STOPSIGNAL SIGTERM
CMD ["sagamq", "run"]
