//! One split from its blocks back to its file.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Mutex;

use sha2::{Digest, Sha256};

use crate::artifact::{Blocks, damaged};
use crate::bytes;
use crate::columnar::{ColumnarRows, Frame, Learner, Piece, Recipe, Script, guarded};
use crate::delta::{BlockDecoder, Decoded, RowCoder, Setup};
use crate::error::{Error, Result};
use crate::header::{Body, SplitHeader};
use crate::inputs::Base;
use crate::output::Output;
use crate::spec::{Progress, step};
use crate::table::Scales;
use crate::text::Layout;
use crate::workers::handed_on;

/// Bytes of a text file that are digested and written together.
const PIECE: usize = 1 << 18;

/// Where the pieces of a rebuilt file go.
pub(crate) trait Sink {
    fn write(&mut self, bytes: &[u8]) -> Result<()>;
}

impl Sink for Output {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        Output::write(self, bytes)
    }
}

/// Digests what would be written.
pub(crate) struct Check(pub(crate) Sha256);

impl Sink for Check {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.update(bytes);
        Ok(())
    }
}

/// Keeps what is written, which a patch then changes.
struct Keep<'a> {
    bytes: Vec<u8>,
    artifact: &'a Path,
}

impl Sink for Keep<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if (self.bytes.len() + bytes.len()) as u64 > 2 * bytes::LARGEST {
            return Err(damaged(
                self.artifact,
                "patch (of a file that is too large)",
            ));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

/// Hands what a columnar writer writes to a sink; keeps the sink's error.
struct SinkWriter<'a> {
    sink: &'a mut (dyn Sink + Send),
    failed: &'a Mutex<Option<Error>>,
    /// Bytes that the file may still have.
    left: u64,
    artifact: &'a Path,
}

impl Write for SinkWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.left.checked_sub(bytes.len() as u64);
        left.ok_or_else(|| damaged(self.artifact, "rows (more than the file had)"))
            .and_then(|left| {
                self.left = left;
                self.sink.write(bytes)
            })
            .map(|()| bytes.len())
            .map_err(|error| {
                if let Ok(mut failed) = self.failed.lock() {
                    *failed = Some(error);
                }
                io::Error::other("the output could not be written")
            })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Rebuilds the file of a split into `sink`. `artifact` is named in errors.
pub(crate) fn rebuild(
    artifact: &Path,
    header: &SplitHeader,
    blocks: &Blocks,
    base: &mut Base,
    sink: &mut (dyn Sink + Send),
    progress: &dyn Progress,
) -> Result<()> {
    rebuild_with(artifact, header, blocks, base, sink, None, progress)
}

