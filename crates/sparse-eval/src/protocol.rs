//! Perplexity protocols: which tokens are scored in which windows, and what the sum is divided by.
//!
//! The same model has a perplexity of 25 by one and of 38 by another, so a figure is worth nothing
//! without its protocol.

use std::fmt;
use std::str::FromStr;

use sparse_engine::Tokenizer;

use crate::Error;

/// How perplexity is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Documents joined by blank lines; windows of a context every stride, of which only tokens
    /// that no window before has scored count: the loop of Hugging Face's guide.
    HfStride,
    /// The same join; disjoint windows, the tail dropped: the GPTQ paper and what followed it.
    GptqPaper,
    /// Disjoint windows, the second half of each scored: llama.cpp's `llama-perplexity`.
    LlamaCpp,
    /// Each document alone, every token scored, per word: lm-eval's `loglikelihood_rolling`.
    LmEval,
    /// Each text alone, cut off at a context, losses weighted by token counts that include the
    /// first token.
    PerText,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Protocol; 5] = [
        Protocol::HfStride,
        Protocol::GptqPaper,
        Protocol::LlamaCpp,
        Protocol::LmEval,
        Protocol::PerText,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::HfStride => "hf-stride",
            Protocol::GptqPaper => "gptq-paper",
            Protocol::LlamaCpp => "llama-cpp",
            Protocol::LmEval => "lm-eval",
            Protocol::PerText => "per-text",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(name: &str) -> Result<Protocol, String> {
        let found = Protocol::ALL.into_iter().find(|one| one.name() == name);
        found.ok_or_else(|| {
            let names = Protocol::ALL.map(Protocol::name).join(", ");
            format!("unknown protocol {name:?}; there are {names}")
        })
    }
}

/// What is wanted of a measurement; what is left out is the protocol's usual value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// How.
    pub protocol: Protocol,
    /// Tokens of a window; the model's context by default, but 512 for `llama-cpp`.
    pub context: Option<usize>,
    /// Tokens from one window to the next; the context by default.
    pub stride: Option<usize>,
    /// Tokens of the text after which it is cut off.
    pub max_tokens: Option<usize>,
}

/// A window: its tokens, of which the last `scored` are predicted by those before them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Window {
    pub tokens: Vec<u32>,
    pub scored: usize,
    /// How many losses its mean loss counts for.
    pub weight: usize,
}

/// What a perplexity is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// The weights of its windows, together.
    Weights,
    /// The words of the documents.
    Words { words: usize, bytes: usize },
}

/// A text cut into windows: what every model that is measured on it sees.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub(crate) protocol: Protocol,
    pub(crate) context: usize,
    pub(crate) stride: usize,
    pub(crate) tokens: usize,
    pub(crate) windows: Vec<Window>,
    pub(crate) unit: Unit,
    documents: usize,
}

impl Plan {
    /// Cuts `documents` into windows for a model of context `limit`.
    ///
    /// # Errors
    /// If context or stride are out of range, or the text is too short.
    pub fn new(
        spec: &Spec,
        documents: &[String],
        tokenizer: &Tokenizer,
        limit: usize,
    ) -> Result<Plan, Error> {
        let protocol = spec.protocol;
        let usual = match protocol {
            Protocol::LlamaCpp => limit.min(512),
            _ => limit,
        };
        let context = spec.context.unwrap_or(usual);
        let least = if protocol == Protocol::LlamaCpp { 4 } else { 2 };
        check("context", context, least, limit)?;
        let stride = spec.stride.unwrap_or(context);
        check("stride", stride, 1, context)?;
        if protocol != Protocol::HfStride && stride != context {
            return Err(Error::Option {
                option: "stride",
                expected: format!("the context, {context}, by {protocol}"),
                found: stride,
            });
        }
        let cutter = Cutter {
            protocol,
            context,
            stride,
            tokenizer,
            max_tokens: spec.max_tokens.unwrap_or(usize::MAX),
        };
        let (windows, tokens, unit) = match protocol {
            Protocol::HfStride => cutter.hf_stride(documents)?,
            Protocol::GptqPaper => cutter.gptq_paper(documents)?,
            Protocol::LlamaCpp => cutter.llama_cpp(documents)?,
            Protocol::LmEval => cutter.lm_eval(documents)?,
            Protocol::PerText => cutter.per_text(documents)?,
        };
        Ok(Plan {
            protocol,
            context,
            stride,
            tokens,
            windows,
            unit,
            documents: documents.len(),
        })
    }

    /// The protocol.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Tokens of a window.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Tokens from one window to the next.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// By `per-text`: documents that are left out, as they have fewer than two tokens.
    pub fn skipped_documents(&self) -> Option<usize> {
        let each_alone = self.protocol == Protocol::PerText;
        each_alone.then(|| self.documents - self.windows.len())
    }

    /// Tokens that models are run on, windows that overlap included.
    pub fn processed_tokens(&self) -> usize {
        self.windows
            .iter()
            .map(|window| window.tokens.len() - 1)
            .sum()
    }
}

fn check(option: &'static str, found: usize, least: usize, most: usize) -> Result<(), Error> {
    if (least..=most).contains(&found) {
        return Ok(());
    }
    Err(Error::Option {
        option,
        expected: format!("from {least} to {most}"),
        found,
    })
}

struct Cutter<'a> {
    protocol: Protocol,
    context: usize,
    stride: usize,
    tokenizer: &'a Tokenizer,
    max_tokens: usize,
}

