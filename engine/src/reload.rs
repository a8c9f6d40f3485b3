//! Reading the settings again while the node runs.
//!
//! Certificate, write tokens and log level take effect; everything else waits for a restart, and a
//! warning names what has changed. All is read and checked before anything is put in force, as a
//! start with these settings would: also that they fit the memory and the limit of open files, and
//! a certificate that is not shown yet. What only a start can find out is left to it: whether the
//! addresses are free, and what lies in the data directories.

use std::sync::{Arc, Mutex, PoisonError};

use ron_control::{Reload, Reloaded};
use ron_io::{ports::WriteTokens, ring::Certificates};

use crate::{
    certs::{CertError, Identity},
    config::{Config, ConfigError},
};

/// Reads the settings from where they came from when the node started.
pub type Settings = Box<dyn Fn() -> Result<Config, ConfigError> + Send + Sync>;

/// Reads the certificate that these settings name, or makes one.
pub(crate) type Identify = Box<dyn Fn(&Config) -> Result<Identity, CertError> + Send + Sync>;

/// Whether a node with these settings fits this machine, as is looked at when it starts.
pub(crate) type Fits = Box<dyn Fn(&Config) -> Result<(), String> + Send + Sync>;

/// What control calls to read the settings again. `certificates` are those that listeners show, if
/// one of them speaks TLS.
pub(crate) fn reload(
    running: Config,
    settings: Settings,
    certificates: Option<Arc<Certificates>>,
    (identify, fits): (Identify, Fits),
) -> Reload {
    // What is in force: as at the start, but for what was reloaded.
    let running = Mutex::new(running);
    Arc::new(move || {
        let read = settings().map_err(|error| error.to_string())?;
        fits(&read)?;
        // A listener that waits for a restart to go shows what it has shown. For one that waits to
        // come the operator's files must be good; a development CA is made when it is needed.
        let named = certificates.is_some() || read.tls.is_some();
        let identity = match read.serves_tls() && named {
            true => Some(identify(&read).map_err(|error| error.to_string())?),
            false => None,
        };
        // It was made already, whatever becomes of this reload.
        if let Some(warning) = identity.as_ref().and_then(|identity| identity.ca_warning(false)) {
            tracing::warn!("{warning}");
        }
        let identity = identity.filter(|_| certificates.is_some());
        let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = running.needs_restart(&read);
        let mut warnings = read.warnings.clone();
        if !waiting.is_empty() {
            let waiting = waiting.join(", ");
            warnings.push(format!("settings that wait for a restart have changed: {waiting}"));
        }
        warnings.extend(identity.as_ref().and_then(|identity| identity.warning.clone()));
        if read.writers.loopback && lost_tokens(&running, &read) {
            let text = "no write token is configured any more: requests of this machine may write";
            warnings.push(text.to_owned());
        }
        running.writers.tokens = read.writers.tokens.clone();
        let tls_not_after = identity.as_ref().map(|identity| identity.not_after);
        let certificates = certificates.clone();
        Ok(Reloaded {
            write_tokens: write_tokens(&read),
            log: read.log,
            tls_not_after,
            commit: Box::new(move || {
                if let (Some(certificates), Some(identity)) = (certificates, identity) {
                    certificates.replace(identity.certificate);
                }
            }),
            warnings,
        })
    })
}

/// Whether there were write tokens, and are not any more.
fn lost_tokens(running: &Config, read: &Config) -> bool {
    !running.writers.tokens.0.is_empty() && read.writers.tokens.0.is_empty()
}

/// The write tokens as orders carry them.
pub(crate) fn write_tokens(config: &Config) -> WriteTokens {
    WriteTokens(config.writers.tokens.0.clone().into())
}
