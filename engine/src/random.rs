//! Bytes that nobody can guess, for names that must not meet again.

/// The system had no random bytes.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the system has no random bytes")]
pub struct NoRandom;

/// `N` bytes from the system's generator.
///
/// # Errors
/// It had none.
pub fn bytes<const N: usize>() -> Result<[u8; N], NoRandom> {
    let mut bytes = [0; N];
    let generator = rustls::crypto::aws_lc_rs::default_provider().secure_random;
    generator.fill(&mut bytes).map_err(|_| NoRandom)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_two_draws_are_the_same() {
        assert_ne!(super::bytes::<16>().unwrap(), super::bytes::<16>().unwrap());
    }
}
