//! What the messages of an Arrow file claim to hold, checked before the reader
//! believes it: it allocates what they say.

use std::io::Read;
use std::path::Path;

use arrow_ipc::{CompressionType, RecordBatch, root_as_footer, root_as_message};

use crate::error::{Error, Result};
use crate::table::Source;

/// A batch that unfolds to more is refused.
pub(super) const MAX_BATCH: u64 = 1 << 30;
/// LZ4 makes at most so many times as much of its input.
const LZ4_TIMES: u64 = 255;
const MAGIC: &[u8] = b"ARROW1";
/// A continuation mark and a length.
const PREFIX: u64 = 8;

/// Goes through the messages of an Arrow file or stream; gives whether there is
/// metadata beside the schema's: of the file, or of a message. What makes no
/// sense is left to the reader.
pub(super) fn check_messages(file: &Source) -> Result<bool> {
    let mut buffer = Vec::new();
    let mut noted = false;
    if file.read(0, MAGIC.len() as u64, &mut buffer)? != MAGIC {
        let mut at = 0;
        while let Some(message) = check_message(file, at, None)? {
            at = message.end;
            noted |= message.noted;
        }
        return Ok(noted);
    }
    let Some(end) = file.len.checked_sub(10) else {
        return Ok(false);
    };
    let tail = file.read(end, end + 4, &mut buffer)?;
    let length = u64::from(number(tail));
    let Some(start) = end.checked_sub(length) else {
        return Ok(false);
    };
    let mut footer = Vec::new();
    let Ok(footer) = root_as_footer(file.read(start, end, &mut footer)?) else {
        return Ok(false);
    };
    noted |= footer
        .custom_metadata()
        .is_some_and(|list| !list.is_empty());
    let lists = [footer.dictionaries(), footer.recordBatches()];
    for block in lists.iter().flatten().flat_map(|list| list.iter()) {
        let sizes = [
            block.offset(),
            i64::from(block.metaDataLength()),
            block.bodyLength(),
        ];
        let [at, head, body] = sizes.map(|size| u64::try_from(size).unwrap_or(u64::MAX));
        let end = at.checked_add(head).and_then(|end| end.checked_add(body));
        if end.is_none_or(|end| end > file.len) {
            return Err(beyond(&file.path));
        }
        let message = check_message(file, at, Some(at + head))?;
        noted |= message.is_some_and(|message| message.noted);
    }
    Ok(noted)
}

/// A message that was checked.
struct Checked {
    end: u64,
    /// Whether it has metadata of its own.
    noted: bool,
}

/// Checks the message at `at`; gives nothing after the last. Its body starts
/// where the footer says, if there is one.
fn check_message(file: &Source, at: u64, body: Option<u64>) -> Result<Option<Checked>> {
    let mut buffer = Vec::new();
    let head = file.read(at, at.saturating_add(PREFIX), &mut buffer)?;
    // Before version 0.15 there was no continuation mark.
    let (length, start) = match head.strip_prefix(&[0xff; 4]) {
        Some(length) => (number(length), at + PREFIX),
        None => (number(head), at + PREFIX / 2),
    };
    if length == 0 {
        return Ok(None);
    }
    let after = start + u64::from(length);
    if after > file.len {
        return Err(beyond(&file.path));
    }
    let mut message = Vec::new();
    let Ok(message) = root_as_message(file.read(start, after, &mut message)?) else {
        return Ok(None);
    };
    let body = body.unwrap_or(after);
    let length = u64::try_from(message.bodyLength()).unwrap_or(u64::MAX);
    let end = body.checked_add(length).filter(|&end| end <= file.len);
    let end = end.ok_or_else(|| beyond(&file.path))?;
    let dictionary = message.header_as_dictionary_batch();
    let batch = message.header_as_record_batch();
    if let Some(batch) = batch.or_else(|| dictionary.and_then(|dictionary| dictionary.data())) {
        let unfolded = unfolded(file, body, &batch)?;
        if unfolded > MAX_BATCH {
            return Err(Error::TooLarge {
                path: file.path.clone(),
                what: "a record batch".to_owned(),
                found: unfolded,
                limit: MAX_BATCH,
            });
        }
    }
    let noted = message
        .custom_metadata()
        .is_some_and(|list| !list.is_empty());
    Ok(Some(Checked { end, noted }))
}

