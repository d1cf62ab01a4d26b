//! Digests of tensors and files.

use std::fmt;

/// SHA-256 of a whole file, as the hub shows it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileDigest(pub(crate) [u8; 32]);

/// BLAKE3 of a tensor's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TensorDigest(pub(crate) [u8; 32]);

/// BLAKE3 over what the delta refers to in its base.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BaseDigest(pub(crate) [u8; 32]);

/// The first eight bytes of a tensor's BLAKE3 digest: enough to notice accidents.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Check(pub(crate) [u8; 8]);

impl TensorDigest {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    pub(crate) fn check(&self) -> Check {
        let mut check = [0; 8];
        check.copy_from_slice(&self.0[..8]);
        Check(check)
    }
}

/// The first bytes of a BLAKE3 digest of stored bytes.
pub(crate) fn stored_check(hasher: &blake3::Hasher) -> [u8; 4] {
    let mut check = [0; 4];
    check.copy_from_slice(&hasher.finalize().as_bytes()[..4]);
    check
}

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))
}

macro_rules! shown_in_hex {
    ($($t:ty),*) => {$(
        impl fmt::Display for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                hex(&self.0, f)
            }
        }
        impl fmt::Debug for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                hex(&self.0, f)
            }
        }
    )*};
}
shown_in_hex!(FileDigest, TensorDigest, BaseDigest, Check);
