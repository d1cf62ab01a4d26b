//! What the rows of a Parquet file do not lead to: page headers, indexes and the footer, and the
//! pages that come out otherwise. Written against what our own writer makes.

use std::ops::Range;
use std::path::Path;

use crate::bytes;
use crate::error::Result;
use crate::table::Source;
use crate::wire::{Reader, put_bytes, put_number};

/// A frame that unfolds to more is neither written nor read.
const LARGEST: u64 = 256 << 20;

/// The header is not as predicted.
const HEAD: u8 = 1;
/// References to a dictionary of one entry take a bit each, not none.
const WIDTH: u8 = 2;
/// The page's bytes are in the frame.
const LITERAL: u8 = 4;
/// The page is not compressed though its column is.
const PLAIN: u8 = 8;
/// The page's values are told by a zstd frame with ours before them.
const PATCHED: u8 = 16;

/// How a page is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// Of the page that our writer made of the same rows.
    Ours { width: bool, plain: bool },
    /// Of that too, by a patch of so many bytes that makes so many of it.
    Patched {
        patch: usize,
        unfolded: usize,
        plain: bool,
    },
    /// Of so many bytes of the frame.
    Literal(usize),
}

/// A frame being written.
#[derive(Default)]
pub(super) struct FrameWriter {
    pages: Vec<u8>,
    literals: Vec<u8>,
    /// What it takes before it is compressed, as far as that can be large.
    pub(super) size: u64,
}

impl FrameWriter {
    pub(super) fn cuts(&mut self, cuts: &[u64]) {
        self.count(cuts.len());
        for &cut in cuts {
            put_number(&mut self.pages, cut);
        }
    }

    pub(super) fn count(&mut self, count: usize) {
        put_number(&mut self.pages, count as u64);
    }

    /// Notes a page, its header against the one predicted, and the bytes that are kept of it.
    pub(super) fn page(&mut self, head: &[u8], predicted: &[u8], body: Body, kept: &[u8]) {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let kind = match body {
            Body::Ours { width, plain } => flag(width, WIDTH) | flag(plain, PLAIN),
            Body::Patched { plain, .. } => PATCHED | flag(plain, PLAIN),
            Body::Literal(_) => LITERAL,
        };
        self.pages.push(kind | flag(head != predicted, HEAD));
        if head != predicted {
            let alike = |pairs: &mut dyn Iterator<Item = (&u8, &u8)>| {
                pairs.take_while(|(one, other)| one == other).count()
            };
            let before = alike(&mut head.iter().zip(predicted));
            let rest = (&head[before..], &predicted[before..]);
            let after = alike(&mut rest.0.iter().rev().zip(rest.1.iter().rev()));
            let middle = &rest.0[..rest.0.len() - after];
            put_number(&mut self.pages, before as u64);
            put_number(&mut self.pages, after as u64);
            put_bytes(&mut self.pages, middle);
            self.size += middle.len() as u64;
        }
        match body {
            Body::Ours { .. } => {}
            Body::Patched {
                patch, unfolded, ..
            } => {
                put_number(&mut self.pages, patch as u64);
                put_number(&mut self.pages, unfolded as u64);
            }
            Body::Literal(length) => put_number(&mut self.pages, length as u64),
        }
        self.literals.extend_from_slice(kept);
        self.size += kept.len() as u64;
    }

    /// The frame; `tail` is what follows the pages, `ours` what follows ours. `None` if it is too
    /// large.
    pub(super) fn finish(self, tail: Vec<u8>, ours: &[u8], file: &Path) -> Result<Option<Vec<u8>>> {
        let mut body = Vec::new();
        put_bytes(&mut body, &self.pages);
        body.extend_from_slice(&self.literals);
        let mut out = Vec::new();
        put_number(&mut out, body.len() as u64);
        put_number(&mut out, tail.len() as u64);
        if body.len().max(tail.len()) as u64 > LARGEST {
            return Ok(None);
        }
        let (Some(body), Some(tail)) = (packed(body, &[], file)?, packed(tail, ours, file)?) else {
            return Ok(None);
        };
        put_bytes(&mut out, &body);
        out.extend_from_slice(&tail);
        Ok(Some(out))
    }
}

/// `bytes` told with `prefix` before them.
pub(super) fn packed(bytes: Vec<u8>, prefix: &[u8], file: &Path) -> Result<Option<Vec<u8>>> {
    let source = Source::from_bytes(file, bytes);
    bytes::pack_small(&source, prefix, LARGEST, &())
}