/// As [`rebuild`], of a file that may have a learner in place of its frame.
pub(crate) fn rebuild_with(
    artifact: &Path,
    header: &SplitHeader,
    blocks: &Blocks,
    base: &mut Base,
    sink: &mut (dyn Sink + Send),
    learner: Option<Learner>,
    progress: &dyn Progress,
) -> Result<()> {
    if header.body == Body::Bytes {
        let prefix = base.prefix(header.bytes)?;
        let (source, start, end) = blocks.span();
        let mut written = 0;
        let whole = bytes::unpack(source.reader(start, end), &prefix, header.bytes, |piece| {
            written += piece.len() as u64;
            step(progress, "rebuilding", written, header.bytes)?;
            sink.write(piece)
        })?;
        return whole
            .then_some(())
            .ok_or_else(|| damaged(artifact, "compressed file"));
    }
    let recipe = match &header.body {
        Body::Columnar(recipe) => Some(guarded(artifact, || {
            Recipe::read(recipe).ok_or_else(|| damaged(artifact, "recipe"))
        })?),
        _ => None,
    };
    let by_pages = recipe.as_ref().is_some_and(Recipe::is_by_pages);
    if let Some(patch) = header.patch.as_ref().filter(|_| !by_pages) {
        let mut plain = Keep {
            bytes: Vec::new(),
            artifact,
        };
        let unpatched = SplitHeader {
            patch: None,
            ..header.clone()
        };
        rebuild(artifact, &unpatched, blocks, base, &mut plain, progress)?;
        let whole = bytes::unpack(patch.as_slice(), &plain.bytes, header.bytes, |piece| {
            sink.write(piece)
        })?;
        return whole
            .then_some(())
            .ok_or_else(|| damaged(artifact, "patch"));
    }
    let (threads, base) = (base.threads, &mut base.rows);
    let mut setup = Setup::new(
        &header.plan,
        &header.columns,
        &Scales::new(),
        header.templates.clone(),
        header.model,
        base,
    );
    setup.paragraphs = header.paragraphs;
    if header.body == Body::Text {
        setup.splices.clone_from(&header.splices);
    }
    let mut decoder = BlockDecoder::new(setup, base)?;
    let mut buffer = Vec::new();
    let nonsense = || damaged(artifact, "block of rows");
    let rebuilt = match (recipe, &header.layout) {
        (None, Some(layout)) => {
            let alike = base.escapes_as(layout);
            let produce = |put: &mut dyn FnMut(Vec<u8>) -> Result<()>| {
                let mut written = 0u64;
                let mut out = Vec::with_capacity(2 * PIECE);
                for (index, count) in blocks.rows().enumerate() {
                    let block = blocks.read(index, &mut buffer)?;
                    let complete = decoder.block(block, count, base, |setup, row| {
                        match row {
                            Decoded::Spliced(splice, line) => splice.apply(line, &mut out),
                            Decoded::Cells(rows, _) => {
                                write_row(setup, rows, layout, alike, &mut out);
                            }
                        }
                        if out.len() >= PIECE {
                            written += out.len() as u64;
                            if written > header.bytes {
                                return Err(damaged(artifact, "rows (more than the file had)"));
                            }
                            put(std::mem::replace(&mut out, Vec::with_capacity(2 * PIECE)))?;
                            step(progress, "rebuilding", written, header.bytes)?;
                        }
                        Ok(())
                    })?;
                    complete.ok_or_else(nonsense)?;
                }
                put(out)
            };
            handed_on(threads, produce, |piece| sink.write(&piece))
        }
        (Some(recipe), _) => {
            let path = Path::new(&header.name);
            let script = match (&header.patch, learner) {
                _ if !by_pages => None,
                (_, Some(learner)) => Some(Script::Learn(learner)),
                (frame, None) => {
                    let frame = frame.as_deref().and_then(Frame::read);
                    let frame = frame.ok_or_else(|| damaged(artifact, "frame"))?;
                    Some(Script::Follow(Box::new(frame)))
                }
            };
            let failed = Mutex::new(None);
            let write_all = || {
                let out = SinkWriter {
                    sink,
                    failed: &failed,
                    left: if by_pages { header.bytes } else { u64::MAX },
                    artifact,
                };
                let mut writer = recipe.writer(out, script, threads, path)?;
                let mut output = ColumnarRows::new(recipe, writer.takes_pieces());
                // Whole row groups are not to wait beside each other.
                let threads = if by_pages { threads } else { 1 };
                let produce = |put: &mut dyn FnMut(Piece) -> Result<()>| {
                    let mut done = 0;
                    for (index, count) in blocks.rows().enumerate() {
                        let block = blocks.read(index, &mut buffer)?;
                        let complete = decoder.block(block, count, base, |_, row| match row {
                            Decoded::Cells(rows, _) => output.push(&rows.own, path, put),
                            Decoded::Spliced(..) => Ok(()), // of text alone
                        })?;
                        complete.ok_or_else(nonsense)?;
                        done += u64::from(count);
                        step(progress, "rebuilding", done, header.counts.rows)?;
                    }
                    output.finish(path, put)
                };
                let write = |piece: Piece| writer.write(&piece.batch, piece.ends, path);
                handed_on(threads, produce, write)?;
                writer.finish(path)
            };
            let result = guarded(path, write_all);
            match failed.into_inner() {
                Ok(Some(error)) => Err(error),
                _ => result,
            }
        }
        _ => Err(damaged(artifact, "layout")),
    };
    base.set_unused(decoder.into_unused());
    rebuilt
}

