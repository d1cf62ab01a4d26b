//! What files say of their columns before a row is read.

use std::collections::HashMap;

/// How many digits of the decimals of a column stand behind the point, by name:
/// columnar files keep them as integers.
pub(crate) type Scales = HashMap<String, i8>;

/// The columns that a file declares.
pub(crate) struct Declared {
    pub(crate) names: String,
    /// With their types, where the format has any.
    pub(crate) typed: Option<String>,
}

impl Declared {
    pub(crate) fn names(names: &[String]) -> Self {
        Self {
            names: names.join(", "),
            typed: None,
        }
    }
}
