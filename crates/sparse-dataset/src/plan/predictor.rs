//! One column as a function of others.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::table::{Kind, Record, hash_bytes};
use crate::wire::{Reader, put_bytes, put_number};

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Origin {
    /// A column of the base row.
    Base(u32),
    /// A column of the derivative row itself, coded before.
    Own(u32),
}

/// A change of ASCII case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fold {
    As,
    Lower,
    Upper,
}

impl Fold {
    pub(crate) fn apply(self, bytes: &[u8]) -> Cow<'_, [u8]> {
        let text = || String::from_utf8_lossy(bytes);
        match self {
            Self::As => Cow::Borrowed(bytes),
            Self::Lower => Cow::Owned(text().to_lowercase().into_bytes()),
            Self::Upper => Cow::Owned(text().to_uppercase().into_bytes()),
        }
    }
}

/// A part of a concatenation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Literal(Vec<u8>),
    Cell(Origin, Fold),
}

/// A column as a function of other columns; cells that it does not give are
/// coded as exceptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Predictor {
    /// The same value as in the row before (a constant, or runs).
    Previous,
    /// A copy, a change of case, a prefix or suffix added, a concatenation.
    Concat(Vec<Piece>),
    /// What follows the last occurrence of a mark.
    After(Origin, Vec<u8>),
    /// What precedes the first occurrence of a mark.
    Before(Origin, Vec<u8>),
    /// An element of a list.
    Element(Origin),
    /// The value last seen with the same value of the origin (a mapping).
    Learned(Origin),
    /// One more than in the row before (row numbers).
    Next,
}

/// What a predictor remembers of the rows before.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) previous: Option<(Kind, Vec<u8>)>,
    learned: HashMap<u64, (Kind, Vec<u8>)>,
}

const LEARNED_VALUES: usize = 1 << 16;
const LEARNED_LENGTH: usize = 1 << 12;

impl Known {
    /// Takes note of a cell and of the origin's value beside it.
    pub(crate) fn learn(
        &mut self,
        predictor: &Predictor,
        base: Option<&Record>,
        own: &Record,
        kind: Kind,
        bytes: &[u8],
    ) {
        if let Predictor::Learned(origin) = predictor
            && bytes.len() <= LEARNED_LENGTH
            && let Some((_, value)) = fetch(*origin, base, own)
        {
            let key = hash_bytes(value);
            if let Some(entry) = self.learned.get_mut(&key) {
                if entry.0 != kind || entry.1 != bytes {
                    *entry = (kind, bytes.to_vec());
                }
            } else if self.learned.len() < LEARNED_VALUES {
                self.learned.insert(key, (kind, bytes.to_vec()));
            }
        }
        match &mut self.previous {
            Some(previous) if previous.0 == kind && previous.1 == bytes => {}
            Some(previous) => {
                previous.0 = kind;
                previous.1.clear();
                previous.1.extend_from_slice(bytes);
            }
            empty => *empty = Some((kind, bytes.to_vec())),
        }
    }
}

/// An integer that is written the usual way.
pub(super) fn number(bytes: &[u8]) -> Option<i64> {
    let number: i64 = std::str::from_utf8(bytes).ok()?.parse().ok()?;
    (itoa::Buffer::new().format(number).as_bytes() == bytes).then_some(number)
}

fn fetch<'a>(
    origin: Origin,
    base: Option<&'a Record>,
    own: &'a Record,
) -> Option<(Kind, &'a [u8])> {
    match origin {
        Origin::Base(column) => base?.get(column as usize),
        Origin::Own(column) => own.get(column as usize),
    }
}

