//! The code of what an artifact says about its files: the text model's, which here and there has
//! seen such descriptions before.

use crate::coding::{Decoder, Encoder, Silent, TextModel};
use crate::header::MAX_HEADER;

/// What the model has seen before the first description: those of two Parquet files, one with the
/// metadata of Hugging Face's `datasets` and lists, one by pandas, and the names of writers. A part
/// of the format.
const PRIMER: &[u8] = include_bytes!("primer.bin");
/// Text that the model is sized for.
const SIZE: usize = 1 << 12;
/// After so many bytes of descriptions the model starts anew with the primer. A part of the format.
const LONG: usize = 1 << 18;

/// How long a description may be whose code takes so many bytes: a few damaged
/// ones must not keep the text model busy for long.
fn longest(coded: usize) -> usize {
    coded
        .saturating_mul(256)
        .saturating_add(1 << 12)
        .min(MAX_HEADER)
}

/// Codes the descriptions of an artifact from the first to the last.
#[derive(Clone)]
pub(crate) struct Descriptions {
    /// What goes on from one to the next. Each has a model of its own without.
    model: Option<Box<TextModel>>,
    /// Bytes that the model has coded behind the primer.
    coded: usize,
}

impl Descriptions {
    /// `primed` is whether the model goes on and has seen the primer: that pays for columnar files,
    /// which say much about themselves, and for several files.
    pub(crate) fn new(primed: bool) -> Self {
        Self {
            model: primed.then(primed_model),
            coded: 0,
        }
    }

    /// Takes note that so many bytes were coded.
    fn count(&mut self, bytes: usize) {
        self.coded = self.coded.saturating_add(bytes);
        if self.coded > LONG && self.model.is_some() {
            *self = Self::new(true);
        }
    }

    /// Does something with the model that is to be used.
    fn with<T>(&mut self, act: impl FnOnce(&mut TextModel) -> T) -> T {
        match &mut self.model {
            Some(model) => act(model),
            None => act(&mut TextModel::new(SIZE)),
        }
    }

    pub(crate) fn encode(&mut self, description: &[u8]) -> Vec<u8> {
        let mut coder = Encoder::new();
        self.with(|model| model.text(&mut coder, 0, description, MAX_HEADER));
        self.count(description.len());
        let mut coded = coder.finish();
        while longest(coded.len()) < description.len().min(MAX_HEADER) {
            coded.push(0); // what a decoder reads behind the end as well
        }
        coded
    }

    /// `None` where that is no code of a description.
    pub(crate) fn decode(&mut self, coded: &[u8]) -> Option<Vec<u8>> {
        let most = longest(coded.len());
        let found = self.with(|model| model.text(&mut Decoder::new(coded), 0, &[], most))?;
        self.count(found.len());
        Some(found)
    }
}

fn primed_model() -> Box<TextModel> {
    let mut model = TextModel::new(SIZE);
    model.text(&mut Silent, 0, PRIMER, MAX_HEADER);
    Box::new(model)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_description_that_says_little_is_read_and_one_of_next_to_nothing_is_not() {
        let description = b"x".repeat(100_000);
        let coded = Descriptions::new(false).encode(&description);
        assert_eq!(
            Descriptions::new(false).decode(&coded).unwrap(),
            description
        );
        // The same without most of the zeros behind its code.
        let end = coded.iter().rposition(|&byte| byte != 0).unwrap() + 1;
        assert!(end < 200, "{end} bytes of code");
        assert!(Descriptions::new(false).decode(&coded[..end]).is_none());
    }

    #[test]
    fn descriptions_are_told_by_those_before() {
        let describe = |shard: u32| {
            let fields: String = (0..20)
                .map(|n| format!("field {} of many, ", n * n))
                .collect();
            format!("shard {shard:05}: {fields}").into_bytes()
        };
        let (mut writer, mut reader) = (Descriptions::new(true), Descriptions::new(true));
        let mut lengths = Vec::new();
        for shard in 0..5 {
            let coded = writer.clone().encode(&describe(shard));
            // Looking what it takes changes nothing.
            assert_eq!(writer.encode(&describe(shard)), coded);
            assert_eq!(reader.decode(&coded).unwrap(), describe(shard));
            lengths.push(coded.len());
        }
        assert!(
            lengths[1..].iter().all(|&next| next * 4 < lengths[0]),
            "{lengths:?}"
        );
        // Beyond the end of the model's life.
        let long = |shard: u32| describe(shard).repeat(60);
        for shard in 0..20 {
            let coded = writer.encode(&long(shard));
            assert_eq!(reader.decode(&coded).unwrap(), long(shard));
            assert!(writer.coded <= LONG && writer.coded == reader.coded);
        }
        let alone = Descriptions::new(false).encode(PRIMER).len();
        let primed = Descriptions::new(true).encode(PRIMER).len();
        assert!(primed * 20 < alone, "{primed}, {alone}");
    }
}
