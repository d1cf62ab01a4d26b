//! A hub in a hundred lines: the listing, the files, and the faults that real ones have.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// How the server treats the requests for one file.
#[derive(Clone, Default)]
pub struct Served {
    pub bytes: Vec<u8>,
    pub etag: String,
    /// Behind a redirect to another path, with the etag in `X-Linked-Etag`, as large files are.
    pub large: bool,
    /// Where that redirect leads: scheme and host, empty for this server.
    pub store: String,
    /// The connection breaks after this many bytes, each time...
    pub cut_after: Option<usize>,
    /// ...but at most so often.
    pub cuts: usize,
    /// Where it would break, it stays open and nothing more comes, as long as this is set.
    pub stalls: bool,
    /// Ranges are ignored.
    pub no_ranges: bool,
}

#[derive(Default)]
pub struct Hub {
    pub files: BTreeMap<String, Served>,
    /// Answers every request with this status and error code.
    pub refuse: Option<(u16, &'static str)>,
    /// The number of requests that get a 503 first.
    pub busy: usize,
    /// Sent in place of the listing.
    pub listing: Option<String>,
    /// Every request: method, path, range, authorization.
    pub log: Vec<[String; 4]>,
}

#[derive(Clone)]
pub struct Server {
    pub url: String,
    pub hub: Arc<Mutex<Hub>>,
}

impl Server {
    pub fn start(hub: Hub) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Server {
            url,
            hub: Arc::new(Mutex::new(hub)),
        };
        let shared = server.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = shared.clone();
                thread::spawn(move || shared.answer(stream.unwrap()));
            }
        });
        server
    }

    pub fn requests(&self, method: &str) -> Vec<String> {
        let hub = self.hub.lock().unwrap();
        let of_method = hub.log.iter().filter(|entry| entry[0] == method);
        of_method
            .map(|entry| format!("{} {}", entry[1], entry[2]).trim().to_owned())
            .collect()
    }

    fn answer(&self, mut stream: TcpStream) -> Option<()> {
        let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
        let first = lines.next()?.ok()?;
        let mut words = first.split(' ').map(str::to_owned);
        let (method, path) = (words.next()?, words.next()?);
        let (mut range, mut authorization) = (String::new(), String::new());
        for line in lines
            .map_while(Result::ok)
            .take_while(|line| !line.is_empty())
        {
            let (name, value) = line.split_once(": ")?;
            match name.to_ascii_lowercase().as_str() {
                "range" => range = value.to_owned(),
                "authorization" => authorization = value.to_owned(),
                _ => {}
            }
        }
        let mut hub = self.hub.lock().unwrap();
        let start = range
            .strip_prefix("bytes=")
            .and_then(|r| r.strip_suffix('-')?.parse().ok());
        hub.log
            .push([method.clone(), path.clone(), range, authorization]);
        let head = method == "HEAD";
        if let Some((status, code)) = hub.refuse {
            return reply(
                &mut stream,
                status,
                &format!("X-Error-Code: {code}\r\n"),
                b"",
                None,
            );
        }
        if hub.busy > 0 {
            hub.busy -= 1;
            return reply(&mut stream, 503, "", b"", None);
        }
        if path.starts_with("/api/models/o/n/revision/") {
            let listing = hub.listing.clone().unwrap_or_else(|| listing(&hub.files));
            return reply(&mut stream, 200, "", listing.as_bytes(), None);
        }
        let resolve = format!("/o/n/resolve/{COMMIT}/");
        let name = path
            .strip_prefix(&resolve)
            .or_else(|| path.strip_prefix("/store/")?.split('?').next());
        let Some(file) = name.and_then(|name| hub.files.get_mut(name)) else {
            return reply(&mut stream, 404, "", b"", None);
        };
        if file.large && path.starts_with(&resolve) {
            let headers = format!(
                "Location: {}/store/{}?signature=x\r\nX-Linked-Etag: \"{}\"\r\nX-Linked-Size: {}\r\n",
                file.store,
                name.unwrap(),
                file.etag,
                file.bytes.len()
            );
            return reply(&mut stream, 302, &headers, b"", None);
        }
        let etag = format!("ETag: \"{}\"\r\n", file.etag);
        if head {
            let headers = format!("{etag}Content-Length: {}\r\n\r\n", file.bytes.len());
            return write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n{headers}").ok();
        }
        let cut = file.cut_after.filter(|_| file.cuts > 0);
        let stalls = file.stalls && cut.is_some();
        file.cuts = file.cuts.saturating_sub(1);
        let bytes = file.bytes.clone();
        let done = match start.filter(|_| !file.no_ranges) {
            Some(start) if start >= bytes.len() => reply(&mut stream, 416, "", b"", None),
            Some(start) => {
                let (last, all) = (bytes.len() - 1, bytes.len());
                let headers = format!("{etag}Content-Range: bytes {start}-{last}/{all}\r\n");
                drop(hub);
                reply(&mut stream, 206, &headers, &bytes[start..], cut)
            }
            None => {
                drop(hub);
                reply(&mut stream, 200, &etag, &bytes, cut)
            }
        };
        let name = name.unwrap();
        while stalls && self.hub.lock().unwrap().files[name].stalls {
            thread::sleep(Duration::from_millis(5));
        }
        done
    }
}

/// Promises all of `body`, and sends as much as `cut` allows.
fn reply(
    stream: &mut TcpStream,
    status: u16,
    headers: &str,
    body: &[u8],
    cut: Option<usize>,
) -> Option<()> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status} x\r\nConnection: close\r\nContent-Length: {length}\r\n");
    stream
        .write_all(format!("{head}{headers}\r\n").as_bytes())
        .ok()?;
    stream
        .write_all(&body[..cut.unwrap_or(length).min(length)])
        .ok()
}

fn listing(files: &BTreeMap<String, Served>) -> String {
    let siblings: Vec<_> = files
        .keys()
        .map(|name| format!("{{\"rfilename\":\"{name}\",\"x\":1}}"))
        .collect();
    format!(
        "{{\"id\":\"o/n\",\"sha\":\"{COMMIT}\",\"siblings\":[{}]}}",
        siblings.join(",")
    )
}
