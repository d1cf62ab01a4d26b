//! Texts to measure on: a file, or a column of one.

use std::fs::{self, File};
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::Error;

/// More text than anybody measures on; what is larger was not meant.
const MAX_BYTES: u64 = 4 << 30;

/// How a file becomes documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading<'a> {
    /// The column of a table.
    pub column: &'a str,
    /// Whether each line of a `.txt` that is not blank is a document, rather than the file.
    pub lines: bool,
}

impl Default for Reading<'_> {
    fn default() -> Self {
        Reading {
            column: "text",
            lines: false,
        }
    }
}

/// Reads the documents of a file by its ending: `.jsonl` and `.parquet` have one in each row,
/// anything else is text.
///
/// # Errors
/// If the file cannot be read, is not UTF-8, is malformed, lacks the column, or is empty.
pub fn read(path: &Path, reading: Reading<'_>) -> Result<Vec<String>, Error> {
    let metadata = fs::metadata(path).map_err(io(path))?;
    if metadata.is_dir() {
        return Err(wrong(path, "is a folder, not a file of text"));
    }
    if metadata.len() > MAX_BYTES {
        let message = format!("is {} bytes, at most {MAX_BYTES} are read", metadata.len());
        return Err(wrong(path, &message));
    }
    let ending = path
        .extension()
        .and_then(|ending| ending.to_str())
        .unwrap_or_default();
    let documents = match ending.to_ascii_lowercase().as_str() {
        "jsonl" | "ndjson" => json_lines(path, reading.column)?,
        "parquet" => parquet(path, reading.column)?,
        _ => plain(path, reading.lines)?,
    };
    if documents.iter().all(|document| document.is_empty()) {
        return Err(wrong(path, "holds no text"));
    }
    Ok(documents)
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |cause| Error::Io {
        path: path.to_path_buf(),
        cause,
    }
}

fn wrong(path: &Path, message: &str) -> Error {
    Error::Text {
        path: path.to_path_buf(),
        message: message.to_owned(),
    }
}

fn utf8(path: &Path) -> Result<String, Error> {
    String::from_utf8(fs::read(path).map_err(io(path))?).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        wrong(path, &format!("is not UTF-8 (byte {at})"))
    })
}

fn plain(path: &Path, lines: bool) -> Result<Vec<String>, Error> {
    let text = utf8(path)?;
    if !lines {
        return Ok(vec![text]);
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(lines.map(str::to_owned).collect())
}

fn json_lines(path: &Path, column: &str) -> Result<Vec<String>, Error> {
    let text = utf8(path)?;
    let mut documents = Vec::new();
    for (at, line) in text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
    {
        let row: serde_json::Value = serde_json::from_str(line)
            .map_err(|error| wrong(path, &format!("line {}: {error}", at + 1)))?;
        let Some(cell) = row.get(column) else {
            let found = row.as_object().map(|row| row.keys().cloned().collect());
            return Err(Error::Column {
                path: path.to_path_buf(),
                column: column.to_owned(),
                found: found.unwrap_or_else(|| vec![format!("no object on line {}", at + 1)]),
            });
        };
        let Some(document) = cell.as_str() else {
            let message = format!("line {}: {column:?} is not a string", at + 1);
            return Err(wrong(path, &message));
        };
        documents.push(document.to_owned());
    }
    Ok(documents)
}

fn parquet(path: &Path, column: &str) -> Result<Vec<String>, Error> {
    let failed = |error: &dyn std::fmt::Display| wrong(path, &error.to_string());
    let file = File::open(path).map_err(io(path))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| failed(&error))?;
    let fields = builder.schema().fields().clone();
    let is_text = |kind: &DataType| {
        matches!(
            kind,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
        )
    };
    let place = fields
        .iter()
        .position(|one| one.name() == column && is_text(one.data_type()));
    let Some(place) = place else {
        return Err(Error::Column {
            path: path.to_path_buf(),
            column: column.to_owned(),
            found: fields
                .iter()
                .map(|one| format!("{} ({})", one.name(), one.data_type()))
                .collect(),
        });
    };
    let mask = ProjectionMask::roots(builder.parquet_schema(), [place]);
    let reader = builder
        .with_projection(mask)
        .build()
        .map_err(|error| failed(&error))?;
    let mut documents = Vec::new();
    for batch in reader {
        texts(&batch.map_err(|error| failed(&error))?, &mut documents);
    }
    Ok(documents)
}

/// Adds the texts of a batch's only column; what is null is no text.
fn texts(batch: &RecordBatch, documents: &mut Vec<String>) {
    let column = batch.column(0);
    let mut add = |text: Option<&str>| documents.extend(text.map(str::to_owned));
    match column.data_type() {
        DataType::LargeUtf8 => column.as_string::<i64>().iter().for_each(&mut add),
        DataType::Utf8View => column.as_string_view().iter().for_each(&mut add),
        _ => column.as_string::<i32>().iter().for_each(&mut add),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        (dir, path)
    }

    fn message(name: &str, bytes: &[u8]) -> String {
        let (_dir, path) = file(name, bytes);
        let error = read(&path, Reading::default()).unwrap_err().to_string();
        error.replace(&path.display().to_string(), name)
    }

    #[test]
    fn a_text_is_one_document_or_one_for_each_line() {
        let (_dir, path) = file("a.txt", "one\n\n two \n".as_bytes());
        assert_eq!(read(&path, Reading::default()).unwrap(), ["one\n\n two \n"]);
        let lines = Reading {
            lines: true,
            ..Reading::default()
        };
        assert_eq!(read(&path, lines).unwrap(), ["one", "two"]);
    }

    #[test]
    fn rows_of_json_lines_name_what_is_wrong_with_them() {
        let (_dir, path) = file(
            "a.jsonl",
            b"{\"text\": \"one\"}\n\n{\"text\": \"two\", \"n\": 1}\n",
        );
        assert_eq!(read(&path, Reading::default()).unwrap(), ["one", "two"]);
        assert_eq!(
            message("a.jsonl", b"{\"body\": \"one\"}\n"),
            r#"a.jsonl: no column "text" of text; found body"#
        );
        assert_eq!(
            message("a.jsonl", b"{\"text\": \"one\"}\n{\"text\": 2}\n"),
            r#"a.jsonl: line 2: "text" is not a string"#
        );
        assert!(message("a.jsonl", b"{\"text\": \"one\"}\n{\n").starts_with("a.jsonl: line 2: "));
    }

    #[test]
    fn what_is_no_text_is_refused() {
        assert_eq!(message("a.txt", b""), "a.txt: holds no text");
        assert_eq!(message("a.txt", b"ab\xff"), "a.txt: is not UTF-8 (byte 2)");
        assert!(message("a.parquet", b"PAR1 no PAR1").starts_with("a.parquet: "));
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path(), Reading::default()).is_err());
        assert!(read(&dir.path().join("none.txt"), Reading::default()).is_err());
    }
}
