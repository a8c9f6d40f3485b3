//! Whom a client trusts: the roots of the system, as for any other program, and those of `--ca`,
//! such as a node's development CA. Verification cannot be switched off.

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

/// The certificates to trust: those of the system that can be used, and those of a file.
///
/// # Errors
///
/// When the file holds no certificates in PEM, or there are none at all.
pub(super) fn trusted(path: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let mut certificates = path.map_or_else(|| Ok(Vec::new()), read_ca)?;
    // A system has some that only others can use, and that is no reason to trust none.
    let usable = |found: &CertificateDer<'static>| roots(std::slice::from_ref(found)).is_ok();
    let system = rustls_native_certs::load_native_certs().certs;
    certificates.extend(system.into_iter().filter(usable));
    if certificates.is_empty() { Err(ClientError::CaMissing) } else { Ok(certificates) }
}

/// Reads the certificates of a file.
fn read_ca(path: &Path) -> Result<Vec<CertificateDer<'static>>, ClientError> {
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
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        assert!(matches!(trusted(Some(&path)), Err(ClientError::File { .. })));
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for text in ["", "nothing of the kind", broken] {
            fs::write(&path, text).unwrap();
            assert!(matches!(trusted(Some(&path)), Err(ClientError::Ca { .. })), "{text}");
        }
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let pem = made.cert.pem();
        fs::write(&path, format!("{pem}{pem}")).unwrap();
        let read = read_ca(&path).unwrap();
        assert_eq!(read.len(), 2);
        assert!(trusted(Some(&path)).unwrap().starts_with(&read), "the system's come behind");
        assert_eq!(oap_config(&read).unwrap().alpn_protocols, [b"ron/1"]);
    }
}
