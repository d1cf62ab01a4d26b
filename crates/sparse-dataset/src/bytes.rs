//! A file as bytes, where rows do not help: zstd over a window as large as the
//! file, with the base as its beginning where both fit into memory.

use std::io::{self, Read, Write};
use std::path::Path;

use crate::error::{Error, Result};
use crate::spec::{Progress, step};
use crate::table::{Source, Spill};

/// Larger files are compressed without the base.
pub(crate) const LARGEST: u64 = 256 << 20;
/// The window of files that are larger.
const WIDEST: u32 = 27;

fn window(file: u64, prefix: usize) -> u32 {
    if file > LARGEST {
        return WIDEST;
    }
    let total = file + prefix as u64;
    total
        .max(1)
        .next_power_of_two()
        .trailing_zeros()
        .clamp(10, 31)
}

/// Compresses a file given `prefix`, which must be empty for files larger than
/// [`LARGEST`]. Nothing if that takes more than `most` bytes.
pub(crate) fn pack(
    file: &Source,
    prefix: &[u8],
    level: i32,
    most: u64,
    progress: &dyn Progress,
) -> Result<Option<Spill>> {
    let mut out = Limited {
        spill: Some(Spill::default()),
        made: 0,
        most,
        path: &file.path,
    };
    let fits = out.fits(|out| pack_into(file, prefix, level, out, progress))?;
    Ok(out.spill.filter(|_| fits))
}

/// As [`pack`] at level 19, in memory.
pub(crate) fn pack_small(
    file: &Source,
    prefix: &[u8],
    most: u64,
    progress: &dyn Progress,
) -> Result<Option<Vec<u8>>> {
    let Some(packed) = pack(file, prefix, 19, most, progress)? else {
        return Ok(None);
    };
    let packed = packed.finish(&file.path)?;
    Ok(Some(packed.read(0, packed.len, &mut Vec::new())?.to_vec()))
}

/// Whether a fast setting of the same compressor makes more than `limit` bytes of a file given
/// `prefix`. It reads no further than that takes.
pub(crate) fn quickly_exceeds(
    file: &Source,
    prefix: &[u8],
    limit: u64,
    progress: &dyn Progress,
) -> Result<bool> {
    let mut out = Limited {
        spill: None,
        made: 0,
        most: limit,
        path: &file.path,
    };
    let fits = out.fits(|out| pack_into(file, prefix, 3, out, progress))?;
    Ok(!fits)
}

fn pack_into(
    file: &Source,
    prefix: &[u8],
    level: i32,
    out: &mut dyn Write,
    progress: &dyn Progress,
) -> Result<()> {
    let failed = Error::io(&file.path);
    let set_up = |out| {
        let mut encoder = zstd::stream::write::Encoder::with_ref_prefix(out, level, prefix)?;
        encoder.window_log(window(file.len, prefix.len()))?;
        encoder.long_distance_matching(true)?;
        encoder.include_contentsize(false)?;
        Ok::<_, io::Error>(encoder)
    };
    let mut encoder = set_up(out).map_err(failed)?;
    let mut done = 0;
    file.chunks(|chunk| {
        step(progress, "comparing with zstd", done, file.len)?;
        done += chunk.len() as u64;
        encoder.write_all(chunk).map_err(Error::io(&file.path))
    })?;
    encoder.finish().map(drop).map_err(Error::io(&file.path))
}

/// Undoes [`pack`] and hands the file on piece by piece. `false` if it is not
/// what a writer makes, or not exactly `length` bytes.
pub(crate) fn unpack(
    packed: impl Read,
    prefix: &[u8],
    length: u64,
    mut visit: impl FnMut(&[u8]) -> Result<()>,
) -> Result<bool> {
    let decoder = zstd::stream::read::Decoder::with_ref_prefix(io::BufReader::new(packed), prefix)
        .and_then(|mut decoder| {
            decoder.window_log_max(window(length, prefix.len()).max(WIDEST))?;
            Ok(decoder)
        });
    let Ok(decoder) = decoder else {
        return Ok(false);
    };
    let mut decoder = decoder.take(length.saturating_add(1));
    let mut buffer = vec![0; 1 << 18];
    let mut done = 0;
    loop {
        match decoder.read(&mut buffer) {
            Ok(0) => return Ok(done == length),
            Ok(read) => {
                done += read as u64;
                visit(&buffer[..read])?;
            }
            Err(_) => return Ok(false),
        }
    }
}

/// Stops a compressor that makes too much, and keeps what it makes where there is a spill.
struct Limited<'a> {
    spill: Option<Spill>,
    made: u64,
    most: u64,
    path: &'a Path,
}

impl Limited<'_> {
    /// Whether `write` makes no more than it may.
    fn fits(&mut self, write: impl FnOnce(&mut Self) -> Result<()>) -> Result<bool> {
        let written = write(self);
        // Too much ends in an error of the writer, which is none here.
        if self.made > self.most {
            return Ok(false);
        }
        written.map(|()| true)
    }
}

impl Write for Limited<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.made += bytes.len() as u64;
        if self.made > self.most {
            return Err(io::Error::other("more than it may take"));
        }
        if let Some(spill) = &mut self.spill {
            spill
                .push(self.path, |out| out.extend_from_slice(bytes))
                .map_err(io::Error::other)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn packed(data: &[u8], prefix: &[u8], most: u64) -> Option<Vec<u8>> {
        let file = Source::from_bytes(Path::new("test"), data.to_vec());
        pack_small(&file, prefix, most, &()).unwrap()
    }

    fn unpacked(packed: &[u8], prefix: &[u8], length: u64) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let whole = unpack(packed, prefix, length, |bytes| {
            out.extend_from_slice(bytes);
            Ok(())
        });
        whole.unwrap().then_some(out)
    }

    #[test]
    fn an_edit_of_the_prefix_is_small() {
        let prefix: Vec<u8> = (0..40_000u32)
            .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
            .collect();
        let mut data = prefix.clone();
        data.splice(50_000..50_010, *b"something else");
        let packed_data = packed(&data, &prefix, u64::MAX).unwrap();
        assert!(packed_data.len() < 120, "{}", packed_data.len());
        let length = data.len() as u64;
        assert_eq!(unpacked(&packed_data, &prefix, length), Some(data.clone()));
        assert_eq!(unpacked(&packed_data, &prefix, length - 1), None);
        assert_eq!(unpacked(&packed_data, &prefix, length + 1), None);
        assert_eq!(unpacked(&packed_data[1..], &prefix, length), None);
        assert_eq!(packed(&data, &[], 10_000), None);
    }
}
