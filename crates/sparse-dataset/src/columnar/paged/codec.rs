//! The compressors of pages, down to the choices that decide their bytes.

use std::borrow::Cow;
use std::io::Read;

use flate2::{Compress, Crc, FlushCompress, Status};
use parquet::basic::Compression;

use super::snappy::Habit;

/// Which compressor, of which version, set how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    Plain,
    Zstd(i8),
    /// Google's Snappy.
    Snappy(Habit),
    /// The crate `snap`, as writers in Rust have it.
    Snap,
    /// A block of the crate `lz4_flex`, likewise.
    Lz4,
    Gzip(Gzip),
}

/// zlib, in the frame of gzip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gzip {
    level: u8,
    /// The system that the frame says it was made on.
    system: u8,
}

impl Gzip {
    /// Unix, macOS, Windows.
    const SYSTEMS: [u8; 3] = [3, 19, 10];

    /// `None` if zlib fails, which it does not.
    fn compress(self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut crc = Crc::new();
        crc.update(bytes);
        let effort = match self.level {
            9 => 2,
            1 => 4,
            _ => 0,
        };
        let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, effort, self.system];
        // More than any input grows by.
        out.reserve(bytes.len() + bytes.len() / 1000 + 1024);
        let level = flate2::Compression::new(self.level.into());
        let mut compress = Compress::new(level, false);
        let done = compress.compress_vec(bytes, &mut out, FlushCompress::Finish);
        if !matches!(done, Ok(Status::StreamEnd)) {
            return None;
        }
        out.extend_from_slice(&crc.sum().to_le_bytes());
        out.extend_from_slice(&crc.amount().to_le_bytes());
        Some(out)
    }
}

impl Codec {
    /// All that a column's metadata leaves open, more usual ones first; none of a compressor that
    /// is not known this well.
    pub(super) fn candidates(compression: Compression) -> Vec<Self> {
        let snappy = |bits, checksum| Self::Snappy(Habit { bits, checksum });
        match compression {
            Compression::UNCOMPRESSED => vec![Self::Plain],
            Compression::SNAPPY => vec![
                snappy(15, false),
                snappy(14, false),
                Self::Snap,
                snappy(15, true),
                snappy(14, true),
            ],
            Compression::ZSTD(_) => {
                let levels = [1, 3].into_iter();
                let levels = levels.chain((-7..=22).filter(|level| ![0, 1, 3].contains(level)));
                levels.map(Self::Zstd).collect()
            }
            Compression::LZ4_RAW => vec![Self::Lz4],
            Compression::GZIP(_) => {
                let levels = [9, 6].into_iter();
                let levels = levels.chain((1..9).filter(|&level| level != 6));
                let all = Gzip::SYSTEMS.into_iter().flat_map(|system| {
                    let gzip = move |level| Self::Gzip(Gzip { level, system });
                    levels.clone().map(gzip)
                });
                all.collect()
            }
            _ => Vec::new(),
        }
    }

    /// As two bytes.
    pub(super) fn code(self) -> [u8; 2] {
        match self {
            Self::Plain => [0, 0],
            Self::Zstd(level) => [1, level as u8],
            Self::Snappy(Habit { bits, checksum }) => [2, bits as u8 | u8::from(checksum) << 7],
            Self::Snap => [3, 0],
            Self::Lz4 => [4, 0],
            Self::Gzip(Gzip { level, system }) => {
                let known = Gzip::SYSTEMS.iter().position(|&known| known == system);
                [5, level | (known.unwrap_or_default() as u8) << 4]
            }
        }
    }

    pub(super) fn of_code(code: [u8; 2]) -> Option<Self> {
        Some(match code {
            [0, 0] => Self::Plain,
            [1, level] if (-7..=22).contains(&(level as i8)) => Self::Zstd(level as i8),
            [2, habit] if matches!(habit & 127, 14 | 15) => Self::Snappy(Habit {
                bits: u32::from(habit & 127),
                checksum: habit >> 7 == 1,
            }),
            [3, 0] => Self::Snap,
            [4, 0] => Self::Lz4,
            [5, habit] if (1..=9).contains(&(habit & 15)) => Self::Gzip(Gzip {
                level: habit & 15,
                system: *Gzip::SYSTEMS.get(usize::from(habit >> 4))?,
            }),
            _ => return None,
        })
    }

