//! TLS for every client: one crypto provider, installed once a process.
//!
//! The HTTP and Redis clients are built without a provider of their own, so that only one is linked. Without this call
//! they cannot open a TLS connection. It never chooses roots or versions: the clients do.

/// Installs the provider. Calling it again does nothing.
pub fn install_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // An error means that another thread was faster: there is a provider then, which is all we want.
        let _already_installed = rustls::crypto::ring::default_provider().install_default();
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_provider_may_be_installed_twice() {
        super::install_provider();
        super::install_provider();
        assert!(rustls::crypto::CryptoProvider::get_default().is_some());
    }
}
