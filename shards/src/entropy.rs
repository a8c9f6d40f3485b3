//! Randomness that was handed in: a shard makes its ids from a seed, and hashes with a secret.
//!
//! The two have nothing in common. Ids are shown to every peer, and the generator they come from,
//! [`SplitMix64`], can be run backwards: from one id follow all others, and the seed. So the seed
//! is for ids alone, and the secret comes from elsewhere, in the node from the system's generator.

use std::fmt;

use ron_io::splitmix::SplitMix64;

/// Words of a [`Secret`].
pub const SECRET_WORDS: usize = 6;

/// What the hash of a cache is keyed with: a peer may choose what is stored, but must not be able
/// to choose where it lies in the cache. It is not shown when printed for debugging.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u64; SECRET_WORDS]);

impl Secret {
    /// The secret that these random bytes are.
    pub fn from_bytes(bytes: [u8; SECRET_WORDS * 8]) -> Secret {
        let (words, _) = bytes.as_chunks::<8>();
        Secret(std::array::from_fn(|at| u64::from_le_bytes(words[at])))
    }

    /// A secret that follows from a number, so that a run can be repeated. It keeps nothing secret:
    /// for simulations and measurements only.
    pub fn of_seed(seed: u64) -> Secret {
        let mut numbers = SplitMix64::new(seed);
        Secret(std::array::from_fn(|_| numbers.next_u64()))
    }

    pub(crate) fn words(&self) -> [u64; SECRET_WORDS] {
        self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_all_of_its_bytes_and_never_shown() {
        let bytes: [u8; SECRET_WORDS * 8] = std::array::from_fn(|at| at as u8 + 1);
        let words = Secret::from_bytes(bytes).words();
        assert_eq!(words[0], 0x0807_0605_0403_0201);
        assert_eq!(words[5], 0x302f_2e2d_2c2b_2a29);
        assert_eq!(format!("{:?}", Secret::from_bytes(bytes)), "Secret(…)");
    }
}
