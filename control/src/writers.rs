//! Who may give the node orders over the admin listener: whoever may write to it.

use axum::http::{HeaderMap, header};
use ron_codec::address::Address;

/// The tokens that allow writes, as digests: compared in constant time, and nothing to leak.
#[derive(Debug, Default)]
pub(crate) struct Writers(Vec<Address>);

/// Why an order is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// It came from elsewhere, without a token.
    Unauthorized,
    /// Its token is none of ours.
    Forbidden,
}

impl Writers {
    pub(crate) fn new(tokens: &[String]) -> Writers {
        Writers(tokens.iter().map(|token| Address::of(token.as_bytes())).collect())
    }

    /// Whether a request with these fields may change something: one from this machine always,
    /// any other with a token.
    ///
    /// A web page in a browser on this machine has the machine's address, too. Browsers name the
    /// page in `Origin`, and nobody else sends one, so such a request needs a token as well.
    pub(crate) fn check(&self, is_local: bool, headers: &HeaderMap) -> Result<(), Denied> {
        const SCHEME: &[u8] = b"Bearer ";
        if is_local && !headers.contains_key(header::ORIGIN) {
            return Ok(());
        }
        let token = headers.get(header::AUTHORIZATION).and_then(|value| {
            let (scheme, token) = value.as_bytes().split_at_checked(SCHEME.len())?;
            scheme.eq_ignore_ascii_case(SCHEME).then(|| token.trim_ascii())
        });
        let digest = Address::of(token.ok_or(Denied::Unauthorized)?);
        let known = self.0.iter().fold(false, |known, wanted| known | (*wanted == digest));
        if known { Ok(()) } else { Err(Denied::Forbidden) }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn who_may_give_orders() {
        let writers = Writers::new(&["one".into(), "other".into()]);
        for (is_local, origin, auth, expected) in [
            (true, false, "", Ok(())),
            (true, false, "Bearer wrong", Ok(())),
            (true, true, "", Err(Denied::Unauthorized)),
            (true, true, "Bearer one", Ok(())),
            (false, false, "", Err(Denied::Unauthorized)),
            (false, false, "Basic b25l", Err(Denied::Unauthorized)),
            (false, false, "Bear", Err(Denied::Unauthorized)),
            (false, false, "Bearer one", Ok(())),
            (false, false, "bearer  other", Ok(())),
            (false, false, "Bearer on", Err(Denied::Forbidden)),
            (false, false, "Bearer one,other", Err(Denied::Forbidden)),
        ] {
            let mut headers = HeaderMap::new();
            if origin {
                headers.insert(header::ORIGIN, HeaderValue::from_static("http://127.0.0.1:9096"));
            }
            if !auth.is_empty() {
                headers.insert(header::AUTHORIZATION, HeaderValue::from_static(auth));
            }
            assert_eq!(writers.check(is_local, &headers), expected, "{is_local} {origin} {auth}");
            let nobody = Writers::default().check(is_local, &headers);
            assert_eq!(nobody.is_ok(), is_local && !origin, "without tokens: {auth}");
        }
    }
}
