//! What this host trusts where it is a client of TLS.

use backburn_experiments::probes::tls;
use rustls::ClientConfig;
use std::sync::Arc;

/// A client's configuration, which accepts what this system trusts or, unless `verify`, every certificate.
///
/// # Errors
/// This system trusts no authority, as far as can be found out.
pub(crate) fn client_config(verify: bool) -> Result<Arc<ClientConfig>, String> {
    if !verify {
        return tls::not_verifying();
    }
    let found = rustls_native_certs::load_native_certs();
    tls::verifying(found.certs, found.errors.first().map(ToString::to_string))
}
