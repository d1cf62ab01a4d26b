//! d
mod digest; mod error; mod words;
pub use error::Error; pub use digest::*;
