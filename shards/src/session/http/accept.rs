//! `Accept-Encoding`: whether a client takes the one form of content that exists.

/// Whether the identity form is acceptable to a client that sent these `Accept-Encoding` lines.
///
/// RFC 9110 §12.5.3: it is, unless `identity;q=0` says no, or `*;q=0` does and identity is not
/// named. Members that are no codings and weights that are no numbers exclude nothing.
pub(super) fn takes_identity<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> bool {
    let (mut identity, mut others) = (None, None);
    for member in lines.into_iter().flat_map(|line| line.split(|byte| *byte == b',')) {
        let mut parts = member.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let coding = parts.next().unwrap_or_default();
        let verdict = if coding.eq_ignore_ascii_case(b"identity") {
            &mut identity
        } else if coding == b"*" {
            &mut others
        } else {
            continue;
        };
        *verdict = Some(verdict.unwrap_or(false) || !parts.any(is_zero_weight));
    }
    identity.or(others).unwrap_or(true)
}

/// Whether a parameter is `q=0`, in any of its spellings (RFC 9110 §12.4.2).
fn is_zero_weight(parameter: &[u8]) -> bool {
    match parameter {
        [b'q' | b'Q', b'=', b'0'] => true,
        [b'q' | b'Q', b'=', b'0', b'.', digits @ ..] => {
            digits.len() <= 3 && digits.iter().all(|digit| *digit == b'0')
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_is_excluded_by_name_or_by_the_star() {
        for (lines, taken) in [
            (&[][..], true),
            (&[""], true),
            (&["gzip, br"], true),
            (&["gzip;q=1.0, *;q=0.5"], true),
            (&["identity"], true),
            (&["identity;q=0"], false),
            (&["Identity ; Q=0.000"], false),
            (&["identity;q=0."], false),
            (&["identity;q=0.001"], true),
            (&["identity;q=0.0000"], true),
            (&["identity;q=zero"], true),
            (&["*;q=0"], false),
            (&["br, *;q=0"], false),
            (&["*;q=0, identity;q=0.1"], true),
            (&["identity;q=0.1, *;q=0"], true),
            (&["*, identity;q=0"], false),
            (&["br", "identity;q=0"], false),
            (&["gzip;q=0"], true),
            (&["identityx;q=0"], true),
            (&[",;,;;q=0,"], true),
        ] {
            let lines = lines.iter().map(|line: &&str| line.as_bytes());
            assert_eq!(takes_identity(lines.clone()), taken, "{:?}", lines.collect::<Vec<_>>());
        }
    }
}