/// Undoes [`packed`].
pub(super) fn unpacked(bytes: &[u8], prefix: &[u8], length: u64) -> Option<Vec<u8>> {
    if length > LARGEST {
        return None;
    }
    let mut out = Vec::new();
    let whole = bytes::unpack(bytes, prefix, length, |piece| {
        out.extend_from_slice(piece);
        Ok(())
    });
    matches!(whole, Ok(true)).then_some(out)
}

/// A frame being followed. Every method gives `None` where no writer wrote that.
#[derive(Debug)]
pub(crate) struct Frame {
    pages: Vec<u8>,
    at: usize,
    literals: Vec<u8>,
    used: usize,
    tail: Vec<u8>,
    tail_length: u64,
}

impl Frame {
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let (length, tail_length) = (reader.number()?, reader.number()?);
        let body = unpacked(reader.sized()?, &[], length)?;
        let mut inner = Reader::new(&body);
        Some(Self {
            pages: inner.sized()?.to_vec(),
            at: 0,
            literals: inner.rest().to_vec(),
            used: 0,
            tail: reader.rest().to_vec(),
            tail_length,
        })
    }

    /// Reads on with `read`.
    fn with<T>(&mut self, read: impl FnOnce(&mut Reader<'_>) -> Option<T>) -> Option<T> {
        let mut reader = Reader::new(self.pages.get(self.at..)?);
        let found = read(&mut reader);
        self.at = self.pages.len() - reader.left();
        found
    }

    /// How many values each page of a column chunk has.
    pub(super) fn cuts(&mut self) -> Option<Vec<u64>> {
        self.with(|reader| {
            let count = reader.count()?;
            (0..count).map(|_| reader.number()).collect()
        })
    }

    /// A count of things that take at least a byte each.
    pub(super) fn count(&mut self) -> Option<usize> {
        self.with(|reader| reader.count())
    }

    /// How the next page is made; its header is asked for afterwards.
    pub(super) fn body(&mut self) -> Option<(Body, Head)> {
        self.with(|reader| {
            let kind = reader.byte()?;
            let head = if kind & HEAD == 0 {
                Head::Predicted
            } else {
                Head::Edited {
                    before: usize::try_from(reader.number()?).ok()?,
                    after: usize::try_from(reader.number()?).ok()?,
                    middle: reader.sized()?.to_vec(),
                }
            };
            let mut length = || usize::try_from(reader.number()?).ok();
            let body = match kind & !HEAD {
                LITERAL => Body::Literal(length()?),
                flags if flags & !PLAIN == PATCHED => Body::Patched {
                    patch: length()?,
                    unfolded: length()?,
                    plain: flags & PLAIN != 0,
                },
                flags if flags & !(WIDTH | PLAIN) == 0 => Body::Ours {
                    width: flags & WIDTH != 0,
                    plain: flags & PLAIN != 0,
                },
                _ => return None,
            };
            Some((body, head))
        })
    }

    /// Where the next literal is, of so many bytes.
    pub(super) fn literal(&mut self, length: usize) -> Option<Range<usize>> {
        let start = self.used;
        let end = start.checked_add(length)?;
        let is_there = end <= self.literals.len();
        is_there.then(|| {
            self.used = end;
            start..end
        })
    }

    /// The bytes of a literal.
    pub(super) fn kept(&self, place: Range<usize>) -> Option<&[u8]> {
        self.literals.get(place)
    }

    /// Whether all of it can be followed, for so many row groups of so many columns, and leads to
    /// this end.
    pub(super) fn leads_to(
        mut self,
        groups: usize,
        columns: usize,
        ours: &[u8],
        tail: &[u8],
    ) -> bool {
        for _ in 0..groups {
            let cut = (0..columns).all(|_| self.cuts().is_some());
            if !cut || !(0..columns).all(|_| self.skip_chunk().is_some()) {
                return false;
            }
        }
        self.finish(ours).is_some_and(|found| found == tail)
    }

    fn skip_chunk(&mut self) -> Option<()> {
        for _ in 0..self.count()? {
            match self.body()?.0 {
                Body::Ours { .. } => {}
                Body::Patched { patch: kept, .. } | Body::Literal(kept) => {
                    self.literal(kept)?;
                }
            }
        }
        Some(())
    }

    /// What follows the pages, given what follows ours.
    pub(super) fn finish(self, ours: &[u8]) -> Option<Vec<u8>> {
        let whole = self.at == self.pages.len() && self.used == self.literals.len();
        whole.then(|| unpacked(&self.tail, ours, self.tail_length))?
    }
}

