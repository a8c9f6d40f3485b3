//! Whom a client trusts: the certificates of `--ca`, and nobody else.
//!
//! The roots of the system are not used: a node is the operator's own machine, and its development
//! CA or the operator's CA is known. Verification cannot be switched off.

use std::{fs, path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, pem::PemObject},
};

use super::error::ClientError;

/// The name of OAP/1 in the TLS handshake. OAP/1 §4.1
const ALPN_OAP: &[u8] = b"ron/1";

/// Largest `--ca` file: a thousand certificates and more.
const CA_LEN_MAX: u64 = 4 * 1024 * 1024;

/// The cryptography that is used everywhere in this process.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Reads the certificates to trust.
///
/// # Errors
///
/// When there is no file, or none that holds certificates in PEM.
pub(super) fn read_ca(path: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let path = path.ok_or(ClientError::CaMissing)?;
    let bad = |reason: String| ClientError::Ca { path: path.to_path_buf(), reason };
    let len = fs::metadata(path).map_err(|source| ClientError::file(path, source))?.len();
    if len > CA_LEN_MAX {
        return Err(bad(format!("{len} bytes of at most {CA_LEN_MAX}")));
    }
    let pem = fs::read(path).map_err(|source| ClientError::file(path, source))?;
    let certificates = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| bad(error.to_string()))?;
    // What the verifier could not use is refused here, where the file can be named.
    roots(&certificates).map_err(|error| bad(error.to_string()))?;
    if certificates.is_empty() {
        return Err(bad("no certificate".to_owned()));
    }
    Ok(certificates)
}

/// How OAP/1 is spoken to a node that `certificates` vouch for.
///
/// # Errors
///
/// When a certificate cannot be used.
pub(super) fn oap_config(
    certificates: &[CertificateDer<'static>],
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots(certificates)?)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_OAP.to_vec()];
    Ok(Arc::new(config))
}

fn roots(certificates: &[CertificateDer<'static>]) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.clone())?;
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_certificates_are_trusted() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("ca.pem");
        assert!(matches!(read_ca(None), Err(ClientError::CaMissing)));
        assert!(matches!(read_ca(Some(&path)), Err(ClientError::File { .. })));
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for text in ["", "nothing of the kind", broken] {
            fs::write(&path, text).unwrap();
            assert!(matches!(read_ca(Some(&path)), Err(ClientError::Ca { .. })), "{text}");
        }
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let pem = made.cert.pem();
        fs::write(&path, format!("{pem}{pem}")).unwrap();
        let read = read_ca(Some(&path)).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(oap_config(&read).unwrap().alpn_protocols, [b"ron/1"]);
    }
}
