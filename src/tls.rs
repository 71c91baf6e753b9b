//! One TLS provider for HTTP and Redis: rustls with ring. librdkafka brings its own OpenSSL (see `docs/adr/`).

/// Makes ring the provider of this process. Later calls change nothing.
pub fn install_provider() {
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
}
