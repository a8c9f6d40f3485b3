//! Where a run's connections go, and whom they trust.
//!
//! A load generator is no browser: unless a file of certificates is named, any certificate is
//! accepted unseen, so that the handshakes measured are the server's work and not ours.

use std::{
    fs, io,
    net::{SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, InvalidDnsNameError, ServerName, UnixTime, pem::PemObject},
};
use thiserror::Error;

use super::options::{Ciphers, Options, Reconnect, Scheme};

/// The name of OAP/1 in the TLS handshake. OAP/1 §4.1
const ALPN_OAP: &[u8] = b"ron/1";

/// The name of HTTP/1.1 there.
const ALPN_HTTP: &[u8] = b"http/1.1";

/// Largest file of certificates.
const CA_LEN_MAX: u64 = 4 * 1024 * 1024;

/// Sessions that a thread remembers.
const SESSIONS_MAX: usize = 1024;

/// Why there is nowhere to connect to.
#[derive(Debug, Error)]
pub enum TargetError {
    #[error("cannot find {host}: {source}")]
    Resolve { host: String, source: io::Error },
    #[error("{host} has no address")]
    Nowhere { host: String },
    #[error("{host} cannot be the name of a certificate: {source}")]
    Name { host: String, source: InvalidDnsNameError },
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} has {len} bytes of at most {CA_LEN_MAX}")]
    CaTooLong { path: PathBuf, len: u64 },
    #[error("{path} holds no certificate in PEM")]
    Ca { path: PathBuf },
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// A server that connections can be made to.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) scheme: Scheme,
    pub(super) address: SocketAddr,
    pub(super) authority: String,
    /// Whom the certificate is for.
    pub(super) name: ServerName<'static>,
    roots: Option<Arc<RootCertStore>>,
    ciphers: Option<Ciphers>,
    resume: bool,
}

impl Target {
    /// Finds the server.
    ///
    /// # Errors
    /// When it has no address, or the certificates to trust cannot be read.
    pub(super) fn new(options: &Options) -> Result<Self, TargetError> {
        let host = &options.node.host;
        let named = |source| TargetError::Name { host: host.clone(), source };
        let resolved = |source| TargetError::Resolve { host: host.clone(), source };
        let mut places = (host.as_str(), options.node.port).to_socket_addrs().map_err(resolved)?;
        let address = places.next().ok_or_else(|| TargetError::Nowhere { host: host.clone() })?;
        let roots = options.ca.as_deref().map(read_roots).transpose()?;
        Ok(Self {
            scheme: options.node.scheme,
            address,
            authority: options.node.authority(),
            name: ServerName::try_from(host.clone()).map_err(named)?,
            roots: roots.map(Arc::new),
            ciphers: options.tls_ciphers,
            resume: options.reconnect == Some(Reconnect::Resume),
        })
    }

    /// Settings for the connections of one thread, which remembers its own sessions; `None` for
    /// plain HTTP.
    ///
    /// # Errors
    /// When a certificate to trust cannot be used.
    pub(super) fn tls(&self) -> Result<Option<Arc<ClientConfig>>, TargetError> {
        let alpn = match self.scheme {
            Scheme::Http => return Ok(None),
            Scheme::Https => ALPN_HTTP,
            Scheme::Oap => ALPN_OAP,
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(provider(self.ciphers)))
            .with_protocol_versions(&[&rustls::version::TLS13])?;
        let mut config = match &self.roots {
            Some(roots) => builder.with_root_certificates(Arc::clone(roots)).with_no_client_auth(),
            None => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anyone))
                .with_no_client_auth(),
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        config.resumption = if self.resume {
            Resumption::in_memory_sessions(SESSIONS_MAX)
        } else {
            Resumption::disabled()
        };
        Ok(Some(Arc::new(config)))
    }
}

/// aws-lc-rs with all its ciphers of TLS 1.3, or with one.
fn provider(ciphers: Option<Ciphers>) -> CryptoProvider {
    use aws_lc_rs::cipher_suite::{
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    let cipher_suites = match ciphers {
        Some(Ciphers::Aes128) => vec![TLS13_AES_128_GCM_SHA256],
        Some(Ciphers::Aes256) => vec![TLS13_AES_256_GCM_SHA384],
        Some(Ciphers::Chacha20) => vec![TLS13_CHACHA20_POLY1305_SHA256],
        None => {
            vec![TLS13_AES_256_GCM_SHA384, TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256]
        }
    };
    CryptoProvider { cipher_suites, ..aws_lc_rs::default_provider() }
}

fn read_roots(path: &Path) -> Result<RootCertStore, TargetError> {
    let read = |source| TargetError::Read { path: path.to_path_buf(), source };
    let none = || TargetError::Ca { path: path.to_path_buf() };
    let len = fs::metadata(path).map_err(read)?.len();
    if len > CA_LEN_MAX {
        return Err(TargetError::CaTooLong { path: path.to_path_buf(), len });
    }
    let pem = fs::read(path).map_err(read)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate.map_err(|_| none())?)?;
    }
    if roots.is_empty() { Err(none()) } else { Ok(roots) }
}

/// Accepts every certificate, and does not even look whether it signed.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::options::tests::options;

    fn target(arguments: &[&str]) -> Result<Target, TargetError> {
        Target::new(&options(&format!("--path / {}", arguments.join(" "))))
    }

    #[test]
    fn plain_http_has_no_tls_and_oap_its_own_name() {
        assert!(target(&["--node", "http://127.0.0.1:1"]).unwrap().tls().unwrap().is_none());
        let oap = target(&["--node", "oap://127.0.0.1:1"]).unwrap().tls().unwrap().unwrap();
        assert_eq!(oap.alpn_protocols, [b"ron/1"]);
        assert_eq!(oap.crypto_provider().cipher_suites.len(), 3);
        let one = ["--node", "https://127.0.0.1:1", "--tls-ciphers", "chacha20"];
        let one = target(&one).unwrap().tls().unwrap().unwrap();
        assert_eq!(one.crypto_provider().cipher_suites.len(), 1);
    }

    #[test]
    fn only_files_of_certificates_are_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let read = || target(&["--node", "https://127.0.0.1:1", "--ca", path.to_str().unwrap()]);
        assert!(matches!(read(), Err(TargetError::Read { .. })));
        fs::write(&path, "nothing of the kind").unwrap();
        assert!(matches!(read(), Err(TargetError::Ca { .. })));
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(&path, made.cert.pem()).unwrap();
        assert!(read().unwrap().tls().unwrap().is_some());
    }
}
