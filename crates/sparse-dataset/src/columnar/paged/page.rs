//! One page of our writer, and what another writer would have made of it.

use std::borrow::Cow;

use super::codec::{Codec, Packer};
use crate::columnar::pages::{PageHeader, as_first_version, read_header, with_sizes};

/// How the pages of a column are put together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) codec: Codec,
    /// Whether levels stand apart from values, which alone are compressed then.
    pub(super) second_version: bool,
    /// Whether there are levels that say what is null, and which values are of one row.
    pub(super) defined: bool,
    pub(super) repeated: bool,
}

/// A page's header and bytes.
pub(super) type Packed<'a> = (Vec<u8>, Cow<'a, [u8]>);

/// A page of the second version that is not compressed.
#[derive(Debug)]
pub(super) struct OurPage<'a> {
    head: &'a [u8],
    header: PageHeader,
    bytes: &'a [u8],
}

impl<'a> OurPage<'a> {
    /// The pages of a column chunk. `None` if that is no chunk, which our writer does not make.
    pub(super) fn all(mut chunk: &'a [u8]) -> Option<Vec<Self>> {
        let mut pages = Vec::new();
        while !chunk.is_empty() {
            let mut rest = chunk;
            let header = read_header(&mut rest)?;
            let head = &chunk[..chunk.len() - rest.len()];
            let (bytes, after) = rest.split_at_checked(usize::try_from(header.stored).ok()?)?;
            pages.push(Self {
                head,
                header,
                bytes,
            });
            chunk = after;
        }
        Some(pages)
    }

    /// The page's bytes as they stand in a file before they are compressed. `width` gives
    /// references to a dictionary of one entry a bit each, as some writers do.
    pub(super) fn plain(&self, shape: Shape, width: bool) -> Option<Cow<'a, [u8]>> {
        if self.header.is_dictionary() {
            return (!width).then_some(Cow::Borrowed(self.bytes));
        }
        let (levels, values) = self.bytes.split_at_checked(self.header.levels())?;
        let mut bytes = if shape.second_version {
            Cow::Borrowed(self.bytes)
        } else {
            let repetitions = usize::try_from(self.header.repetitions).ok()?;
            let (repetitions, definitions) = levels.split_at_checked(repetitions)?;
            let mut bytes = Vec::with_capacity(self.bytes.len() + 8);
            for (there, levels) in [(shape.repeated, repetitions), (shape.defined, definitions)] {
                if there {
                    bytes.extend_from_slice(&u32::try_from(levels.len()).ok()?.to_le_bytes());
                    bytes.extend_from_slice(levels);
                }
            }
            bytes.extend_from_slice(values);
            Cow::Owned(bytes)
        };
        if width {
            let bytes = bytes.to_mut();
            let at = bytes.len() - values.len();
            let width = bytes.get_mut(at).filter(|width| **width == 0);
            *width.filter(|_| self.header.refers())? = 1;
            bytes.push(0);
        }
        Some(bytes)
    }

    /// A page of `bytes`, compressed unless `plain`, with the header predicted for it.
    pub(super) fn packed<'b>(
        &self,
        bytes: Cow<'b, [u8]>,
        shape: Shape,
        plain: bool,
        packer: &mut Packer,
    ) -> Option<Packed<'b>> {
        let unfolded = bytes.len() as u64;
        let bytes = if plain || shape.codec == Codec::Plain {
            bytes
        } else {
            let levels = if shape.second_version {
                self.header.levels()
            } else {
                0
            };
            let (levels, values) = bytes.split_at_checked(levels)?;
            let mut packed = packer.compress(shape.codec, values)?.into_owned();
            packed.splice(..0, levels.iter().copied());
            Cow::Owned(packed)
        };
        let stored = bytes.len() as u64;
        let head = if shape.second_version || self.header.is_dictionary() {
            with_sizes(self.head, unfolded, stored)?
        } else {
            as_first_version(self.head, unfolded, stored)?
        };
        Some((head, bytes))
    }
}