/// Spells a row as it stood in the file. `alike` says that strings which stand
/// in the base as they are do so here.
fn write_row(setup: &Setup, rows: &RowCoder, layout: &Layout, alike: bool, out: &mut Vec<u8>) {
    let template = &setup.templates[rows.own.template as usize];
    let order = rows.order(rows.own.template);
    let straight = order
        .iter()
        .enumerate()
        .all(|(place, &cell)| place as u32 == cell);
    for (cell, &column) in template.columns.iter().enumerate() {
        out.extend_from_slice(&template.pieces[cell]);
        let place = if straight {
            cell
        } else {
            order
                .iter()
                .position(|&c| c as usize == cell)
                .unwrap_or(cell)
        };
        let cell = rows.own.cells()[place];
        let bytes = rows.own.bytes(cell);
        if alike && cell.plain {
            out.push(b'"');
            out.extend_from_slice(bytes);
            out.push(b'"');
        } else {
            layout.spell(column as usize, cell.kind, bytes, out);
        }
    }
    if let Some(last) = template.pieces.last() {
        out.extend_from_slice(last);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::artifact::Artifact;
    use crate::spec::CompressSpec;

    /// Compresses, rebuilds, and gives how much of the lines is replaced.
    fn splices(base: &[u8], derivative: &[u8], name: &str) -> Vec<(usize, usize)> {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: String| folder.path().join(name);
        let (old, new) = (path(format!("a.{name}")), path(format!("b.{name}")));
        std::fs::write(&old, base).unwrap();
        std::fs::write(&new, derivative).unwrap();
        let spec = CompressSpec::default();
        crate::compress(&old, &new, folder.path(), &spec, &()).unwrap();
        let again = path(format!("c.{name}"));
        crate::reconstruct(&old, folder.path(), &again, 2, &()).unwrap();
        assert_eq!(std::fs::read(&again).unwrap(), derivative);
        let artifact = Artifact::open(folder.path()).unwrap();
        let mut found = Vec::new();
        let see = |splice: &crate::delta::Splice| (splice.cut, splice.tail.len());
        artifact
            .each_split(|header, _, _| {
                found.extend(header.splices.iter().map(see));
                Ok(())
            })
            .unwrap();
        found
    }

    fn lines(row: impl Fn(u32) -> String) -> Vec<u8> {
        (0..500).map(row).collect::<String>().into_bytes()
    }

    #[test]
    fn lines_of_whole_rows_are_taken_over_where_they_end_alike() {
        let text = |n: u32| format!("{} is what \\u00e9 says, {}", n * n % 977, n * 7919);
        let base = lines(|n| format!("{{\"n\": {n}, \"text\": \"{}\"}}\n", text(n)));
        let tagged = lines(|n| {
            let n = n * 3 % 500;
            format!(
                "{{\"n\": {n}, \"text\": \"{}\", \"tag\": \"x\"}}\n",
                text(n)
            )
        });
        assert_eq!(splices(&base, &tagged, "jsonl"), [(2, 14)]);
        // Both without a line break at their ends.
        let cut = (&base[..base.len() - 1], &tagged[..tagged.len() - 1]);
        assert_eq!(splices(cut.0, cut.1, "jsonl"), [(2, 14), (2, 13)]);
        assert_eq!(splices(&base, &base, "jsonl"), [(0, 0)]);
        // A column less has no fixed length.
        let less = lines(|n| format!("{{\"n\": {n}}}\n"));
        assert_eq!(splices(&base, &less, "jsonl"), []);
        // A value that counts on is no end of all lines.
        let numbered = lines(|n| {
            let text = text(n);
            format!("{{\"n\": {n}, \"text\": \"{text}\", \"at\": {}}}\n", n + 5)
        });
        assert_eq!(splices(&base, &numbered, "jsonl"), []);
        let header = b"n,text\n".to_vec();
        let table = [header, lines(|n| format!("{n},\"{}\"\n", text(n)))].concat();
        let header = b"n,text,tag\r\n".to_vec();
        let wide = [header, lines(|n| format!("{n},\"{}\",x\r\n", text(n)))].concat();
        assert_eq!(splices(&table, &wide, "csv"), [(1, 4)]);
    }
}
