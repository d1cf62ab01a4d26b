//! From text to tokens and back, as the checkpoint's own `tokenizer.json` says.

use std::path::{Path, PathBuf};

use serde_json::Value;
use sparse_checkpoint::Checkpoint;

use crate::Error;
use crate::chat::ChatTemplate;

/// Enough for any tokenizer.
const MAX_BYTES: u64 = 256 << 20;

/// A checkpoint's tokenizer, with what the files beside it say of special tokens.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    path: PathBuf,
    bos: Option<String>,
    eos: Option<String>,
    adds_bos: bool,
    stops: Vec<u32>,
    template: Result<Option<ChatTemplate>, Error>,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, and `tokenizer_config.json`, `generation_config.json` and
    /// `chat_template.jinja` where they are there.
    ///
    /// # Errors
    /// If `tokenizer.json` is missing, or one of the JSON files is malformed. What is wrong with a
    /// chat template is said by [`Tokenizer::chat_template`]: texts can be had without it.
    pub fn open(checkpoint: &Checkpoint) -> Result<Tokenizer, Error> {
        let Some(file) = checkpoint.file("tokenizer.json") else {
            return Err(Error::NoTokenizer {
                root: checkpoint.root().to_path_buf(),
            });
        };
        let path = file.full_path().to_path_buf();
        let wrong = |message: String| Error::Tokenizer {
            path: path.clone(),
            message,
        };
        let mut inner = tokenizers::Tokenizer::from_bytes(file.read(MAX_BYTES)?)
            .map_err(|error| wrong(error.to_string()))?;
        // What was set for training batches is not for whole texts.
        inner.with_padding(None);
        inner
            .with_truncation(None)
            .map_err(|error| wrong(error.to_string()))?;

        let config = read_json(checkpoint, "tokenizer_config.json")?;
        let special = |key: &str| special_token(&config[key]);
        let (bos, eos) = (special("bos_token"), special("eos_token"));
        let mut stops = Vec::new();
        for file in ["generation_config.json", "config.json"] {
            stops.extend(ids(&read_json(checkpoint, file)?["eos_token_id"]));
        }
        stops.extend(eos.as_ref().and_then(|token| inner.token_to_id(token)));
        stops.sort_unstable();
        stops.dedup();
        let template = ChatTemplate::find(checkpoint, &config);
        Ok(Tokenizer {
            adds_bos: config["add_bos_token"].as_bool().unwrap_or(false),
            inner,
            path,
            bos,
            eos,
            stops,
            template,
        })
    }

    /// The tokens of a text, without any that the text itself does not hold.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        self.encode_as(text, false)
    }

    /// The tokens of a prompt: of its text, with those that the model expects before it.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>, Error> {
        self.encode_as(text, true)
    }

    fn encode_as(&self, text: &str, special: bool) -> Result<Vec<u32>, Error> {
        let encoding = self.inner.encode_fast(text, special);
        let encoding = encoding.map_err(|error| self.failed(error.as_ref()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of tokens; special ones are left out.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, Error> {
        self.inner
            .decode(tokens, true)
            .map_err(|error| self.failed(error.as_ref()))
    }

    fn failed(&self, error: &(dyn std::error::Error + Send + Sync)) -> Error {
        Error::Tokenizer {
            path: self.path.clone(),
            message: error.to_string(),
        }
    }

    /// Tokens after which a text ends.
    pub fn stops(&self) -> &[u32] {
        &self.stops
    }

    /// The token that a text begins with, where there is one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
            .as_ref()
            .and_then(|token| self.inner.token_to_id(token))
    }

    /// The token that a text ends with, where there is one.
    pub fn eos(&self) -> Option<u32> {
        self.eos
            .as_ref()
            .and_then(|token| self.inner.token_to_id(token))
    }

    /// Whether the tokenizer puts its first token before every prompt.
    pub fn adds_bos(&self) -> bool {
        let encoded = self.inner.encode_fast("a", true);
        self.adds_bos
            || encoded.is_ok_and(|one| {
                self.bos().is_some() && one.get_ids().first().copied() == self.bos()
            })
    }

    /// How conversations are written, where the checkpoint says it.
    ///
    /// # Errors
    /// If the template could not be read, or is malformed.
    pub fn chat_template(&self) -> Result<Option<&ChatTemplate>, &Error> {
        self.template.as_ref().map(Option::as_ref)
    }

    /// Number of tokens, those added to the vocabulary included.
    pub fn len(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Whether it has no token at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A text that grows token by token: a character is whole only with its last one.
#[derive(Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    tokens: Vec<u32>,
    /// Tokens before this one are not needed to decode what comes.
    start: usize,
    /// Bytes of the text from `start` on that were handed out.
    given: usize,
}

impl<'a> TextStream<'a> {
    /// An empty text.
    pub fn new(tokenizer: &'a Tokenizer) -> TextStream<'a> {
        TextStream {
            tokenizer,
            tokens: Vec::new(),
            start: 0,
            given: 0,
        }
    }

    /// Adds a token; returns what of the text is new and whole.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn push(&mut self, token: u32) -> Result<String, Error> {
        self.tokens.push(token);
        let text = self.tokenizer.decode(&self.tokens[self.start..])?;
        // An unfinished character decodes to the replacement character.
        if text.ends_with('\u{fffd}') || text.len() <= self.given {
            return Ok(String::new());
        }
        let Some(new) = text.get(self.given..) else {
            return Ok(String::new());
        };
        let new = new.to_owned();
        // The last token stays: a space may depend on it.
        let start = self.tokens.len() - 1;
        self.given = self.tokenizer.decode(&self.tokens[start..])?.len();
        self.start = start;
        Ok(new)
    }

    /// What is left: an unfinished character, as the replacement character.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn finish(self) -> Result<String, Error> {
        let text = self.tokenizer.decode(&self.tokens[self.start..])?;
        Ok(text.get(self.given..).unwrap_or_default().to_owned())
    }
}

fn read_json(checkpoint: &Checkpoint, name: &str) -> Result<Value, Error> {
    let Some(file) = checkpoint.file(name) else {
        return Ok(Value::Null);
    };
    parse_json(&file.read(MAX_BYTES)?, file.full_path())
}

fn parse_json(bytes: &[u8], path: &Path) -> Result<Value, Error> {
    serde_json::from_slice(bytes).map_err(|error| Error::Tokenizer {
        path: path.to_path_buf(),
        message: error.to_string(),
    })
}

/// A special token is its text, or an object that holds it.
pub(crate) fn special_token(value: &Value) -> Option<String> {
    let text = value.as_str().or_else(|| value["content"].as_str());
    text.map(str::to_owned)
}

/// One token id or a list of them.
fn ids(value: &Value) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Array(items) => items.iter().filter_map(id).collect(),
        one => id(one).into_iter().collect(),
    }
}
