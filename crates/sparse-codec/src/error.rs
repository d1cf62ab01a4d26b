//! What can be wrong with coded bytes.

/// Coded bytes that no encoder of this crate wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// A section ends before its content does.
    #[error("{section} ends early")]
    Truncated {
        /// Which part of the chunk or table set.
        section: &'static str,
    },
    /// A field holds a value outside its range.
    #[error("{field} is {found}, expected {expected}")]
    Invalid {
        /// The field's name.
        field: &'static str,
        /// The value found.
        found: u64,
        /// The values allowed.
        expected: &'static str,
    },
    /// Bytes are left over after the last field.
    #[error("{section} has {extra} bytes too many")]
    Trailing {
        /// Which part of the chunk or table set.
        section: &'static str,
        /// How many bytes are left.
        extra: usize,
    },
}
