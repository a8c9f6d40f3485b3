//! The certificates TLS listeners show.
//!
//! An operator names a chain and a key. Without them the node is its own small authority: it makes
//! a development CA once, keeps it under the data directory, and signs itself a leaf for
//! `localhost`, `127.0.0.1` and `::1` at every start, so the leaf never runs out on a node that is
//! restarted now and then. Clients are given the CA file.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, date_time_ymd,
};
use ron_io::{regular, ring::Certificate};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::config::limits::FILE_LEN_MAX;

/// How long a leaf is good for: what browsers accept at most.
const LEAF_DAYS: u64 = 397;

/// How long the development CA is good for.
const CA_DAYS: u64 = 3650;

/// Names the development leaf is for.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// A certificate with its key, and what there is to tell about them.
#[derive(Debug)]
pub struct Identity {
    pub certificate: Certificate,
    /// When the leaf ends, in seconds since 1970.
    pub not_after: u64,
    /// What an operator should know: that clients refuse it today.
    pub warning: Option<String>,
    /// The file of the CA to trust, when it is our own.
    pub ca: Option<PathBuf>,
    /// Why our own CA was made, so that clients must be given it.
    pub ca_made: Option<CaMade>,
}

/// Why a development CA was made.
#[derive(Debug, thiserror::Error)]
pub enum CaMade {
    /// There was none, or all of it is gone.
    #[error("{} holds no CA", folder.display())]
    None { folder: PathBuf },
    #[error("{} is not there", path.display())]
    Gone { path: PathBuf },
    #[error("{path} cannot be used: {reason}")]
    Broken { path: PathBuf, reason: String },
}

