//! One TLS provider for HTTP, Redis and PostgreSQL: rustls with ring. librdkafka brings its own OpenSSL (see `docs/adr/`).

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// Makes ring the provider of this process. Later calls change nothing.
pub fn install_provider() {
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
}

/// Checks certificates and host names with the authorities of this file (PEM), or with the machine's.
///
/// # Errors
/// The file cannot be read or holds no certificate; or the machine has none.
pub fn verifying_client(root_file: Option<&str>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    let source = root_file.unwrap_or("this machine's certificate store");
    let certificates = match root_file {
        Some(file) => {
            let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            read.map_err(|error| format!("{file} cannot be read as certificates (PEM): {error}"))?
        }
        None => rustls_native_certs::load_native_certs().certs,
    };
    let (_added, _ignored) = roots.add_parsable_certificates(certificates);
    if roots.is_empty() {
        return Err(format!("{source} holds no certificate of an authority"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let versions = versions.map_err(|error| format!("TLS: {error}"))?;
    Ok(versions.with_root_certificates(roots).with_no_client_auth())
}
