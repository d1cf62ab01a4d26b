//! xdelta3, the VCDIFF tool, at its highest level and with a window over the base.

use std::fs;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Workspace;
use crate::machine::first_line;
use crate::measure::{Contender, Round};
use crate::pair::Pair;

/// What xdelta3 accepts as a source window.
const SOURCE_WINDOW: std::ops::RangeInclusive<u64> = 1 << 19..=1 << 31;

/// `xdelta3 -9` as a process of its own, files in memory.
pub struct Xdelta {
    workspace: Rc<Workspace>,
}

impl Xdelta {
    /// Works on the files of the workspace.
    pub fn new(workspace: Rc<Workspace>) -> Self {
        Self { workspace }
    }

    fn run(&self, arguments: &[&str], files: [&std::path::Path; 3]) -> Result<Duration> {
        let [source, input, output] = files;
        let start = Instant::now();
        let status = Command::new("xdelta3")
            .args(arguments)
            .args(["-f", "-s"])
            .args([source, input, output])
            .stdin(Stdio::null())
            .status()
            .context("not installed; hint: apt-get install xdelta3")?;
        if !status.success() {
            bail!("xdelta3 ended with {status}");
        }
        Ok(start.elapsed())
    }
}

/// What the installed xdelta3 calls itself.
pub fn version() -> Option<String> {
    let line = first_line("xdelta3", &["-V"])?;
    Some(
        line.split(',')
            .next()
            .unwrap_or_default()
            .replace("Xdelta version ", ""),
    )
}

impl Contender for Xdelta {
    fn name(&self) -> &str {
        "xdelta3"
    }

    fn about(&self) -> &str {
        "xdelta3 -9 with a window over the whole base, as a process"
    }

    fn round(&mut self, pair: &Pair) -> Result<Round> {
        let (base, fine) = (self.workspace.base(), self.workspace.fine());
        let (patch, rebuilt) = (
            self.workspace.file("xdelta"),
            self.workspace.file("rebuilt"),
        );
        let size = (pair.base.len() as u64).clamp(*SOURCE_WINDOW.start(), *SOURCE_WINDOW.end());
        let window = format!("-B{}", size.next_power_of_two());
        let encode = self.run(&["-9", "-e", &window], [&base, &fine, &patch])?;
        let decode = self.run(&["-d", &window], [&base, &patch, &rebuilt])?;
        let identical = fs::read(&rebuilt)? == pair.fine;
        Ok(Round {
            bytes: fs::metadata(&patch)?.len(),
            encode,
            decode,
            identical,
        })
    }
}
