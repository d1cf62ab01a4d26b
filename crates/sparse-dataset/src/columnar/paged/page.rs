//! One page of our writer, and what another writer would have made of it.

use std::borrow::Cow;

use super::codec::Codec;
use crate::columnar::pages::{PageHeader, read_header, with_sizes};

/// How deep the values of a column are nested.
#[derive(Clone, Copy, Debug)]
pub(super) struct Depth {
    pub(super) defined: bool,
    pub(super) repeated: bool,
}

/// A page that is not compressed.
#[derive(Debug)]
pub(super) struct OurPage<'a> {
    head: &'a [u8],
    pub(super) header: PageHeader,
    pub(super) bytes: &'a [u8],
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

    /// The page's bytes under a codec, with the header predicted for them. `width` gives references
    /// to a dictionary of one entry a bit each, as some writers do; `plain` leaves it as it is.
    pub(super) fn under(
        &self,
        codec: Codec,
        width: bool,
        plain: bool,
        depth: Depth,
    ) -> Option<(Vec<u8>, Cow<'a, [u8]>)> {
        let bytes = if width {
            Cow::Owned(self.widened(depth)?)
        } else {
            Cow::Borrowed(self.bytes)
        };
        self.packed(bytes, codec, plain)
    }

    /// As [`OurPage::under`], with other bytes than ours.
    pub(super) fn packed<'b>(
        &self,
        bytes: Cow<'b, [u8]>,
        codec: Codec,
        plain: bool,
    ) -> Option<(Vec<u8>, Cow<'b, [u8]>)> {
        let unfolded = bytes.len() as u64;
        let bytes = if plain || codec == Codec::Plain {
            bytes
        } else {
            let (levels, values) = bytes.split_at_checked(self.header.levels())?;
            let mut packed = codec.compress(values)?.into_owned();
            packed.splice(..0, levels.iter().copied());
            Cow::Owned(packed)
        };
        let head = with_sizes(self.head, unfolded, bytes.len() as u64)?;
        Some((head, bytes))
    }

    /// With references of a bit to the only entry of a dictionary, where they take none.
    fn widened(&self, depth: Depth) -> Option<Vec<u8>> {
        if !self.header.refers() {
            return None;
        }
        let mut at = 0;
        if self.header.is_second_version() {
            at = self.header.levels();
        } else {
            for there in [depth.repeated, depth.defined] {
                if there {
                    let length = self.bytes.get(at..)?.first_chunk::<4>()?;
                    at += 4 + u32::from_le_bytes(*length) as usize;
                }
            }
        }
        let mut bytes = self.bytes.to_vec();
        let width = bytes.get_mut(at).filter(|width| **width == 0)?;
        *width = 1;
        bytes.push(0);
        Some(bytes)
    }
}
