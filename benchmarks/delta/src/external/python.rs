//! ZipNN and sparse-llm, through `peers.py` in a Python that has them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;
use serde_json::json;

use super::Workspace;
use crate::measure::{Contender, Round};
use crate::pair::Pair;

const SCRIPT: &str = include_str!("../../peers.py");

/// A method that `peers.py` knows.
#[derive(Debug)]
pub struct Peer {
    /// Its name there and in tables.
    pub name: &'static str,
    about: &'static str,
}

/// All of them.
pub const PEERS: [Peer; 3] = [
    Peer {
        name: "zipnn",
        about: "ZipNN on the fine-tune alone",
    },
    Peer {
        name: "zipnn-xor",
        about: "ZipNN's delta: XOR of whole buffers",
    },
    Peer {
        name: "sparse-llm",
        about: "files to model",
    },
];

/// One method of the running script.
pub struct PythonPeer {
    peer: &'static Peer,
    server: Rc<RefCell<Result<Server>>>,
    workspace: Rc<Workspace>,
    about: String,
}

/// Starts the script; without it every peer's round says why.
pub fn start(
    python: &Path,
    workspace: &Rc<Workspace>,
) -> (Vec<PythonPeer>, BTreeMap<String, String>) {
    let (server, versions) = match Server::start(python) {
        Ok((server, versions)) => (Ok(server), versions),
        Err(error) => (Err(error), BTreeMap::new()),
    };
    let server = Rc::new(RefCell::new(server));
    let peers = PEERS.iter().map(|peer| PythonPeer {
        peer,
        server: server.clone(),
        workspace: workspace.clone(),
        about: peer.about.to_owned(),
    });
    (peers.collect(), versions)
}

#[derive(Debug, Deserialize)]
struct Greeting {
    versions: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Reply {
    Failed {
        error: String,
    },
    Done {
        bytes: u64,
        encode_seconds: f64,
        decode_seconds: f64,
        identical: bool,
        note: Option<String>,
    },
}

/// The script's process; it ends when its input does.
struct Server {
    child: Child,
    requests: Option<ChildStdin>,
    replies: BufReader<ChildStdout>,
}

impl Server {
    fn start(python: &Path) -> Result<(Self, BTreeMap<String, String>)> {
        const HINT: &str = "not installed; hint: benchmarks/delta/run.sh installs it";
        let mut child = Command::new(python)
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context(HINT)?;
        let requests = child.stdin.take();
        let replies = BufReader::new(child.stdout.take().context("no output")?);
        let mut server = Self {
            child,
            requests,
            replies,
        };
        let greeting: Greeting = serde_json::from_str(&server.line()?).context(HINT)?;
        Ok((server, greeting.versions))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.replies.read_line(&mut line)?;
        Ok(line)
    }

    fn ask(&mut self, request: &serde_json::Value) -> Result<Reply> {
        let requests = self.requests.as_mut().context("closed")?;
        writeln!(requests, "{request}")?;
        requests.flush()?;
        serde_json::from_str(&self.line()?).context("the Python process ended")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.requests = None;
        // It ends by itself now; how does not matter.
        let _ = self.child.wait();
    }
}

impl Contender for PythonPeer {
    fn name(&self) -> &str {
        self.peer.name
    }

    fn about(&self) -> &str {
        &self.about
    }

    fn round(&mut self, pair: &Pair) -> Result<Round> {
        let request = json!({
            "method": self.peer.name,
            "base": self.workspace.base(),
            "fine": self.workspace.fine(),
            "dtype": format!("{:?}", pair.layout.main_dtype()),
            "base_checkpoint": pair.base_path,
            "fine_checkpoint": pair.fine_path,
        });
        let mut server = self.server.borrow_mut();
        let server = server.as_mut().map_err(|error| anyhow!("{error:#}"))?;
        match server.ask(&request)? {
            Reply::Failed { error } => Err(anyhow!(error)),
            Reply::Done {
                bytes,
                encode_seconds,
                decode_seconds,
                identical,
                note,
            } => {
                if let Some(note) = note {
                    self.about = format!("{}; {note}", self.peer.about);
                }
                Ok(Round {
                    bytes,
                    encode: Duration::try_from_secs_f64(encode_seconds)?,
                    decode: Duration::try_from_secs_f64(decode_seconds)?,
                    identical,
                })
            }
        }
    }
}