type Cut = Result<(Vec<Window>, usize, Unit), Error>;

impl Cutter<'_> {
    fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        let mut tokens = self.tokenizer.encode(text)?;
        tokens.truncate(self.max_tokens);
        Ok(tokens)
    }

    fn at_least(&self, needed: usize, found: usize) -> Result<(), Error> {
        if found >= needed {
            return Ok(());
        }
        Err(Error::TooShort {
            protocol: self.protocol.name(),
            found,
            needed,
        })
    }

    /// A window's mean loss counts for one token fewer than it scores, the text's first token
    /// included: the guide's own weights, which the usual figures were computed with.
    fn hf_stride(&self, documents: &[String]) -> Cut {
        let tokens = self.encode(&documents.join("\n\n"))?;
        self.at_least(2, tokens.len())?;
        let mut windows = Vec::new();
        let (mut begin, mut scored_up_to) = (0, 0);
        loop {
            let end = (begin + self.context).min(tokens.len());
            let targets = end - scored_up_to;
            if targets > 1 {
                windows.push(Window {
                    tokens: tokens[begin..end].to_vec(),
                    scored: targets.min(end - begin - 1),
                    weight: targets - 1,
                });
            }
            if end == tokens.len() {
                break;
            }
            scored_up_to = end;
            begin += self.stride;
        }
        Ok((windows, tokens.len(), Unit::Weights))
    }

    fn gptq_paper(&self, documents: &[String]) -> Cut {
        let tokens = self.encode(&documents.join("\n\n"))?;
        self.at_least(self.context, tokens.len())?;
        let whole = tokens.chunks_exact(self.context);
        let windows = whole.map(|tokens| Window {
            tokens: tokens.to_vec(),
            scored: self.context - 1,
            weight: self.context - 1,
        });
        Ok((windows.collect(), tokens.len(), Unit::Weights))
    }

    /// The file loses one trailing line break. Where the tokenizer begins texts with a token, that
    /// token replaces the first of each window.
    fn llama_cpp(&self, documents: &[String]) -> Cut {
        let text = documents.join("\n\n");
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let bos = self.tokenizer.bos().filter(|_| self.tokenizer.adds_bos());
        let mut tokens: Vec<u32> = bos.into_iter().collect();
        tokens.extend(self.encode(text)?);
        self.at_least(self.context, tokens.len())?;
        let scored = self.context - 1 - self.context / 2;
        let windows = tokens.chunks_exact(self.context).map(|tokens| {
            let mut tokens = tokens.to_vec();
            if let Some(bos) = bos {
                tokens[0] = bos;
            }
            Window {
                tokens,
                scored,
                weight: scored,
            }
        });
        Ok((windows.collect(), tokens.len(), Unit::Weights))
    }

    /// Every token is predicted once, the first after a prefix; the last window of a document
    /// reaches back, so that its context is as long as the others'.
    fn lm_eval(&self, documents: &[String]) -> Cut {
        let prefix = self.tokenizer.bos().or_else(|| self.tokenizer.eos());
        let Some(prefix) = prefix else {
            return Err(Error::NoPrefix {
                protocol: self.protocol.name(),
            });
        };
        let (mut windows, mut total, mut words, mut bytes) = (Vec::new(), 0, 0, 0);
        for document in documents {
            let mut padded = vec![prefix];
            padded.extend(self.encode(document)?);
            let count = padded.len() - 1;
            total += count;
            words += python_split(document);
            bytes += document.len();
            for begin in (0..count).step_by(self.context) {
                let end = (begin + self.context).min(count);
                windows.push(Window {
                    tokens: padded[end.saturating_sub(self.context)..=end].to_vec(),
                    scored: end - begin,
                    weight: end - begin,
                });
            }
        }
        self.at_least(1, total)?;
        Ok((windows, total, Unit::Words { words, bytes }))
    }

    fn per_text(&self, documents: &[String]) -> Cut {
        let (mut windows, mut total, mut longest) = (Vec::new(), 0, 0);
        for document in documents {
            let mut tokens = self.encode(document)?;
            total += tokens.len();
            longest = longest.max(tokens.len());
            tokens.truncate(self.context);
            if tokens.len() >= 2 {
                windows.push(Window {
                    scored: tokens.len() - 1,
                    weight: tokens.len(),
                    tokens,
                });
            }
        }
        self.at_least(2, longest)?;
        Ok((windows, total, Unit::Weights))
    }
}

/// How many pieces `re.split(r"\s+", text)` makes, which is what lm-eval calls words.
fn python_split(text: &str) -> usize {
    let edges = usize::from(text.starts_with(char::is_whitespace))
        + usize::from(text.len() > 1 && text.ends_with(char::is_whitespace));
    let words = text.split_whitespace().count();
    if words == 0 {
        return if text.is_empty() { 1 } else { 2 };
    }
    words + edges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_counted_as_python_splits() {
        for (text, count) in [
            ("", 1),
            (" ", 2),
            ("a", 1),
            ("a b", 2),
            (" a\n\nb ", 4),
            ("a\n", 2),
        ] {
            assert_eq!(python_split(text), count, "{text:?}");
        }
    }

    #[test]
    fn names_are_read_and_unknown_ones_answered_with_all() {
        for protocol in Protocol::ALL {
            assert_eq!(protocol.to_string().parse(), Ok(protocol));
        }
        assert!("hf".parse::<Protocol>().unwrap_err().contains("gptq-paper"));
    }
}