/// A page's header against the one predicted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    Predicted,
    Edited {
        before: usize,
        after: usize,
        middle: Vec<u8>,
    },
}

impl Head {
    pub(super) fn apply(&self, predicted: Vec<u8>) -> Option<Vec<u8>> {
        match self {
            Self::Predicted => Some(predicted),
            Self::Edited {
                before,
                after,
                middle,
            } => {
                let (start, rest) = predicted.split_at_checked(*before)?;
                let end = rest.get(rest.len().checked_sub(*after)?..)?;
                Some([start, middle, end].concat())
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_frame_comes_back() {
        let mut writer = FrameWriter::default();
        writer.cuts(&[7, 0, 300]);
        writer.count(4);
        let ours = |width, plain| Body::Ours { width, plain };
        let patched = Body::Patched {
            patch: 5,
            unfolded: 70,
            plain: true,
        };
        writer.page(b"head", b"head", ours(true, false), b"");
        writer.page(b"heads of pages", b"heads on pages", ours(false, true), b"");
        writer.page(b"", b"", patched, b"patch");
        writer.page(b"", b"something", Body::Literal(7), b"literal");
        assert_eq!(writer.size, 13);
        let file = Path::new("test");
        let bytes = writer
            .finish(b"the tail".to_vec(), b"a tail", file)
            .unwrap()
            .unwrap();
        let mut frame = Frame::read(&bytes).unwrap();
        assert!(
            Frame::read(&bytes)
                .unwrap()
                .leads_to(1, 1, b"a tail", b"the tail")
        );
        assert!(
            !Frame::read(&bytes)
                .unwrap()
                .leads_to(1, 1, b"a tail", b"the tale")
        );
        assert!(
            !Frame::read(&bytes)
                .unwrap()
                .leads_to(2, 1, b"a tail", b"the tail")
        );
        assert_eq!(frame.cuts(), Some(vec![7, 0, 300]));
        assert_eq!(frame.count(), Some(4));
        assert_eq!(frame.body(), Some((ours(true, false), Head::Predicted)));
        let (body, head) = frame.body().unwrap();
        assert_eq!(body, ours(false, true));
        assert_eq!(
            head.apply(b"heads on pages".to_vec()).unwrap(),
            b"heads of pages"
        );
        assert_eq!(frame.body(), Some((patched, Head::Predicted)));
        let patch = frame.literal(5).unwrap();
        assert_eq!(frame.kept(patch).unwrap(), b"patch");
        let (body, head) = frame.body().unwrap();
        assert_eq!(body, Body::Literal(7));
        assert_eq!(head.apply(b"something".to_vec()).unwrap(), b"");
        assert_eq!(frame.literal(8), None);
        let literal = frame.literal(7).unwrap();
        assert_eq!(frame.kept(literal).unwrap(), b"literal");
        assert_eq!(frame.finish(b"a tail").unwrap(), b"the tail");
        let unread = Frame::read(&bytes).unwrap();
        assert_eq!(unread.finish(b"a tail"), None);
        for cut in 0..bytes.len() {
            if let Some(mut frame) = Frame::read(&bytes[..cut]) {
                frame.cuts();
                frame.count();
                while frame.body().is_some() {}
                assert_eq!(
                    frame
                        .literal(7)
                        .map(|_| ())
                        .and_then(|()| frame.finish(b"a tail")),
                    None
                );
            }
        }
    }

    proptest! {
        #[test]
        fn damage_is_noticed_or_harmless(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut frame = Frame { pages: bytes, at: 0, literals: vec![1; 9], used: 0, tail: Vec::new(), tail_length: 0 };
            frame.count();
            while let Some((_, head)) = frame.body() {
                head.apply(vec![7; 20]);
            }
        }

        #[test]
        fn any_header_is_told_against_any_other(head in proptest::collection::vec(0u8..3, 0..20), predicted in proptest::collection::vec(0u8..3, 0..20)) {
            let mut writer = FrameWriter::default();
            writer.page(&head, &predicted, Body::Literal(0), b"");
            let bytes = writer.finish(Vec::new(), &[], Path::new("test")).unwrap().unwrap();
            let (_, told) = Frame::read(&bytes).unwrap().body().unwrap();
            prop_assert_eq!(told.apply(predicted), Some(head));
        }
    }
}
