//! What can keep a model from being measured, and what to do about it.

use std::path::PathBuf;

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model could not be run.
    #[error(transparent)]
    Engine(#[from] sparse_engine::Error),
    /// A text that could not be read.
    #[error("cannot read {}: {cause}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        cause: std::io::Error,
    },
    /// A text that is not what its file name says.
    #[error("{}: {message}", .path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        message: String,
    },
    /// A table without the column that was asked for.
    #[error("{}: no column {column:?} of text; found {}", .path.display(), .found.join(", "))]
    Column {
        /// The file.
        path: PathBuf,
        /// The column asked for.
        column: String,
        /// Those that there are.
        found: Vec<String>,
    },
    /// A text with fewer tokens than the protocol needs.
    #[error("the text has {found} tokens, {protocol} needs at least {needed}")]
    TooShort {
        /// The protocol's name.
        protocol: &'static str,
        /// Tokens of the text, or of its longest document.
        found: usize,
        /// Tokens that there must be.
        needed: usize,
    },
    /// An option outside of its range.
    #[error("{option} must be {expected}, not {found}")]
    Option {
        /// The option.
        option: &'static str,
        /// Its range.
        expected: String,
        /// What was given.
        found: usize,
    },
    /// A protocol that needs a token that the tokenizer lacks.
    #[error("{protocol} begins every text with a token, and the tokenizer names none")]
    NoPrefix {
        /// The protocol's name.
        protocol: &'static str,
    },
    /// Two models whose predictions are about different tokens.
    #[error("base and candidate cannot be compared: {message}")]
    Incomparable {
        /// What differs.
        message: String,
    },
    /// The caller asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// What the user could do next.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Error::Engine(error) => return error.hint(),
            Error::Text { .. } => "texts are read from .txt, .jsonl and .parquet files".to_owned(),
            Error::Column { .. } => "name the column with --column".to_owned(),
            Error::TooShort { .. } => "use a longer text, or a smaller --context".to_owned(),
            Error::NoPrefix { .. } => {
                "use another --protocol, or name bos_token in tokenizer_config.json".to_owned()
            }
            Error::Incomparable { .. } => {
                "figures compare only over the same text, tokenizer, protocol, context and stride"
                    .to_owned()
            }
            _ => return None,
        })
    }
}