    /// What a page of `unfolded` bytes was compressed from. `None` if it is damaged.
    pub(super) fn unfold(self, bytes: &[u8], unfolded: usize) -> Option<Vec<u8>> {
        match self {
            Self::Plain => Some(bytes.to_vec()),
            Self::Zstd(_) => zstd::bulk::decompress(bytes, unfolded).ok(),
            Self::Snappy(_) | Self::Snap => {
                let said = snap::raw::decompress_len(bytes).ok()?;
                let right = said == unfolded;
                right.then(|| snap::raw::Decoder::new().decompress_vec(bytes).ok())?
            }
            Self::Lz4 => lz4_flex::block::decompress(bytes, unfolded).ok(),
            Self::Gzip(_) => {
                let mut out = Vec::new();
                let decoder = flate2::read::GzDecoder::new(bytes);
                let read = decoder.take(unfolded as u64 + 1).read_to_end(&mut out);
                (read.is_ok() && out.len() == unfolded).then_some(out)
            }
        }
    }
}

/// Compresses page after page: zstd's tables are made once.
#[derive(Default)]
pub(super) struct Packer {
    zstd: Option<(i8, zstd::bulk::Compressor<'static>)>,
}

impl Packer {
    /// `None` where the compressor fails.
    pub(super) fn compress<'a>(&mut self, codec: Codec, bytes: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        Some(Cow::Owned(match codec {
            Codec::Plain => return Some(Cow::Borrowed(bytes)),
            Codec::Zstd(level) => self.zstd(level)?.compress(bytes).ok()?,
            Codec::Snappy(habit) => {
                let mut out = Vec::with_capacity(bytes.len() / 2 + 64);
                habit.compress(bytes, &mut out);
                out
            }
            Codec::Snap => snap::raw::Encoder::new().compress_vec(bytes).ok()?,
            Codec::Lz4 => lz4_flex::block::compress(bytes),
            Codec::Gzip(gzip) => gzip.compress(bytes)?,
        }))
    }

    fn zstd(&mut self, level: i8) -> Option<&mut zstd::bulk::Compressor<'static>> {
        let known = self.zstd.take().filter(|(known, _)| *known == level);
        let compressor = match known {
            Some((_, compressor)) => compressor,
            None => zstd::bulk::Compressor::new(i32::from(level)).ok()?,
        };
        Some(&mut self.zstd.insert((level, compressor)).1)
    }

    /// Whether a codec makes `bytes` of what they unfold to.
    pub(super) fn makes(&mut self, codec: Codec, bytes: &[u8], unfolded: &[u8]) -> bool {
        let made = self.compress(codec, unfolded);
        made.is_some_and(|made| *made == *bytes)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn codes_come_back_and_others_are_refused() {
        let all = [
            Compression::UNCOMPRESSED,
            Compression::SNAPPY,
            Compression::ZSTD(Default::default()),
            Compression::LZ4_RAW,
            Compression::GZIP(Default::default()),
        ];
        let all: Vec<Codec> = all.into_iter().flat_map(Codec::candidates).collect();
        assert_eq!(all.len(), 63);
        let text = b"a page of values, a page of values, a page of more values".repeat(9);
        let mut packer = Packer::default();
        for codec in &all {
            assert_eq!(Codec::of_code(codec.code()), Some(*codec));
            let packed = packer.compress(*codec, &text).unwrap().into_owned();
            assert_eq!(codec.unfold(&packed, text.len()).unwrap(), text);
            assert!(Packer::default().makes(*codec, &packed, &text));
            // One that was used before makes the same.
            assert!(packer.makes(*codec, &packed, &text));
            assert_eq!(
                codec.unfold(&packed[..8], text.len()).is_some(),
                *codec == Codec::Plain
            );
        }
        let known: Vec<[u8; 2]> = all.iter().map(|codec| codec.code()).collect();
        for code in 0..=u16::MAX {
            let code = code.to_le_bytes();
            // Level 0 is another name of the default one.
            let expected = known.contains(&code) || code == [1, 0];
            assert_eq!(Codec::of_code(code).is_some(), expected, "{code:?}");
        }
        assert!(Codec::candidates(Compression::BROTLI(Default::default())).is_empty());
    }
}