impl Identity {
    /// What clients need to know whose CA was made anew; the first CA of a node is no news.
    pub fn ca_warning(&self, may_be_first: bool) -> Option<String> {
        let (made, ca) = (self.ca_made.as_ref()?, self.ca.as_ref()?.display());
        let is_first = may_be_first && matches!(made, CaMade::None { .. });
        let again = || {
            format!(
                "{made}: the development CA was made anew, give clients {ca} again; files that \
                 were there are kept with .old- in their names"
            )
        };
        (!is_first).then(again)
    }
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("{path} holds no {what} in PEM: {source}")]
    Pem { path: PathBuf, what: &'static str, source: rustls_pki_types::pem::Error },
    #[error("{path} holds no certificate")]
    Empty { path: PathBuf },
    #[error("the certificate in {path} cannot be read: {reason}")]
    Certificate { path: PathBuf, reason: String },
    #[error("{setting}: {source}")]
    Setting { setting: &'static str, source: Box<CertError> },
    #[error("tls_key {} does not belong to tls_cert {}", key.display(), cert.display())]
    Mismatch { cert: PathBuf, key: PathBuf },
    #[error("tls_cert {} and tls_key {} cannot be used: {reason}", cert.display(), key.display())]
    Unusable { cert: PathBuf, key: PathBuf, reason: rustls::Error },
    #[error("the development certificate cannot be used: {0}")]
    Development(#[source] rustls::Error),
    #[error("cannot make a development certificate: {0}")]
    Make(#[from] rcgen::Error),
}

/// Reads the operator's chain and key.
///
/// # Errors
/// When a file cannot be read or holds something else.
pub fn from_files(chain_path: &Path, key_path: &Path) -> Result<Identity, CertError> {
    let of =
        |setting| move |source: CertError| CertError::Setting { setting, source: Box::new(source) };
    let (chain, not_after) = read_chain(chain_path).map_err(of("tls_cert"))?;
    let warning = out_of_date(&chain).map(|span| {
        format!("tls_cert {}: clients refuse it, for it is valid {span}", chain_path.display())
    });
    let key = read_key(key_path).map_err(of("tls_key"))?;
    let (cert, key_file) = (chain_path.to_path_buf(), key_path.to_path_buf());
    let certificate = Certificate::new(chain, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => CertError::Mismatch { cert, key: key_file },
        reason => CertError::Unusable { cert, key: key_file, reason },
    })?;
    Ok(Identity { certificate, not_after, warning, ca: None, ca_made: None })
}

fn read_chain(path: &Path) -> Result<(Vec<CertificateDer<'static>>, u64), CertError> {
    let pem = |source| CertError::Pem { path: path.to_path_buf(), what: "certificate", source };
    let text = read(path)?;
    let chain = CertificateDer::pem_slice_iter(&text);
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(pem)?;
    // Each of them, not the leaf alone: clients refuse a chain that holds anything else.
    let ends = chain.iter().map(|certificate| not_after(certificate, path));
    let ends = ends.collect::<Result<Vec<_>, _>>()?;
    let leaf = ends.first().ok_or_else(|| CertError::Empty { path: path.to_path_buf() })?;
    Ok((chain, *leaf))
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, CertError> {
    let pem = |source| CertError::Pem { path: path.to_path_buf(), what: "key", source };
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(pem)
}

/// Signs a leaf with the development CA under `folder`, which is made when it is not there, and
/// made anew when it cannot be used: it protects nothing that is worth a node that does not start.
///
/// # Errors
/// When the folder cannot be read or written.
pub fn development(folder: &Path) -> Result<Identity, CertError> {
    let (ca_path, key_path) = (folder.join("ca.pem"), folder.join("ca.key"));
    let ca_made = match (ca_path.exists(), key_path.exists()) {
        (false, false) => Some(CaMade::None { folder: folder.to_path_buf() }),
        (false, true) => Some(CaMade::Gone { path: ca_path.clone() }),
        (true, false) => Some(CaMade::Gone { path: key_path.clone() }),
        (true, true) => {
            issuer(&read(&ca_path)?, &read(&key_path)?).err().map(|(is_key, reason)| {
                let path = if is_key { &key_path } else { &ca_path };
                CaMade::Broken { path: path.clone(), reason }
            })
        }
    };
    if ca_made.is_some() {
        keep(&ca_path)?;
        keep(&key_path)?;
        make_ca(folder, &ca_path, &key_path)?;
    }
    let issuer = issuer(&read(&ca_path)?, &read(&key_path)?)
        .map_err(|(_, reason)| CertError::Certificate { path: ca_path.clone(), reason })?;
    let mut params = CertificateParams::new(NAMES.map(String::from))?;
    params.distinguished_name = named("ron development node");
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let not_after = valid_for(&mut params, LEAF_DAYS);
    let key = KeyPair::generate()?;
    let leaf = params.signed_by(&key, &issuer)?;
    let chain = vec![leaf.der().clone()];
    let certificate = Certificate::new(chain, PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .map_err(CertError::Development)?;
    Ok(Identity { certificate, not_after, warning: None, ca: Some(ca_path), ca_made })
}

/// The CA in these two files. Where they cannot be used: whether it is the key, and why.
fn issuer(ca: &[u8], key: &[u8]) -> Result<Issuer<'static, KeyPair>, (bool, String)> {
    let text = |bytes| str::from_utf8(bytes).map_err(|error| error.to_string());
    let key = text(key).and_then(|key| KeyPair::from_pem(key).map_err(|error| error.to_string()));
    let key = key.map_err(|reason| (true, reason))?;
    let public = key.subject_public_key_info();
    let pem = text(ca).map_err(|reason| (false, reason))?;
    let der = CertificateDer::from_pem_slice(ca).map_err(|error| (false, error.to_string()))?;
    let (_, parsed) =
        x509_parser::parse_x509_certificate(&der).map_err(|error| (false, error.to_string()))?;
    if parsed.public_key().raw != public {
        return Err((true, "it is the key of another certificate".to_owned()));
    }
    if key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
        return Err((true, "it is no P-256 key, as those are that are made here".to_owned()));
    }
    if parsed.issuer() != parsed.subject() {
        return Err((false, "another CA has signed it".to_owned()));
    }
    // What a certificate says that was changed since it was signed, nobody may build upon: one bit
    // is enough for names that cannot be written again.
    let signer = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.public_key_raw());
    let sound = signer.verify(parsed.tbs_certificate.as_ref(), &parsed.signature_value.data);
    sound.map_err(|_| (false, "its signature is of something else".to_owned()))?;
    Issuer::from_ca_cert_pem(pem, key).map_err(|error| (false, error.to_string()))
}

/// Gives a file that another is to replace a name under which it stays: it may be an operator's.
fn keep(path: &Path) -> Result<(), CertError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut kept = path.as_os_str().to_owned();
    kept.push(format!(".old-{}", now.as_nanos()));
    match fs::rename(path, kept) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(CertError::Write { path: path.to_path_buf(), source })
        }
        _ => Ok(()),
    }
}

