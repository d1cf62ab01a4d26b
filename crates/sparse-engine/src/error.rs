//! What can keep a checkpoint from being run, and what to do about it.

use std::path::PathBuf;

use sparse_checkpoint::Dtype;

/// Why a model could not be loaded or run.
///
/// The message names the file, and where there is one the tensor or layer, with what was expected
/// and what was found. [`Error::hint`] says what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The checkpoint could not be read.
    #[error(transparent)]
    Checkpoint(#[from] sparse_checkpoint::Error),
    /// A configuration that is not what its architecture needs.
    #[error("{}: {message}", .path.display())]
    Config {
        /// `config.json`, or another JSON file.
        path: PathBuf,
        /// What is wrong, and where.
        message: String,
    },
    /// An architecture that is not known here.
    #[error("{}: architecture {found:?} is not supported", .path.display())]
    Architecture {
        /// `config.json`.
        path: PathBuf,
        /// Its `model_type`.
        found: String,
    },
    /// A quantized layer that could not be read.
    #[error("layer {layer}: {message}")]
    Packed {
        /// The layer.
        layer: String,
        /// What is wrong with it.
        message: String,
    },
    /// Weights that are stored in a quantized format which this reader does not know.
    #[error("{}: weights are quantized ({method})", .path.display())]
    Quantized {
        /// `config.json`.
        path: PathBuf,
        /// Its `quant_method`.
        method: String,
    },
    /// A tensor that the architecture needs and the checkpoint lacks.
    #[error("{}: tensor {tensor:?} is missing", .root.display())]
    MissingTensor {
        /// The checkpoint.
        root: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor of another shape than the configuration implies.
    #[error(
        "{}: tensor {tensor:?} should have shape {expected:?}, found {found:?}",
        .path.display()
    )]
    Shape {
        /// The shard.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shape that the configuration implies.
        expected: Vec<u64>,
        /// The shape in the shard.
        found: Vec<u64>,
    },
    /// A tensor of a type that is not run.
    #[error("{}: tensor {tensor:?} has dtype {found}, expected F32, BF16 or F16", .path.display())]
    Type {
        /// The shard.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its type.
        found: Dtype,
    },
    /// A weight that is infinite or not a number.
    #[error("{}: tensor {tensor:?} holds NaN or infinite values", .path.display())]
    Weights {
        /// The shard.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A weight that the type it should be rounded to does not hold, or that is not finite.
    #[error("{}: tensor {tensor:?} has values that {to} does not hold", .path.display())]
    Range {
        /// The shard.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The type.
        to: Dtype,
    },
    /// Activations that became infinite or not a number.
    #[error("activations are NaN or infinite after {layer}")]
    Activations {
        /// The layer after which they were first seen.
        layer: String,
    },
    /// More tokens than the model has positions for.
    #[error("{found} tokens do not fit the model's context of {limit}")]
    Context {
        /// Tokens asked for.
        found: usize,
        /// The model's limit.
        limit: usize,
    },
    /// A token that the model has no embedding for.
    #[error("token id {token} is outside the model's vocabulary of {vocabulary}")]
    Token {
        /// The token.
        token: u32,
        /// Rows of the embedding.
        vocabulary: usize,
    },
    /// A tokenizer that cannot be used.
    #[error("{}: {message}", .path.display())]
    Tokenizer {
        /// `tokenizer.json` or `tokenizer_config.json`.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A checkpoint without `tokenizer.json`.
    #[error("{} has no tokenizer.json", .root.display())]
    NoTokenizer {
        /// The checkpoint.
        root: PathBuf,
    },
    /// A chat template that is missing, malformed, or that refused the conversation.
    #[error("chat template: {message}")]
    Template {
        /// What is wrong.
        message: String,
    },
    /// A prompt without any token.
    #[error("the prompt is empty, and the tokenizer has no token to begin with")]
    EmptyPrompt,
    /// A sampling option outside of its range.
    #[error("{option} must be {expected}, not {found}")]
    Option {
        /// The option.
        option: &'static str,
        /// Its range.
        expected: &'static str,
        /// What was given.
        found: String,
    },
    /// Threads could not be started.
    #[error("cannot start threads: {message}")]
    Threads {
        /// The system's answer.
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
            Error::Checkpoint(error) => return error.hint(),
            Error::Architecture { .. } => {
                format!("supported: {}", crate::Architecture::names().join(", "))
            }
            Error::Quantized { .. } => "pass the checkpoint it was made from".to_owned(),
            Error::MissingTensor { .. } | Error::Shape { .. } => {
                "config.json and the weights may belong to different models".to_owned()
            }
            Error::Type { .. } => "convert the weights to bf16, fp16 or fp32 first".to_owned(),
            Error::Weights { .. } => {
                "the training run may have diverged, or the file is damaged".to_owned()
            }
            Error::Range { to: Dtype::F16, .. } => "try bf16, which reaches further".to_owned(),
            Error::Range { .. } => "run the weights as they are stored".to_owned(),
            Error::Activations { .. } => {
                "the weights are finite, but their products are not: check where they come from"
                    .to_owned()
            }
            Error::Context { limit, .. } => format!("use at most {limit} tokens"),
            Error::Token { .. } => "tokenizer and model may not belong together".to_owned(),
            Error::NoTokenizer { .. } => {
                "copy tokenizer.json from the model's base into the folder".to_owned()
            }
            _ => return None,
        })
    }
}
