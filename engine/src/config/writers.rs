//! Who may write: tokens, whether loopback is trusted, and the names the node is reached by.

use std::fmt;

use ron_codec::authority::Authority;

use super::{error::ConfigError, limits, settings::Settings, values};

/// Who may write to the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writers {
    pub tokens: Tokens,
    /// Whether requests of this machine need no token while none is configured.
    pub loopback: bool,
    /// Names beside `localhost` that such requests, and readers of the admin listener, may use.
    pub names: Vec<String>,
}

/// Tokens that allow writes. They are not shown when printed for debugging.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tokens(pub Vec<String>);

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({})", self.0.len())
    }
}

impl Default for Writers {
    fn default() -> Writers {
        Writers { tokens: Tokens::default(), loopback: true, names: Vec::new() }
    }
}

impl Writers {
    /// What the listeners judge them by.
    pub(super) fn authority(&self) -> Authority {
        Authority::new(&self.tokens.0, self.loopback, &self.names)
    }
}

impl Settings {
    pub(super) fn writers(&self) -> Result<Writers, ConfigError> {
        Ok(Writers {
            tokens: self.write_tokens()?,
            loopback: self.on_or_off("write_loopback", true)?,
            names: self.server_names()?,
        })
    }

    fn write_tokens(&self) -> Result<Tokens, ConfigError> {
        let Some(given) = self.given("write_tokens") else { return Ok(Tokens::default()) };
        let tokens = split(&given.texts);
        if tokens.len() <= limits::TOKENS_MAX && tokens.iter().all(|token| values::is_token(token))
        {
            return Ok(Tokens(tokens));
        }
        // A token is a secret even when it is a bad one.
        let (count, len) = (limits::TOKENS_MAX, limits::TOKEN_LEN_MAX);
        let allowed =
            format!("up to {count} tokens of 1 to {len} of A-Za-z0-9-._~+/, = at the end");
        let (value, origin) = ("…".to_owned(), given.source.clone());
        Err(ConfigError::Value { key: "write_tokens", value, origin, allowed })
    }

    fn server_names(&self) -> Result<Vec<String>, ConfigError> {
        const KEY: &str = "server_names";
        let Some(given) = self.given(KEY) else { return Ok(Vec::new()) };
        let names = split(&given.texts);
        let max = limits::NAMES_MAX;
        if names.len() <= max && names.iter().all(|name| values::is_host_name(name)) {
            return Ok(names);
        }
        Err(self.refuse(KEY, format!("up to {max} host names without port, such as ron.example")))
    }
}

/// The parts between commas.
fn split(texts: &[String]) -> Vec<String> {
    texts.iter().flat_map(|text| text.split(',')).map(str::to_owned).collect()
}