/// The bytes that the compressed buffers of a batch say they unfold to.
fn unfolded(file: &Source, body: u64, batch: &RecordBatch<'_>) -> Result<u64> {
    let mut total = 0u64;
    let mut bytes = Vec::new();
    let codec = batch.compression().map(|compression| compression.codec());
    let buffers = batch.compression().and_then(|_| batch.buffers());
    for buffer in buffers.iter().flat_map(|buffers| buffers.iter()) {
        let at = body.saturating_add(u64::try_from(buffer.offset()).unwrap_or(u64::MAX));
        let says = file.read(at, at.saturating_add(8), &mut bytes)?;
        // -1 says that a buffer is not compressed.
        let says = says.try_into().map_or(0, i64::from_le_bytes);
        if buffer.length() > 0 {
            let says = u64::try_from(says).unwrap_or(0);
            total = total.saturating_add(says);
            let length = u64::try_from(buffer.length()).unwrap_or(u64::MAX);
            if codec == Some(CompressionType::LZ4_FRAME) && length > MAX_BATCH / LZ4_TIMES {
                let end = at.saturating_add(length).min(file.len);
                let frame = file.reader(at.saturating_add(8).min(end), end);
                if says > 0 && !gives_no_more(frame, says) {
                    return Err(Error::Columnar {
                        path: file.path.clone(),
                        message: "damaged: a buffer that is larger than it says".to_owned(),
                    });
                }
            }
        }
    }
    Ok(total)
}

/// Whether a frame unfolds to no more than it says; other damage is left to the
/// reader, which unfolds all of a frame before it compares.
fn gives_no_more(frame: impl Read, says: u64) -> bool {
    let mut decoder = lz4_flex::frame::FrameDecoder::new(frame).take(says.saturating_add(1));
    let copied = std::io::copy(&mut decoder, &mut std::io::sink());
    copied.is_err() || decoder.limit() > 0
}

/// The number that starts `bytes`, 0 where they end before.
fn number(bytes: &[u8]) -> u32 {
    bytes
        .first_chunk()
        .map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn beyond(path: &Path) -> Error {
    Error::Columnar {
        path: path.to_owned(),
        message: "damaged: a message beyond the file's end".to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, LargeBinaryArray};
    use arrow_ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};

    use super::*;

    /// One batch with a zero-filled value, as a file and as a stream.
    fn files(length: usize) -> [Vec<u8>; 2] {
        let values = LargeBinaryArray::from_iter_values([vec![0u8; length]]);
        let values: ArrayRef = Arc::new(values);
        let batch = arrow_array::RecordBatch::try_from_iter([("a", values)]).unwrap();
        let options = || {
            let codec = Some(CompressionType::ZSTD);
            let options = IpcWriteOptions::default();
            options.try_with_compression(codec).unwrap()
        };
        let (mut file, mut stream) = (Vec::new(), Vec::new());
        let schema = batch.schema();
        let mut writer = FileWriter::try_new_with_options(&mut file, &schema, options()).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        let mut writer =
            StreamWriter::try_new_with_options(&mut stream, &schema, options()).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        [file, stream]
    }

    #[test]
    fn a_frame_that_holds_more_than_it_says_is_found() {
        let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
        std::io::Write::write_all(&mut encoder, &[0; 100_000]).unwrap();
        let frame = encoder.finish().unwrap();
        assert!(gives_no_more(frame.as_slice(), 100_000));
        assert!(!gives_no_more(frame.as_slice(), 99_999));
        assert!(gives_no_more(&frame[..frame.len() / 2], 100_000));
        assert!(gives_no_more(&frame[1..], 1));
    }

    #[test]
    fn batches_that_claim_too_much_are_refused() {
        for mut bytes in files(1_000_003) {
            let check = |bytes: &[u8]| {
                check_messages(&Source::from_bytes(Path::new("test"), bytes.to_vec()))
            };
            check(&bytes).unwrap();
            let length = 1_000_003u64.to_le_bytes();
            // The first is the value's end among the offsets, the last the buffer's length.
            let at = memchr::memmem::rfind(&bytes, &length).unwrap();
            bytes[at..at + 8].copy_from_slice(&(1u64 << 40).to_le_bytes());
            assert!(matches!(check(&bytes), Err(Error::TooLarge { .. })));
            for cut in 0..bytes.len() {
                let _ = check(&bytes[..cut]);
            }
        }
    }
}
