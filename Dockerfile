# The relay (or an agent whose servers are reached over HTTP) as a small image without a shell.
#
#   docker build -t mcp-local-tunnel .
#   docker run --read-only -p 3000:3000 -v tunnel-state:/var/lib/mcp-local-tunnel \
#     -e MCP_LOCAL_TUNNEL_CONFIG='{"mode": "relay", "auth": {"issuer": "https://accounts.example.com"}, "issuerUrl": "https://tunnel.example.com"}' \
#     mcp-local-tunnel
#
# Without the volume the root may be read-only all the same: the relay then warns, keeps its keys in memory, and a restart
# signs everybody out. GET /healthz and /readyz tell how it is.

FROM rust:1.91-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --profile dist --locked --package mcp-local-tunnel \
    && install -D target/dist/mcp-local-tunnel /out/mcp-local-tunnel \
    && mkdir /out/state

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/mcp-local-tunnel /usr/local/bin/mcp-local-tunnel
# Empty, and the user's: a new volume in its place takes that over.
COPY --from=build --chown=65532:65532 /out/state /var/lib/mcp-local-tunnel
ENV STATE_DIRECTORY=/var/lib/mcp-local-tunnel
USER 65532:65532
EXPOSE 3000
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/mcp-local-tunnel"]
