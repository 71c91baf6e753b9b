# Two stages: build on Debian 13, run on Debian 13 without a shell or a package manager.
# librdkafka, OpenSSL and zlib are linked statically (see docs/adr), so that the image needs glibc and libgcc only.

# The compiler that the tests run with (.github/workflows/ci.yaml).
FROM rust:1.95.0-slim-trixie AS build
# What librdkafka and OpenSSL need to build: C and C++ compilers, make, perl.
# Their versions are the base image's business. hadolint wants them pinned:
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ make perl \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src

# The dependencies in a layer of their own: built again only when the manifest or the lock file changes.
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock ./
RUN mkdir src \
    && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs \
    && cargo build --profile dist --locked --bin crm-event-processors \
    && rm -r src

# The migrations and the connector's templates are part of the binary.
COPY schemas/postgres schemas/postgres
COPY connectors/confluent-cloud connectors/confluent-cloud
COPY connectors/kafka-connect connectors/kafka-connect
COPY src src
# Cargo goes by time stamps, and the copied files may be older than what was built above.
RUN touch src/lib.rs src/main.rs \
    && cargo build --profile dist --locked --bin crm-event-processors \
    && strip target/dist/crm-event-processors

FROM gcr.io/distroless/cc-debian13:nonroot
COPY --from=build /src/target/dist/crm-event-processors /usr/local/bin/crm-event-processors
# Endpoints are on the loopback address of the container unless HTTP_ADDR says otherwise. Not with HTTP_ADDR=off.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=4 \
    CMD ["/usr/local/bin/crm-event-processors", "healthcheck"]
# The exec form, so that SIGTERM reaches the worker and not a shell.
ENTRYPOINT ["/usr/local/bin/crm-event-processors"]
CMD ["run"]
