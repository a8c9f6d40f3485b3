//! Reading the settings again while the node runs.
//!
//! Certificate, write tokens and log level take effect; everything else waits for a restart, and a
//! warning names what has changed. All is read and checked before anything is put in force.

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

/// What control calls to read the settings again. `certificates` are those that listeners show, if
/// one of them speaks TLS.
pub(crate) fn reload(
    running: Config,
    settings: Settings,
    certificates: Option<Arc<Certificates>>,
    identify: Identify,
) -> Reload {
    // What is in force: as at the start, but for what was reloaded.
    let running = Mutex::new(running);
    Arc::new(move || {
        let read = settings().map_err(|error| error.to_string())?;
        let identity = match &certificates {
            Some(_) => Some(identify(&read).map_err(|error| error.to_string())?),
            None => None,
        };
        let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = running.needs_restart(&read);
        let mut warnings = read.warnings.clone();
        if !waiting.is_empty() {
            let waiting = waiting.join(", ");
            warnings.push(format!("settings that wait for a restart have changed: {waiting}"));
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

/// The write tokens as orders carry them.
pub(crate) fn write_tokens(config: &Config) -> WriteTokens {
    WriteTokens(config.writers.tokens.0.clone().into())
}
