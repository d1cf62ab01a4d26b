//! One file over the network: resumed where it stopped, checked before it gets its name.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::HubError;
use super::answers::{Blob, range_start};
use super::cache::create_parents;
use super::client::{Answer, Client, Request};
use super::download::Report;
use crate::Error;

const BUFFER_BYTES: usize = 256 << 10;

/// Fetches `blob` from `url` to `target`, by way of `<target>.incomplete`. The caller holds the
/// blob's lock.
///
/// A connection that breaks is taken up again at the byte where it broke; the retries of the
/// configuration count the attempts that brought nothing. `report` gets bytes done and the size.
pub(super) fn fetch(
    client: &Client,
    url: &str,
    blob: &Blob,
    target: &Path,
    report: Report<'_>,
) -> Result<(), Error> {
    create_parents(target)?;
    let mut incomplete = Incomplete::open(target, blob.size)?;
    let resumed = incomplete.len > 0;
    incomplete.fill(client, url, report)?;
    match verify(url, blob, &incomplete) {
        // What an earlier attempt left may be to blame.
        Err(Error::Hub(_)) if resumed => {
            incomplete.truncate()?;
            incomplete.fill(client, url, report)?;
            verify(url, blob, &incomplete).inspect_err(|_| incomplete.discard())?;
        }
        result => result.inspect_err(|_| incomplete.discard())?,
    }
    fs::rename(&incomplete.path, target).map_err(Error::io("create", target))
}

/// The bytes that have arrived so far.
struct Incomplete {
    path: PathBuf,
    file: File,
    len: u64,
    size: Option<u64>,
}

/// How an answer's body ended.
enum End {
    Complete,
    Broken(String),
}

impl Incomplete {
    fn open(target: &Path, size: Option<u64>) -> Result<Incomplete, Error> {
        let mut path = target.as_os_str().to_owned();
        path.push(".incomplete");
        let path = PathBuf::from(path);
        let mut options = File::options();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let mut file = file.map_err(Error::io("create", &path))?;
        let len = file
            .seek(SeekFrom::End(0))
            .map_err(Error::io("read", &path))?;
        let mut incomplete = Incomplete {
            path,
            file,
            len,
            size,
        };
        if size.is_none_or(|size| len > size) {
            incomplete.truncate()?; // without a size there is no telling whether it is a part
        }
        Ok(incomplete)
    }

    fn truncate(&mut self) -> Result<(), Error> {
        self.len = 0;
        self.file
            .set_len(0)
            .and_then(|()| self.file.rewind())
            .map_err(Error::io("write", &self.path))
    }

    fn discard(&self) {
        let _ = fs::remove_file(&self.path);
    }

    /// Requests what is missing until nothing is.
    fn fill(&mut self, client: &Client, url: &str, report: Report<'_>) -> Result<(), Error> {
        let mut fruitless = 0;
        while self.size != Some(self.len) || self.len == 0 {
            report(self.len, self.size)?; // nobody may want another attempt any more
            let before = self.len;
            let answer = client.send(url, Request::GetFrom(self.len))?;
            let message = match self.take(url, answer, report)? {
                End::Complete => return Ok(()),
                End::Broken(message) => message,
            };
            if self.len > before {
                fruitless = 0;
                continue;
            }
            if fruitless == client.retries() {
                let message = format!("{message} ({} bytes are kept)", self.len);
                return Err(HubError::Transport {
                    url: url.to_owned(),
                    message,
                }
                .into());
            }
            client.pause(fruitless);
            fruitless += 1;
        }
        report(self.len, self.size)
    }

    /// Appends the body of an answer, as far as it comes.
    fn take(&mut self, url: &str, mut answer: Answer, report: Report<'_>) -> Result<End, Error> {
        match answer.status().as_u16() {
            206 if range_start(answer.headers()) == Some(self.len) => {}
            200 => self.truncate()?, // the server does not do ranges
            206 | 416 => {
                self.truncate()?;
                return Ok(End::Broken("the server cannot resume the file".to_owned()));
            }
            status => {
                return Err(HubError::Status {
                    url: url.to_owned(),
                    status,
                }
                .into());
            }
        }
        let mut body = answer.body_mut().as_reader();
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let read = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) => return Ok(End::Broken(error.to_string())),
            };
            let found = self.len + read as u64;
            if let Some(expected) = self.size.filter(|&size| found > size) {
                self.discard();
                return Err(HubError::WrongSize {
                    url: url.to_owned(),
                    expected,
                    found,
                }
                .into());
            }
            self.file
                .write_all(&buffer[..read])
                .map_err(Error::io("write", &self.path))?;
            self.len = found;
            report(self.len, self.size)?;
        }
        match self.size {
            Some(size) if self.len < size => Ok(End::Broken(format!(
                "the connection closed at {} of {size} bytes",
                self.len
            ))),
            _ => Ok(End::Complete),
        }
    }
}

/// Checks the digest, where the etag is one.
fn verify(url: &str, blob: &Blob, incomplete: &Incomplete) -> Result<(), Error> {
    let expected = blob.etag.as_str();
    if expected.len() != 64 || !expected.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(());
    }
    let path = &incomplete.path;
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = file.read(&mut buffer).map_err(Error::io("read", path))?;
        if read == 0 {
            break;
        }
        digest.update(&buffer[..read]);
    }
    let found: String = digest
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if found.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    let (url, expected) = (url.to_owned(), expected.to_owned());
    Err(HubError::WrongDigest {
        url,
        expected,
        found,
    }
    .into())
}
