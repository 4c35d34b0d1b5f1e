# The operator as one static binary in an otherwise empty image.
# Written without a container engine at hand: it has not been built by the project's own checks, which run none.
FROM rust:1.95-alpine AS build
# A C compiler, perl and cmake for the cryptography library; Alpine's Rust links musl statically.
RUN apk add --no-cache build-base perl cmake ca-certificates
WORKDIR /src
COPY Cargo.toml Cargo.lock rustfmt.toml ./
COPY src src
# Cargo wants the files of every target in the manifest to be there, also of those that are not built.
COPY tests tests
COPY examples examples
RUN cargo build --release --locked --bin voicerollout

FROM scratch
# Root certificates for gates and judges outside the cluster.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/target/release/voicerollout /voicerollout
USER 65532:65532
ENTRYPOINT ["/voicerollout"]
CMD ["run"]