impl Predictor {
    /// The expected cell; `None` where a source is missing. `kind` is that of
    /// most cells, `element` the element chosen from a list.
    pub(crate) fn predict<'a>(
        &self,
        kind: Kind,
        known: &'a Known,
        base: Option<&'a Record>,
        own: &'a Record,
        element: usize,
    ) -> Option<(Kind, Cow<'a, [u8]>)> {
        let empty = |found: Kind| {
            if found == Kind::Null {
                Kind::Null
            } else {
                kind
            }
        };
        match self {
            Self::Previous => known
                .previous
                .as_ref()
                .map(|(kind, bytes)| (*kind, Cow::Borrowed(bytes.as_slice()))),
            Self::Next => {
                let (kind, bytes) = known.previous.as_ref()?;
                let next = number(bytes)?.checked_add(1)?;
                Some((*kind, Cow::Owned(next.to_string().into_bytes())))
            }
            Self::Concat(pieces) => {
                if let [Piece::Cell(origin, fold)] = pieces.as_slice() {
                    let (found, bytes) = fetch(*origin, base, own)?;
                    return Some((empty(found), fold.apply(bytes)));
                }
                let mut out = Vec::new();
                for piece in pieces {
                    match piece {
                        Piece::Literal(bytes) => out.extend_from_slice(bytes),
                        Piece::Cell(origin, fold) => {
                            out.extend_from_slice(&fold.apply(fetch(*origin, base, own)?.1))
                        }
                    }
                }
                Some((kind, Cow::Owned(out)))
            }
            Self::After(origin, mark) => {
                let (found, bytes) = fetch(*origin, base, own)?;
                let at = memchr::memmem::rfind(bytes, mark)?;
                Some((empty(found), Cow::Borrowed(&bytes[at + mark.len()..])))
            }
            Self::Before(origin, mark) => {
                let (found, bytes) = fetch(*origin, base, own)?;
                let at = memchr::memmem::find(bytes, mark)?;
                Some((empty(found), Cow::Borrowed(&bytes[..at])))
            }
            Self::Element(origin) => {
                let (_, list) = fetch(*origin, base, own)?;
                let element = *crate::text::elements(list).get(element)?;
                match element {
                    [b'"', inside @ .., b'"'] => {
                        let mut text = Vec::new();
                        crate::text::unescape(inside, &mut text).then_some((kind, Cow::Owned(text)))
                    }
                    _ => Some((kind, Cow::Borrowed(element))),
                }
            }
            Self::Learned(origin) => {
                let (_, value) = fetch(*origin, base, own)?;
                let (kind, bytes) = known.learned.get(&hash_bytes(value))?;
                Some((*kind, Cow::Borrowed(bytes)))
            }
        }
    }

    /// Whether it remembers cells of rows before.
    #[inline]
    pub(crate) fn remembers(&self) -> bool {
        matches!(self, Self::Previous | Self::Learned(_) | Self::Next)
    }

    /// The base column that this one is a copy of.
    #[inline]
    pub(crate) fn copied_base(&self) -> Option<u32> {
        match self {
            Self::Concat(pieces) => match pieces.as_slice() {
                [Piece::Cell(Origin::Base(column), Fold::As)] => Some(*column),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether it gives a cell of the base row alone.
    pub(crate) fn is_of_base(&self) -> bool {
        let origins = self.origins();
        !matches!(self, Self::Learned(_))
            && !origins.is_empty()
            && origins.iter().all(|o| matches!(o, Origin::Base(_)))
    }

    /// The columns this one is a function of.
    pub(crate) fn origins(&self) -> Vec<Origin> {
        match self {
            Self::Previous | Self::Next => Vec::new(),
            Self::Concat(pieces) => pieces
                .iter()
                .filter_map(|piece| match piece {
                    Piece::Cell(origin, _) => Some(*origin),
                    Piece::Literal(_) => None,
                })
                .collect(),
            Self::After(origin, _)
            | Self::Before(origin, _)
            | Self::Element(origin)
            | Self::Learned(origin) => vec![*origin],
        }
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Previous => out.push(0),
            Self::Concat(pieces) => {
                out.push(1);
                put_number(out, pieces.len() as u64);
                for piece in pieces {
                    match piece {
                        Piece::Literal(bytes) => {
                            out.push(3);
                            put_bytes(out, bytes);
                        }
                        Piece::Cell(origin, fold) => {
                            out.push(*fold as u8);
                            write_origin(*origin, out);
                        }
                    }
                }
            }
            Self::After(origin, mark) | Self::Before(origin, mark) => {
                out.push(if matches!(self, Self::After(..)) {
                    2
                } else {
                    3
                });
                write_origin(*origin, out);
                put_bytes(out, mark);
            }
            Self::Element(origin) => {
                out.push(4);
                write_origin(*origin, out);
            }
            Self::Learned(origin) => {
                out.push(5);
                write_origin(*origin, out);
            }
            Self::Next => out.push(6),
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(match reader.byte()? {
            0 => Self::Previous,
            1 => {
                let mut pieces = Vec::new();
                for _ in 0..reader.count()? {
                    pieces.push(match reader.byte()? {
                        0 => Piece::Cell(read_origin(reader)?, Fold::As),
                        1 => Piece::Cell(read_origin(reader)?, Fold::Lower),
                        2 => Piece::Cell(read_origin(reader)?, Fold::Upper),
                        3 => Piece::Literal(reader.sized()?.to_vec()),
                        _ => return None,
                    });
                }
                Self::Concat(pieces)
            }
            2 => Self::After(read_origin(reader)?, reader.sized()?.to_vec()),
            3 => Self::Before(read_origin(reader)?, reader.sized()?.to_vec()),
            4 => Self::Element(read_origin(reader)?),
            5 => Self::Learned(read_origin(reader)?),
            6 => Self::Next,
            _ => return None,
        })
    }
}

fn write_origin(origin: Origin, out: &mut Vec<u8>) {
    match origin {
        Origin::Base(column) => put_number(out, u64::from(column) * 2),
        Origin::Own(column) => put_number(out, u64::from(column) * 2 + 1),
    }
}

fn read_origin(reader: &mut Reader<'_>) -> Option<Origin> {
    let number = reader.number()?;
    let column = u32::try_from(number / 2).ok()?;
    Some(if number % 2 == 0 {
        Origin::Base(column)
    } else {
        Origin::Own(column)
    })
}