fn make_ca(folder: &Path, ca_path: &Path, key_path: &Path) -> Result<(), CertError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = named("ron development CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid_for(&mut params, CA_DAYS);
    let key = KeyPair::generate()?;
    let ca = params.self_signed(&key)?;
    fs::create_dir_all(folder)
        .map_err(|source| CertError::Write { path: folder.to_path_buf(), source })?;
    // The key first: a certificate without its key would be of no use.
    write(key_path, &key.serialize_pem(), 0o600)?;
    write(ca_path, &ca.pem(), 0o644)
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// Makes a certificate good from an hour ago, for clocks that are a little behind. Returns its
/// end in seconds since 1970.
fn valid_for(params: &mut CertificateParams, days: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let start = now.saturating_sub(Duration::from_secs(3600));
    let end = now + Duration::from_secs(days * 24 * 3600);
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + start;
    params.not_after = epoch + end;
    end.as_secs()
}

/// When a certificate of the file at `path` ends, in seconds since 1970.
fn not_after(certificate: &CertificateDer<'_>, path: &Path) -> Result<u64, CertError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|error| {
        CertError::Certificate { path: path.to_path_buf(), reason: error.to_string() }
    })?;
    Ok(u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0))
}

/// When a certificate of `chain` is valid, if not now.
fn out_of_date(chain: &[CertificateDer<'_>]) -> Option<String> {
    chain.iter().find_map(|certificate| {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let (from, to) = (parsed.validity().not_before, parsed.validity().not_after);
        (!parsed.validity().is_valid()).then(|| format!("from {from} to {to}"))
    })
}

fn read(path: &Path) -> Result<Vec<u8>, CertError> {
    let read = regular::read(path, FILE_LEN_MAX);
    read.map_err(|source| CertError::Read { path: path.to_path_buf(), source })
}

/// Writes a file that is there as a whole or not at all, whenever the power fails.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), CertError> {
    let temporary = path.with_extension("tmp");
    let write = || {
        // Left by a start that was cut off, perhaps with other rights.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        let folder = path.parent().expect("a file is in a folder");
        fs::File::open(folder)?.sync_all()
    };
    write().map_err(|source| CertError::Write { path: path.to_path_buf(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ca_is_kept_and_signs_each_leaf() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tls");
        let first = development(&path).unwrap();
        let ca = fs::read(path.join("ca.pem")).unwrap();
        let second = development(&path).unwrap();
        assert_eq!(ca, fs::read(path.join("ca.pem")).unwrap());
        let leaf = |identity: &Identity| identity.certificate.chain()[0].clone();
        assert_ne!(leaf(&first), leaf(&second), "each start signs a fresh leaf");
        assert_eq!(not_after(&leaf(&second), &path).unwrap(), second.not_after);
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(path.join("ca.key")).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
    }

    /// As a start leaves it that was cut off, or a disk that was full.
    #[test]
    fn a_ca_that_cannot_be_used_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tls");
        let warned = |may_be_first| development(&path).unwrap().ca_warning(may_be_first);
        assert_eq!(warned(true), None, "the first one is no news");
        let whole = |name: &str| fs::read(path.join(name)).unwrap();
        for name in ["ca.key", "ca.pem"] {
            for keep in [0, 40] {
                let (ca, key) = (whole("ca.pem"), whole("ca.key"));
                fs::write(path.join(name), &whole(name)[..keep]).unwrap();
                let said = warned(true).expect("it is reported");
                assert!(said.contains(name) && said.contains("made anew"), "{said}");
                assert!(ca != whole("ca.pem") && key != whole("ca.key"));
                assert!(warned(false).is_none(), "it is good again");
            }
            fs::remove_file(path.join(name)).unwrap();
            let said = warned(true).expect("it is reported");
            assert!(said.contains(name) && said.contains("is not there"), "{said}");
        }
        // The key was made anew, and the certificate not: a start was cut off between the two.
        let ca = whole("ca.pem");
        fs::remove_dir_all(&path).unwrap();
        assert!(warned(false).expect("it is not the first").contains("holds no CA"));
        fs::write(path.join("ca.pem"), ca).unwrap();
        assert!(warned(true).unwrap().contains("another"));
        // A file of a start that was cut off is no obstacle.
        fs::remove_file(path.join("ca.pem")).unwrap();
        fs::write(path.join("ca.tmp"), "half").unwrap();
        development(&path).unwrap();
        assert!(!path.join("ca.tmp").exists());
    }

    /// An operator's CA of another kind is not used, and not lost.
    #[test]
    fn a_ca_that_is_replaced_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        development(folder.path()).unwrap();
        let names = ["ca.pem", "ca.key"];
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let texts = [params.self_signed(&key).unwrap().pem(), key.serialize_pem()];
        for (name, text) in names.iter().zip(&texts) {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let said = development(folder.path()).unwrap().ca_warning(true).unwrap();
        assert!(said.contains("no P-256 key") && said.contains(".old-"), "{said}");
        let entries = fs::read_dir(folder.path()).unwrap();
        let all: Vec<String> =
            entries.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).collect();
        assert!(texts.iter().all(|text| all.contains(text)), "{} files", all.len());
    }

    /// A flipped bit is found, or changes nothing: a leaf that this CA signs is signed by it.
    #[test]
    fn a_ca_with_a_flipped_bit_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        development(folder.path()).unwrap();
        let [ca, key] =
            ["ca.pem", "ca.key"].map(|name| fs::read(folder.path().join(name)).unwrap());
        let flipped = |bytes: &[u8], bit: usize| {
            let mut bytes = bytes.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        };
        let public = issuer(&ca, &key).ok().unwrap().key().subject_public_key_info();
        let (mut found, mut same) = (0, 0);
        let mut check = |ca: &[u8], key: &[u8]| match issuer(ca, key) {
            Err(_) => found += 1,
            Ok(issuer) => {
                assert_eq!(issuer.key().subject_public_key_info(), public);
                let leaf = CertificateParams::new(["localhost".to_owned()]).unwrap();
                let leaf = leaf.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
                let (_, leaf) = x509_parser::parse_x509_certificate(leaf.der()).unwrap();
                let signer =
                    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, issuer.key().public_key_raw());
                signer.verify(leaf.tbs_certificate.as_ref(), &leaf.signature_value.data).unwrap();
                same += 1;
            }
        };
        (0..ca.len() * 8).for_each(|bit| check(&flipped(&ca, bit), &key));
        (0..key.len() * 8).for_each(|bit| check(&ca, &flipped(&key, bit)));
        assert!(found > 10 * same, "{found} found, {same} of no consequence");
    }

    #[test]
    fn files_that_hold_something_else_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
        let error = |chain: &Path, key: &Path| from_files(chain, key).err().unwrap().to_string();
        let said = error(&chain, &key);
        assert!(said.starts_with("tls_cert: cannot read") && said.contains("chain.pem"), "{said}");
        fs::write(&chain, "nothing").unwrap();
        fs::write(&key, "nothing").unwrap();
        let said = error(&chain, &key);
        assert!(said.starts_with("tls_cert: ") && said.contains("no certificate"), "{said}");
        development(&folder.path().join("tls")).unwrap();
        let said = error(&folder.path().join("tls/ca.pem"), &key);
        assert!(said.starts_with("tls_key: ") && said.contains("key.pem holds no key"), "{said}");
    }

    #[test]
    fn an_operators_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
        let pair = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["example.org".into()]).unwrap();
        let end = valid_for(&mut params, 30);
        fs::write(&chain, params.self_signed(&pair).unwrap().pem()).unwrap();
        fs::write(&key, pair.serialize_pem()).unwrap();
        let identity = from_files(&chain, &key).unwrap();
        assert_eq!((identity.certificate.chain().len(), identity.not_after), (1, end));
        assert!(identity.ca.is_none() && identity.warning.is_none());
        for (from, to) in [(2020, 2021), (2980, 2990)] {
            (params.not_before, params.not_after) =
                (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
            fs::write(&chain, params.self_signed(&pair).unwrap().pem()).unwrap();
            let said = from_files(&chain, &key).unwrap().warning.unwrap();
            let spans = said.contains(&from.to_string()) && said.contains(&to.to_string());
            assert!(said.contains("chain.pem: clients refuse it") && spans, "{said}");
        }
        // The leaf is good, what stands behind it is no certificate.
        let junk = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        fs::write(&chain, params.self_signed(&pair).unwrap().pem() + junk).unwrap();
        let said = from_files(&chain, &key).unwrap_err().to_string();
        assert!(said.starts_with("tls_cert: ") && said.contains("cannot be read"), "{said}");
        fs::write(&chain, params.self_signed(&pair).unwrap().pem()).unwrap();
        fs::write(&key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
        let said = from_files(&chain, &key).unwrap_err().to_string();
        let expected = "tls_key KEY does not belong to tls_cert CHAIN";
        let expected = expected.replace("KEY", key.to_str().unwrap());
        assert_eq!(said, expected.replace("CHAIN", chain.to_str().unwrap()));
    }
}
